"""Postgres with pgvector as a system under test: one primary, two replicas, an API server beside each.

    client -> balancer (round robin) -> api-1..3 -> pgbouncer-1..3 -> pg-1..3
                                        api-1..3 -> supervisor -> pg-1..3    pg-2, pg-3 -> pg-1 (replication)

Where it is fenced, an agent for each server makes an old primary follow the new one (`rejoining`).

api-N and pgbouncer-N stand on pg-N's machine: between those three there is no proxy. All other links have
one; those of replication are there for each pair, so that after a failover the new ones are proxied too.
"""

from __future__ import annotations

import asyncio
import datetime
import shutil
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import aiohttp
import orjson

from evaluation.failure import SystemFailure
from evaluation.processes import Child, free_port, wait_until
from evaluation.systems import http
from evaluation.systems.environment import clean
from evaluation.systems.interface import Entry, Link, Observation
from evaluation.systems.postgres import catalogue
from evaluation.systems.postgres.bouncer import Bouncer
from evaluation.systems.postgres.connection import FAILURES, Connection, connect
from evaluation.systems.postgres.election import parse_lsn
from evaluation.systems.postgres.profiles import MEMBERS, PROFILES
from evaluation.systems.postgres.rejoining import Agent, Hands, Word
from evaluation.systems.postgres.servers import Killed, Server, Source, home, programs, slot
from evaluation.systems.postgres.settings import ApiSettings, SupervisorSettings

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Mapping

    from evaluation.systems.proxies import Proxies

BALANCER: Final = "balancer"
SUPERVISOR: Final = "supervisor"
EF_SEARCH: Final = 100
"""As Chroma's."""
_DEADLINE_S: Final = 90.0
_FOLLOW_S: Final = 6.0
"""Longer than a silent link's timeout and the next attempt together."""
_LEASE_S: Final = 1.0
_PREPARE_S: Final = 20.0

_LOOK: Final = """
SELECT pg_is_in_recovery() AS replica,
    CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn()
        ELSE pg_current_wal_lsn() END::text AS position,
    CASE WHEN pg_is_in_recovery() THEN (SELECT received_tli FROM pg_stat_wal_receiver)
        ELSE ('x' || left(pg_walfile_name(pg_current_wal_lsn()), 8))::bit(32)::integer END AS timeline
"""


def _number(member: str) -> str:
    return member.removeprefix("pg-")


def _links() -> Iterator[Link]:
    yield Link("client.lb", "client", BALANCER, "client")
    for member in MEMBERS:
        number = _number(member)
        yield Link(f"client.{member}", f"client@{member}", f"api-{number}", "client")
        yield Link(f"lb.api-{number}", BALANCER, f"api-{number}", "balancer")
        yield Link(f"control.api-{number}.supervisor", f"api-{number}", SUPERVISOR, "control")
        yield Link(f"sql.supervisor.{member}", SUPERVISOR, member, "sql")
        for other in MEMBERS:
            if other != member:
                yield Link(f"sql.pgbouncer-{number}.{other}", f"pgbouncer-{number}", other, "sql")
                yield Link(f"repl.{member}.{other}", member, other, "replication")


async def prepare(address: str, ef_search: int = EF_SEARCH) -> None:
    """Give a new Postgres server the tables and settings of a vector database."""
    connection = await connect(address, vectors=False)
    for statement in catalogue.SCHEMA.split(";\n"):
        if statement.strip():
            await connection.execute(statement)
    # The settings of an extension are known only where it is loaded.
    await connection.execute("LOAD 'vector'")
    for setting, value in (("hnsw.ef_search", ef_search), ("hnsw.iterative_scan", "strict_order")):
        await connection.execute(f"ALTER DATABASE postgres SET {setting} = '{value}'")
    await connection.close()


