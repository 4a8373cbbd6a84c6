"""Postgres whose failover Patroni decides, as a system under test: `postgres-patroni`.

    client -> balancer (round robin) -> api-1..3 -> pgbouncer-1..3 -> pg-1..3 (each with patroni-N beside it)

In place of the supervisor, the Patronis agree on a leader by a Raft log of their own. An API server finds the
primary by asking the servers, as a driver with several hosts does (`routing.Discovering`). What clients,
balancer and PgBouncer dial goes through proxies; what the members dial among each other does not (see
`governed`), so that no partition can be made: faults are of processes, disks and slow links to clients.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final, cast

import aiohttp

from evaluation.failure import SystemFailure
from evaluation.systems.postgres.governed import LOOP_WAIT_S, TTL_S, Governed, interpreter
from evaluation.systems.postgres.installation import prepare
from evaluation.systems.postgres.profiles import MEMBERS
from evaluation.systems.postgres.system import Postgres
from evaluation.systems.postgres.topology import SUPERVISOR

if TYPE_CHECKING:
    from pathlib import Path

    from evaluation.systems.postgres.servers import Server

_PROXIED: Final = frozenset({"client", "balancer", "sql"})
_ASK_S: Final = 1.0


class Patroni(Postgres):
    """A `System`."""

    fault_s = TTL_S + 3.0 * LOOP_WAIT_S
    """The time until a leader that says nothing is replaced, and a little of the time after it."""

    def __init__(self, reads: str = "spread") -> None:
        super().__init__("postgres-patroni", reads)
        self.links = tuple(
            link for link in self.links if link.plane in _PROXIED and link.dialer != SUPERVISOR
        )
        self.beside = {**self.beside, **{self.agent(member): member for member in MEMBERS}}
        self._python: Path | None = None

    def agent(self, member: str) -> str:
        """The Patroni that decides for this member."""
        return member.replace("pg", "patroni")

    async def leader(self) -> str | None:
        answers = await asyncio.gather(*(self._leads(one) for one in self._governed()))
        return next((member for member, leads in zip(MEMBERS, answers, strict=True) if leads), None)

    def pids(self, participant: str) -> list[int]:
        for one in self._governed():
            if participant == self.agent(one.member):
                return one.agent_pids()
        return super().pids(participant)

    def disk(self, member: str) -> Path:
        return cast("Governed", self._servers[member]).folder

    async def settle(self) -> None:
        """Patroni rewinds and copies by itself."""
        await self._wait("all as after the start", self._is_healthy)

    def _make_server(self, member: str, binaries: Path) -> Server:
        if self._python is None:
            self._python = interpreter(self._home)
        return Governed(member, self._home / "data" / member, binaries, self._python, self._log(member))

    def _run_supervision(self) -> None:
        """There is none but the Patronis."""

    async def _start_servers(self) -> None:
        members = self._governed()
        for one in members:
            one.join(members)
            one.launch()
        await self._wait("a leader of the Patronis", self._has_primary)
        primary = await self.leader()
        if primary is None:
            raise SystemFailure("The first leader of the Patronis was lost at once.")
        await prepare(self._servers[primary].address)
        await self._wait("both replicas to follow", lambda: self._observer.all_follow(primary))

    async def _restart_server(self, server: Server) -> None:
        await asyncio.to_thread(server.kill)
        await server.start()

    async def _answers(self, participant: str) -> bool:
        if await super()._answers(participant):
            return True
        # Without a majority a Patroni begins nothing: the others have to be started first.
        running = [member for member in MEMBERS if self.pids(member)]
        return participant in self._servers and 2 * len(running) <= len(MEMBERS)

    def _governed(self) -> list[Governed]:
        return [cast("Governed", server) for server in self._servers.values()]

    async def _leads(self, one: Governed) -> bool:
        """Whether its Patroni says that it runs the primary and holds the leader's key."""
        assert self._session is not None
        timeout = aiohttp.ClientTimeout(total=_ASK_S)
        try:
            async with self._session.get(f"{one.url}/primary", timeout=timeout) as answer:
                return answer.status == 200
        except (aiohttp.ClientError, TimeoutError):
            return False
