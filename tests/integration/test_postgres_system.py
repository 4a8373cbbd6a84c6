"""The Postgres system with real processes: what each profile keeps when its servers fail, and what it loses.

One system a test: what happens to it is not undone. Replicas are cut off, paused and killed by name, so each
outcome follows from the set-up and not from timing.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from typing import TYPE_CHECKING, Any, Final

import aiohttp
import asyncpg
import pytest

from evaluation.faulting.links import between, groups, participants, streams
from evaluation.faulting.toxiproxy import ToxiproxyServer
from evaluation.processes import wait_until
from evaluation.systems.http import DATABASE
from evaluation.systems.postgres.connection import connect
from evaluation.systems.postgres.patroni import Patroni
from evaluation.systems.postgres.servers import Condition
from evaluation.systems.postgres.system import Postgres

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
    from pathlib import Path

pytestmark = pytest.mark.slow

DEADLINE_S: Final = 60.0
REPLICAS: Final = ("repl.pg-2.pg-1", "repl.pg-3.pg-1")


class Clients:
    """Writes and reads of one collection through any entry; `acknowledged` are the ids answered with 201."""

    def __init__(self, system: Postgres, session: aiohttp.ClientSession) -> None:
        self.system = system
        self._session = session
        self._urls = {entry.name: entry.url for entry in system.entries}
        self._collection = ""
        self.acknowledged: dict[str, str] = {}

    async def create(self) -> None:
        body = {"name": "documents"}
        async with self._session.post(f"{self._urls['lb']}{DATABASE}/collections", json=body) as answer:
            assert answer.status == 200, await answer.text()
            self._collection = (await answer.json())["id"]
        for entry in self._urls:
            await wait_until(f"{entry} knows the collection", lambda at=entry: self._knows(at), DEADLINE_S)

    async def add(self, name: str, entry: str = "lb") -> tuple[int, str | None]:
        """Status, and the server that committed."""
        body = {"ids": [name], "embeddings": [[1.0, 2.0]]}
        async with self._session.post(self._path(entry, "add"), json=body) as answer:
            node = answer.headers.get("X-Chroma-Node")
            if answer.status == 201:
                assert node is not None
                self.acknowledged[name] = node
            elif answer.status == 504:
                assert "outcome unknown" in (await answer.text())
            return answer.status, node

    async def ids(self, entry: str = "lb") -> set[str]:
        async with self._session.post(self._path(entry, "get"), json={"include": []}) as answer:
            assert answer.status == 200, await answer.text()
            return set((await answer.json())["ids"])

    async def add_until_acknowledged(self, name: str, entry: str = "lb") -> str:
        """The server that committed, after as many attempts as it takes."""
        done: list[str] = []

        async def attempt() -> bool:
            status, node = await self.add(f"{name}-{len(done)}", entry)
            if status == 201:
                done.append(str(node))
            return status == 201

        await wait_until(f"a write through {entry}", attempt, DEADLINE_S, context=lambda: str(done))
        return done[0]

    async def lost(self) -> set[str]:
        return self.acknowledged.keys() - await self.ids()

    async def _knows(self, entry: str) -> bool:
        async with self._session.post(self._path(entry, "get"), json={"include": []}) as answer:
            return answer.status == 200

    def _path(self, entry: str, verb: str) -> str:
        return f"{self._urls[entry]}{DATABASE}/collections/{self._collection}/{verb}"


@contextlib.asynccontextmanager
async def running(
    profile: str, folder: Path, reads: str = "spread"
) -> AsyncGenerator[tuple[Postgres, Clients, ToxiproxyServer]]:
    proxies = ToxiproxyServer()
    await proxies.start(None, folder / "toxiproxy.log")
    system = Patroni(reads) if profile == "postgres-patroni" else Postgres(profile, reads)
    try:
        await system.start(folder / "run", proxies)
        assert await system.health() is None
        async with aiohttp.ClientSession() as session:
            clients = Clients(system, session)
            await clients.create()
            yield system, clients, proxies
    finally:
        await system.stop()
        await proxies.stop()


async def switch(proxies: ToxiproxyServer, names: Iterable[str], enabled: bool) -> None:
    for name in names:
        await proxies.enable(name, enabled)


async def ask(system: Postgres, member: str, query: str) -> Any:
    connection = await connect(system.address(member), vectors=False)
    try:
        return await connection.value(query)
    finally:
        await connection.close()


async def other_primary(system: Postgres, old: str) -> str:
    found: list[str] = []

    async def promoted() -> bool:
        leader = await system.leader()
        found[:] = [leader] if leader not in (None, old) else []
        return bool(found)

    await wait_until("another primary", promoted, DEADLINE_S)
    return found[0]


def crossing(system: Postgres, member: str) -> list[str]:
    """The proxies that a cut around this member and whatever stands beside it cuts."""
    everybody = participants(system.links, system.members)
    others = [name for name in system.members if name != member]
    cuts = between(groups(everybody, [[member], others], system.beside))
    return sorted({stream.proxy for stream in streams(system.links, cuts)})


def run(body: Callable[[], Awaitable[None]]) -> None:
    async def limited() -> None:
        await body()

    asyncio.run(limited())


def test_quorum_keeps_what_it_acknowledged(tmp_path: Path) -> None:
    async def body() -> None:
        async with running("postgres-quorum", tmp_path, reads="local") as (system, clients, proxies):
            assert await system.leader() == "pg-1"
            assert system.pids("pg-1")
            assert system.disk("pg-2").is_dir()
            for number in range(20):
                assert (await clients.add(f"before-{number}"))[0] == 201

            # ANY 1: with one replica that does not replay, writes go on, and reads there miss them.
            await ask(system, "pg-3", "SELECT pg_wal_replay_pause()")
            assert await clients.add("unseen", "pg-1") == (201, "pg-1")
            assert "unseen" not in await clients.ids("pg-3")
            assert "unseen" in await clients.ids("pg-1")
            assert "unseen" in await clients.ids("pg-2")
            await ask(system, "pg-3", "SELECT pg_wal_replay_resume()")

            # No replica: nothing is acknowledged, and a cancelled wait is not an acknowledgement.
            await switch(proxies, REPLICAS, False)
            waiting = asyncio.ensure_future(clients.add("cancelled"))
            query = "SELECT pid FROM pg_stat_activity WHERE wait_event = 'SyncRep'"

            async def waits() -> bool:
                return await ask(system, "pg-1", query) is not None

            await wait_until("a write that waits for replicas", waits, DEADLINE_S)
            await ask(system, "pg-1", f"SELECT pg_cancel_backend(({query} LIMIT 1))")
            assert (await waiting)[0] == 504
            assert (await clients.add("too late"))[0] == 504
            await switch(proxies, REPLICAS, True)

            pids = system.pids("pg-1")
            await asyncio.to_thread(system._servers["pg-1"].kill)
            assert pids
            assert system.pids("pg-1") == []
            assert await clients.add_until_acknowledged("after") in ("pg-2", "pg-3")
            # No agent starts what was killed.
            assert system.pids("pg-1") == []
            await system.restart("pg-1")
            await system.settle()
            assert await system.health() is None
            assert await clients.lost() == set()
            roles = {seen.member: (seen.role, seen.term) for seen in await system.observe()}
            assert roles["pg-1"] == ("replica", 2)
            assert await clients.ids("pg-1") == await clients.ids("pg-2") == await clients.ids("pg-3")

    run(body)


def test_async_loses_what_no_replica_had(tmp_path: Path) -> None:
    async def body() -> None:
        async with running("postgres-async", tmp_path) as (system, clients, proxies):
            assert (await clients.add("kept"))[0] == 201
            await wait_until("all to have it", lambda: _everywhere(clients, "kept"), DEADLINE_S)
            await switch(proxies, REPLICAS, False)
            for number in range(5):
                assert (await clients.add(f"lost-{number}"))[0] == 201
            await asyncio.to_thread(system._servers["pg-1"].kill)
            await switch(proxies, REPLICAS, True)
            await other_primary(system, "pg-1")
            await clients.add_until_acknowledged("after")
            await system.restart("pg-1")
            await system.settle()
            assert await clients.lost() == {f"lost-{number}" for number in range(5)}
            assert await system.health() is None

    run(body)


async def _everywhere(clients: Clients, name: str) -> bool:
    return all([name in await clients.ids() for _ in range(3)])


@pytest.mark.parametrize("profile", ["postgres-async", "postgres-async-unfenced"])
def test_an_isolated_primary(tmp_path: Path, profile: str) -> None:
    """Fenced, it stops acknowledging before another is promoted; else both sides go on."""

    async def body() -> None:
        async with running(profile, tmp_path, reads="local") as (system, clients, proxies):
            assert (await clients.add("kept"))[0] == 201
            await wait_until("all to have it", lambda: _everywhere(clients, "kept"), DEADLINE_S)
            await switch(proxies, [name for name in crossing(system, "pg-1") if "client" not in name], False)
            new = await other_primary(system, "pg-1")
            assert await clients.add_until_acknowledged("new side", new) == new
            status, node = await clients.add("old side", "pg-1")
            if profile == "postgres-async":
                assert status == 503
            else:
                assert (status, node) == (201, "pg-1")
            assert "kept" in await clients.ids("pg-1")
            assert await clients.add_until_acknowledged("new side again", new) == new
            await proxies.reset()
            if profile == "postgres-async-unfenced":
                assert await clients.add("still old side", "pg-1") == (201, "pg-1")
            await system.settle()
            assert await system.health() is None
            lost = await clients.lost()
            assert ("old side" in lost) == (profile == "postgres-async-unfenced")
            assert not [name for name in lost if name.startswith("new")]

    run(body)


def test_an_old_primary_comes_back_without_its_operator(tmp_path: Path) -> None:
    """With ANY 2 nothing is acknowledged until it follows; `settle` is not called."""

    async def body() -> None:
        async with running("postgres-all", tmp_path, reads="local") as (system, clients, proxies):
            assert (await clients.add("before"))[0] == 201
            await switch(proxies, [name for name in crossing(system, "pg-1") if "client" not in name], False)
            new = await other_primary(system, "pg-1")
            # Cut off, it cannot know that it was replaced.
            assert (await clients.add("in between", new))[0] in (503, 504)
            assert await _role(system, "pg-1") == "primary"
            await proxies.reset()
            assert await clients.add_until_acknowledged("after the cut", new) == new
            await wait_until("health", lambda: _is_healthy(system), DEADLINE_S)
            assert await _role(system, "pg-1") == "replica"

            pids = system.pids(new)
            for pid in pids:
                os.kill(pid, signal.SIGSTOP)
            await other_primary(system, new)
            assert system._servers[new].condition() is Condition.PAUSED
            for pid in pids:
                os.kill(pid, signal.SIGCONT)
            await clients.add_until_acknowledged("after the pause")
            await wait_until("health", lambda: _is_healthy(system), DEADLINE_S)
            assert await clients.lost() == set()

    run(body)


@pytest.mark.parametrize("profile", ["postgres-async", "postgres-async-unfenced"])
def test_a_replica_that_goes_on_receiving_can_follow_the_next_primary(tmp_path: Path, profile: str) -> None:
    """Only the supervisor is cut off from the primary, which writes and ships its log all the time."""

    async def write_on(connection: asyncpg.Connection) -> None:
        with contextlib.suppress(asyncpg.PostgresError, OSError):
            while True:
                await connection.execute("SELECT pg_logical_emit_message(false, 'test', repeat('x', 1000))")

    async def body() -> None:
        async with running(profile, tmp_path) as (system, _, proxies):
            host, _, port = system.address("pg-1").rpartition(":")
            connection = await asyncpg.connect(host=host, port=int(port), user="postgres")
            writing = asyncio.create_task(write_on(connection))
            try:
                await switch(proxies, ["sql.supervisor.pg-1"], False)
                new = await other_primary(system, "pg-1")
                third = next(name for name in ("pg-2", "pg-3") if name != new)

                async def follows() -> bool:
                    seen = {one.member: one for one in await system.observe()}
                    return (seen[third].role, seen[third].term) == ("replica", 2)

                await wait_until(f"{third} to follow {new}", follows, DEADLINE_S)
            finally:
                writing.cancel()
                await asyncio.wait([writing])
                connection.terminate()

    run(body)


def test_who_is_killed_while_it_is_rewound_stays_down(tmp_path: Path) -> None:
    async def body() -> None:
        async with running("postgres-quorum", tmp_path) as (system, clients, _):
            server = system._servers["pg-1"]
            for pid in server.pids():
                os.kill(pid, signal.SIGSTOP)
            await other_primary(system, "pg-1")

            async def at_work() -> bool:
                return server._tool is not None

            for pid in server.pids():
                os.kill(pid, signal.SIGCONT)
            await wait_until("the agent to rewind it", at_work, DEADLINE_S, pause_s=0.002)
            killed = system.pids("pg-1")
            for pid in killed:
                os.kill(pid, signal.SIGKILL)
            assert killed
            await clients.add_until_acknowledged("without it")
            log = system._log("agents")
            await wait_until("the agent to give up", lambda: _holds(log, "killed"), DEADLINE_S)
            assert server.condition() is Condition.DEAD
            assert not server.has_data
            await system.restart("pg-1")
            await wait_until("health", lambda: _is_healthy(system), DEADLINE_S)
            assert await clients.lost() == set()

    run(body)


async def _role(system: Postgres, member: str) -> str:
    return next(seen.role for seen in await system.observe() if seen.member == member)


async def _is_healthy(system: Postgres) -> bool:
    return await system.health() is None


async def _holds(log: Path, text: str) -> bool:
    return text in await asyncio.to_thread(log.read_text)


def test_all_shows_each_write_everywhere_and_stops_without_a_replica(tmp_path: Path) -> None:
    async def body() -> None:
        async with running("postgres-all", tmp_path, reads="local") as (system, clients, _):
            for number in range(10):
                assert (await clients.add(f"seen-{number}"))[0] == 201
                for member in system.members:
                    assert f"seen-{number}" in await clients.ids(member)
            await ask(system, "pg-3", "SELECT pg_wal_replay_pause()")
            assert (await clients.add("waits"))[0] == 504
            await ask(system, "pg-3", "SELECT pg_wal_replay_resume()")
            await clients.add_until_acknowledged("goes on")
            # A replica that cannot be reached fails a read over to another server.
            await asyncio.to_thread(system._servers["pg-2"].kill)
            assert "seen-1" in await clients.ids("pg-2")
            with pytest.raises((OSError, TimeoutError, asyncpg.PostgresError)):
                await ask(system, "pg-2", "SELECT 1")
            await system.restart("pg-2")
            await system.settle()
            assert await clients.lost() == set()

    run(body)


@pytest.mark.soak
def test_patroni_replaces_a_primary_whose_patroni_hangs_and_the_old_one_goes_on(tmp_path: Path) -> None:
    async def body() -> None:
        async with running("postgres-patroni", tmp_path, reads="local") as (system, clients, _):
            assert isinstance(system, Patroni)
            old = await system.leader()
            assert old is not None
            assert (await clients.add("kept"))[0] == 201
            await wait_until("all to have it", lambda: _everywhere(clients, "kept"), DEADLINE_S)
            (agent,) = system.pids(system.agent(old))
            os.kill(agent, signal.SIGSTOP)
            new = await other_primary(system, old)
            both = {seen.member for seen in await system.observe() if seen.role == "primary"}
            assert both == {old, new}
            assert await clients.add("old side", old) == (201, old)
            await wait_until("a write on the new side", lambda: _is_taken_by(clients, new), DEADLINE_S)
            os.kill(agent, signal.SIGCONT)
            await system.settle()
            assert await system.health() is None
            lost = await clients.lost()
            assert "old side" in lost
            assert {clients.acknowledged[name] for name in lost} == {old}

            # A whole member, after all have what there is: nothing more is lost.
            await asyncio.to_thread(system._servers[new].kill)
            assert system.pids(new) == []
            await other_primary(system, new)
            await clients.add_until_acknowledged("after")
            await system.restart(new)
            await system.settle()
            assert await system.health() is None
            assert await clients.lost() == lost
            ids = [await clients.ids(member) for member in system.members]
            assert ids[0] == ids[1] == ids[2]

    run(body)


async def _is_taken_by(clients: Clients, member: str) -> bool:
    """Whether a write through its own entry is committed by it, and not by another primary."""
    return await clients.add(f"new-{len(clients.acknowledged)}", member) == (201, member)