class Postgres:
    """A `System`. `reads`: spread, local or primary, see `routing.Readers`."""

    levels = ("default",)
    has_leader = True

    def __init__(self, profile: str = "postgres-quorum", reads: str = "spread") -> None:
        self._profile = PROFILES[profile]
        self._reads = reads
        self.name = profile
        self.members = MEMBERS
        self.promises = self._profile.promises
        self.links = tuple(_links())
        beside = {f"client@{member}": member for member in MEMBERS}
        for member in MEMBERS:
            number = _number(member)
            beside |= {f"api-{number}": member, f"pgbouncer-{number}": member}
        self.beside: Mapping[str, str] = beside
        self.entries: tuple[Entry, ...] = ()
        self._folder = Path()
        self._home = Path()
        self._at: dict[str, str] = {}
        self._ports = {name: free_port() for name in (BALANCER, SUPERVISOR, *beside)}
        self._servers: dict[str, Server] = {}
        self._bouncers: dict[str, Bouncer] = {}
        self._children: dict[str, Child] = {}
        self._agents: list[asyncio.Task[None]] = []
        self._session: aiohttp.ClientSession | None = None

    # ------------------------------------------------------------------------ start and stop

    async def start(self, folder: Path, proxies: Proxies) -> None:
        self._folder = folder
        self._session = aiohttp.ClientSession()
        binaries = await asyncio.to_thread(self._make_folders)
        for member in MEMBERS:
            self._servers[member] = self._make_server(member, binaries)
        for link in self.links:
            self._at[link.proxy] = await proxies.create(link.proxy, self._upstream(link.acceptor))
        await self._start_servers()
        for member in MEMBERS:
            await self._start_access(_number(member))
        self._run_supervision()
        self._run(BALANCER)
        self.entries = (
            Entry("lb", f"http://{self._at['client.lb']}"),
            *(Entry(member, f"http://{self._at[f'client.{member}']}", member) for member in MEMBERS),
        )
        await self._wait("a primary, two replicas that follow it and answering processes", self._is_healthy)
        for entry in self.entries:
            await self._wait(f"a write through {entry.name}", lambda url=entry.url: self._takes_writes(url))
        await self.settle()
        if self._profile.fenced:
            self._agents = [asyncio.create_task(self._agent(one).run()) for one in self._servers.values()]

    def _make_folders(self) -> Path:
        """The folder of Postgres's programs."""
        self._folder.mkdir(parents=True, exist_ok=True)
        self._home = home(self._folder)
        (self._home / "data").mkdir(mode=0o755)
        (self._home / "pooling").mkdir(mode=0o755)
        return programs(self._home)

    def _make_server(self, member: str, binaries: Path) -> Server:
        return Server(member, self._home / "data" / member, free_port(), binaries, self._log(member))

    def _run_supervision(self) -> None:
        self._run(SUPERVISOR)

    async def _start_servers(self) -> None:
        first = self._servers[MEMBERS[0]]
        await first.initialize()
        await first.start()
        await prepare(first.address)
        for member in MEMBERS[1:]:
            server = self._servers[member]
            await server.clone(Source(self._at[f"repl.{member}.{first.member}"], member))
            await server.start()
        await self._wait("both replicas to follow", lambda: self._follow(first.member))
        # Only now: with replicas named that are not there, the clones would have hung.
        names = self._profile.standby_names(first.member)
        connection = await connect(first.address, vectors=False)
        await connection.execute(f"ALTER SYSTEM SET synchronous_standby_names = '{names}'")
        await connection.execute("ALTER SYSTEM SET synchronous_commit = 'remote_apply'")
        await connection.execute("SELECT pg_reload_conf()")
        await connection.close()

    async def _start_access(self, number: str) -> None:
        member = f"pg-{number}"
        name = f"pgbouncer-{number}"
        servers = {
            other: self._servers[other].address if other == member else self._at[f"sql.{name}.{other}"]
            for other in MEMBERS
        }
        self._bouncers[name] = Bouncer(name, self._home / "pooling", servers)
        await self._bouncers[name].start()
        self._run(f"api-{number}")

    async def stop(self) -> None:
        for agent in self._agents:
            agent.cancel()
        # What one failed with was told by `_is_healthy`; now all that counts is that none is at work.
        await asyncio.gather(*self._agents, return_exceptions=True)
        self._agents.clear()
        if self._session is not None:
            await self._session.close()
            self._session = None
        await asyncio.gather(
            *(asyncio.to_thread(child.stop, 3.0) for child in self._children.values()),
            *(bouncer.stop() for bouncer in self._bouncers.values()),
            *(server.stop() for server in self._servers.values()),
        )
        self._children.clear()
        self._bouncers.clear()
        self._servers.clear()
        if self._home != self._folder:
            await asyncio.to_thread(shutil.rmtree, self._home, True)

    async def restart(self, participant: str) -> None:
        if participant in self._servers:
            server = self._servers[participant]
            async with server.lock:
                if self.pids(participant):
                    return
                await self._restart_server(server)
        elif self.pids(participant):
            return
        elif participant in self._bouncers:
            await self._bouncers[participant].start()
        else:
            self._run(participant)
        await self._wait(f"{participant} to answer", lambda: self._answers(participant))

    async def _restart_server(self, server: Server) -> None:
        """As its operator would: what is not the primary any more is rewound and follows."""
        server.kill()
        state = await self._state()
        primary = None if state is None else str(state["last_primary"])
        if not server.has_data:
            if primary == server.member:
                await self._wait("another primary to copy from", lambda: self._another(server.member))
            primary = await self.leader()
            if primary is None:
                raise SystemFailure(f"There is no primary to copy to {server.member}.")
            await self._make_follow(server, primary)
        elif server.was_primary and primary not in (None, server.member):
            await self._make_follow(server, str(primary))
        else:
            await server.start()

    async def _another(self, member: str) -> bool:
        return await self.leader() not in (None, member)

    def _source(self, server: Server, primary: str) -> Source:
        return Source(self._at[f"repl.{server.member}.{primary}"], server.member)

    async def _make_follow(self, server: Server, primary: str) -> None:
        """A stopped one, whatever it wrote of its own."""

        async def is_prepared() -> bool:
            try:
                await self._prepare_source(server, primary)
            except SystemFailure:
                return False
            return True

        await self._wait(f"{primary} to be reached from {server.member}", is_prepared)
        await self._fill(server, primary)

    async def _fill(self, server: Server, primary: str) -> None:
        source = self._source(server, primary)
        if server.has_data:
            try:
                await server.rewind(source)
            except Killed:
                raise
            except SystemFailure:
                # What it had in common with the primary is not in its log any more; or it was cut short.
                await server.clone(source, create_slot=False)
        else:
            await server.clone(source, create_slot=False)
        await server.start()

    async def _prepare_source(self, server: Server, primary: str) -> None:
        """Raises:
        SystemFailure: the primary does not answer through the server's link to it.
        """
        connection: Connection | None = None
        try:
            async with asyncio.timeout(_PREPARE_S):
                connection = await connect(self._source(server, primary).address, vectors=False)
                # Until its next checkpoint a new primary's control file names the old timeline.
                await connection.execute("CHECKPOINT")
                await connection.execute(
                    "SELECT pg_create_physical_replication_slot($1::text) "
                    "WHERE NOT EXISTS (SELECT 1 FROM pg_replication_slots WHERE slot_name = $1::text)",
                    slot(server.member),
                )
        except FAILURES as error:
            raise SystemFailure(f"{server.member} does not reach {primary} to follow it: {error!r}") from None
        finally:
            if connection is not None:
                connection.terminate()

    def _agent(self, server: Server) -> Agent:
        supervisor_url = f"http://{self._at[f'control.api-{_number(server.member)}.supervisor']}"

        async def hear() -> Word | None:
            return Word.read(await self._get(f"{supervisor_url}/state"))

        return Agent(
            server,
            Hands(
                hear=hear,
                look=lambda: self._observe(server.member),
                prepare=lambda primary: self._prepare_source(server, primary),
                fill=lambda primary: self._fill(server, primary),
                note=self._note,
            ),
        )

    def _note(self, text: str) -> None:
        """What the agents do."""
        now = datetime.datetime.now(datetime.UTC).strftime("%H:%M:%S.%f")
        with self._log("agents").open("a") as file:
            file.write(f"{now} {text}\n")

    async def settle(self) -> None:
        """The operator's part: whatever does not follow the primary is rewound; then all caught up."""
        await self._wait("a primary", self._has_primary)
        for server in self._servers.values():
            async with server.lock:
                primary = await self.leader()
                if primary is None or server.member == primary:
                    continue
                if (
                    server.was_primary
                    or not server.has_data
                    or not await self._comes_to_follow(server.member, primary)
                ):
                    await server.stop()
                    await self._make_follow(server, primary)
        await self._wait("all as after the start", self._is_healthy)

    # ------------------------------------------------------------------------------- looking

    async def leader(self) -> str | None:
        state = await self._state()
        return None if state is None else state["primary"]

    async def observe(self) -> list[Observation]:
        return list(await asyncio.gather(*(self._observe(member) for member in MEMBERS)))

    async def health(self) -> str | None:
        primary = await self.leader()
        if primary is None:
            return "no primary is known"
        silent = [name for name in (*self._children, *self._bouncers) if not self.pids(name)]
        if silent:
            return f"not running: {', '.join(silent)}"
        seen = await self.observe()
        wrong = [
            f"{one.member} is {one.role}"
            for one in seen
            if one.role != ("primary" if one.member == primary else "replica")
        ]
        if wrong:
            return "; ".join(wrong)
        if not await self._follow(primary):
            return f"not both replicas follow {primary} and have caught up"
        names = await self._ask(primary, lambda one: one.value("SHOW synchronous_standby_names"))
        if names != self._profile.standby_names(primary):
            return f"{primary} waits for {names!r}"
        for entry in self.entries:
            if await self._get(f"{entry.url}/api/v2/heartbeat") is None:
                return f"no answer through {entry.name}"
        return None

    def pids(self, participant: str) -> list[int]:
        if participant in self._servers:
            return self._servers[participant].pids()
        if participant in self._bouncers:
            child = self._bouncers[participant].child
        else:
            child = self._children.get(participant)
        return [] if child is None else child.pids()

    def disk(self, member: str) -> Path:
        return self._servers[member].data

    async def state(self) -> Mapping[str, Any] | None:
        """What the supervisor says: primary, last_primary, term, readable, events."""
        return await self._state()

    def address(self, member: str) -> str:
        """Where a Postgres server takes SQL, past all proxies."""
        return self._servers[member].address

    # -------------------------------------------------------------------------------- inside

    def _upstream(self, acceptor: str) -> str:
        if acceptor in self._servers:
            return self._servers[acceptor].address
        return f"127.0.0.1:{self._ports[acceptor]}"

    def _log(self, name: str) -> Path:
        return self._folder / "logs" / f"{name}.log"

    def _run(self, name: str) -> None:
        configuration = self._folder / f"{name}.json"
        listen = f"127.0.0.1:{self._ports[name]}"
        package = "evaluation.systems.postgres"
        if name == BALANCER:
            backends = [f"http://{self._at[f'lb.api-{_number(member)}']}" for member in MEMBERS]
            # Longer than the API servers' own deadline: their answer says more than a timeout here.
            options = {"port": self._ports[name], "backends": backends, "read_timeout_s": 8.0}
            arguments = ["evaluation.systems.round_robin", orjson.dumps(options).decode()]
        elif name == SUPERVISOR:
            SupervisorSettings(
                profile=self._profile.name,
                listen=listen,
                primary=MEMBERS[0],
                state=str(self._folder / "supervisor.state"),
                servers={member: self._at[f"sql.supervisor.{member}"] for member in MEMBERS},
                sources={
                    f"{one} {other}": self._at[f"repl.{one}.{other}"]
                    for one in MEMBERS
                    for other in MEMBERS
                    if one != other
                },
                lease_s=_LEASE_S,
            ).save(configuration)
            arguments = [f"{package}.supervisor", "--config", str(configuration)]
        else:
            number = name.removeprefix("api-")
            ApiSettings(
                name=name,
                listen=listen,
                local=f"pg-{number}",
                members=MEMBERS,
                pgbouncer=self._bouncers[f"pgbouncer-{number}"].address,
                supervisor=(
                    f"http://{self._at[f'control.{name}.supervisor']}" if self._profile.fenced else None
                ),
                lease_s=_LEASE_S,
                reads=self._reads,
            ).save(configuration)
            arguments = [f"{package}.api", "--config", str(configuration)]
        checkout = str(Path(__file__).parents[3])
        environment = clean(PYTHONPATH=checkout)
        self._children[name] = Child([sys.executable, "-m", *arguments], self._log(name), environment)

    async def _answers(self, participant: str) -> bool:
        if participant in self._servers:
            return await self._servers[participant].answers()
        if participant in self._bouncers:
            return True  # waited for in its start
        child = self._children[participant]
        if child.returncode is not None:
            raise SystemFailure(f"{participant} ended with {child.returncode}. {child.log_tail()}")
        path = "/state" if participant == SUPERVISOR else "/api/v2/heartbeat"
        return await self._get(f"http://127.0.0.1:{self._ports[participant]}{path}") is not None

    async def _get(self, url: str) -> Mapping[str, Any] | None:
        assert self._session is not None
        return await http.get_json(self._session, url, 1.0)

    async def _state(self) -> Mapping[str, Any] | None:
        return await self._get(f"http://127.0.0.1:{self._ports[SUPERVISOR]}/state")

    async def _ask(self, member: str, question: Callable[[Connection], Awaitable[Any]]) -> Any:
        """Past all proxies; None if it does not answer soon."""
        connection: Connection | None = None
        try:
            async with asyncio.timeout(1.0):
                connection = await connect(self._servers[member].address, timeout_s=1.0, vectors=False)
                return await question(connection)
        except FAILURES:
            return None
        finally:
            if connection is not None:
                connection.terminate()

    async def _observe(self, member: str) -> Observation:
        row = await self._ask(member, lambda connection: connection.row(_LOOK))
        now = time.monotonic_ns()
        if row is None:
            return Observation(member, now, "silent" if self.pids(member) else "stopped", healthy=False)
        return Observation(
            member,
            now,
            "replica" if row["replica"] else "primary",
            term=row["timeline"],
            applied=parse_lsn(row["position"]),
        )

    async def _follow(self, primary: str) -> bool:
        """Whether all others have applied what the primary had a moment ago."""
        wanted = await self._ask(primary, lambda one: one.value("SELECT pg_current_wal_lsn()::text"))
        if wanted is None:
            return False
        others = [member for member in MEMBERS if member != primary]
        return all(await asyncio.gather(*(self._has_applied(one, str(wanted)) for one in others)))

    async def _has_applied(self, member: str, position: str) -> bool:
        async def ask(connection: Connection) -> Any:
            streams = await connection.value("SELECT 1 FROM pg_stat_wal_receiver WHERE status = 'streaming'")
            return streams and await connection.value("SELECT pg_last_wal_replay_lsn()::text")

        end = time.monotonic() + 1.0
        while time.monotonic() < end:
            applied = await self._ask(member, ask)
            if applied is not None and parse_lsn(str(applied)) >= parse_lsn(position):
                return True
            await asyncio.sleep(0.05)
        return False

    async def _follows(self, member: str, primary: str) -> bool:
        """On the primary's timeline: one that received more than what was promoted also streams now and then,
        but never gets there."""
        one, other = await asyncio.gather(self._observe(member), self._observe(primary))
        return one.role == "replica" and one.term is not None and one.term == other.term

    async def _comes_to_follow(self, member: str, primary: str) -> bool:
        try:
            await wait_until(f"{member} to follow", lambda: self._follows(member, primary), _FOLLOW_S)
        except TimeoutError:
            return False
        return True

    async def _has_primary(self) -> bool:
        return await self.leader() is not None

    async def _is_healthy(self) -> bool:
        for name, child in self._children.items():
            if child.returncode is not None:
                raise SystemFailure(f"{name} ended with {child.returncode}. {child.log_tail()}")
        for agent in self._agents:
            if agent.done():
                agent.result()  # it never ends but by a defect
        return await self.health() is None

    async def _takes_writes(self, url: str) -> bool:
        assert self._session is not None
        return await http.takes_writes(self._session, url, 15.0)

    async def _wait(self, what: str, condition: Callable[[], Awaitable[bool]]) -> None:
        try:
            await wait_until(what, condition, _DEADLINE_S, pause_s=0.05)
        except TimeoutError as error:
            tails = [f"--- {name}\n{child.log_tail(10)}" for name, child in self._children.items()]
            tails += [f"--- {one.member}\n{one.log_tail()}" for one in self._servers.values()]
            health = await self.health() if self._session is not None and self.entries else ""
            raise SystemFailure(f"{error} {health}\n" + "\n".join(tails)) from error
