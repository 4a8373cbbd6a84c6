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
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import aiohttp
import orjson

from evaluation.failure import SystemFailure
from evaluation.processes import Child, free_port, wait_until
from evaluation.systems import http
from evaluation.systems.interface import Entry, Observation
from evaluation.systems.postgres import topology, wiring
from evaluation.systems.postgres.bouncer import Bouncer
from evaluation.systems.postgres.connection import connect
from evaluation.systems.postgres.following import fill, prepare_source
from evaluation.systems.postgres.installation import prepare
from evaluation.systems.postgres.observer import Observer
from evaluation.systems.postgres.orders import set_standby_names
from evaluation.systems.postgres.profiles import MEMBERS, PROFILES
from evaluation.systems.postgres.programs import home, programs
from evaluation.systems.postgres.rejoining import Agent, Hands, Word
from evaluation.systems.postgres.servers import Server
from evaluation.systems.postgres.source import Source
from evaluation.systems.postgres.topology import BALANCER, SUPERVISOR
from evaluation.systems.program import start_module

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from evaluation.systems.proxies import Proxies

_DEADLINE_S: Final = 90.0


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
        self.links = tuple(topology.links())
        self.beside: Mapping[str, str] = topology.beside()
        self.entries: tuple[Entry, ...] = ()
        self._folder = Path()
        self._home = Path()
        self._at: dict[str, str] = {}
        self._ports = {name: free_port() for name in (BALANCER, SUPERVISOR, *self.beside)}
        self._servers: dict[str, Server] = {}
        self._observer = Observer(self._servers)
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
            await self._start_access(topology.number(member))
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
        await self._wait("both replicas to follow", lambda: self._observer.all_follow(first.member))
        # Only now: with replicas named that are not there, the clones would have hung.
        names = self._profile.standby_names(first.member)
        connection = await connect(first.address, vectors=False)
        await set_standby_names(connection, names)
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
                await prepare_source(self._source(server, primary), primary)
            except SystemFailure:
                return False
            return True

        await self._wait(f"{primary} to be reached from {server.member}", is_prepared)
        await fill(server, self._source(server, primary))

    def _agent(self, server: Server) -> Agent:
        supervisor_url = f"http://{self._at[f'control.api-{topology.number(server.member)}.supervisor']}"

        async def hear() -> Word | None:
            return Word.read(await self._get(f"{supervisor_url}/state"))

        return Agent(
            server,
            Hands(
                hear=hear,
                look=lambda: self._observer.observe(server.member),
                prepare=lambda primary: prepare_source(self._source(server, primary), primary),
                fill=lambda primary: fill(server, self._source(server, primary)),
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
                    or not await self._observer.comes_to_follow(server.member, primary)
                ):
                    await server.stop()
                    await self._make_follow(server, primary)
        await self._wait("all as after the start", self._is_healthy)

    # ------------------------------------------------------------------------------- looking

    async def leader(self) -> str | None:
        state = await self._state()
        return None if state is None else state["primary"]

    async def observe(self) -> list[Observation]:
        return list(await asyncio.gather(*(self._observer.observe(member) for member in MEMBERS)))

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
        if not await self._observer.all_follow(primary):
            return f"not both replicas follow {primary} and have caught up"
        names = await self._observer.ask(primary, lambda one: one.value("SHOW synchronous_standby_names"))
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
        port = self._ports[name]
        listen = f"127.0.0.1:{port}"
        if name == BALANCER:
            options = orjson.dumps(wiring.balancer(port, self._at)).decode()
            self._children[name] = start_module("round_robin", [options], self._log(name))
            return
        if name == SUPERVISOR:
            program = "supervisor"
            settings = wiring.supervisor(
                self._profile, listen, str(self._folder / "supervisor.state"), self._at
            )
        else:
            program = "api"
            bouncer = self._bouncers[name.replace("api", "pgbouncer")]
            settings = wiring.api(self._profile, name, listen, bouncer.address, self._at, self._reads)
        configuration = self._folder / f"{name}.json"
        settings.save(configuration)
        arguments = ["--config", str(configuration)]
        self._children[name] = start_module(f"postgres.{program}", arguments, self._log(name))

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
