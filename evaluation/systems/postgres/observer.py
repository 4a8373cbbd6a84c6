"""What the Postgres servers say of themselves, asked past all proxies."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any, Final

from evaluation.processes import wait_until
from evaluation.systems.interface import Observation
from evaluation.systems.postgres.connection import FAILURES, Connection, connect
from evaluation.systems.postgres.election import parse_lsn

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from evaluation.systems.postgres.servers import Server

_ANSWER_S: Final = 1.0
_FOLLOW_S: Final = 6.0
"""Longer than a silent link's timeout and the next attempt together."""

_LOOK: Final = """
SELECT pg_is_in_recovery() AS replica,
    CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn()
        ELSE pg_current_wal_lsn() END::text AS position,
    CASE WHEN pg_is_in_recovery() THEN (SELECT received_tli FROM pg_stat_wal_receiver)
        ELSE ('x' || left(pg_walfile_name(pg_current_wal_lsn()), 8))::bit(32)::integer END AS timeline
"""


class Observer:
    """Of the servers that `servers` holds at the moment of each question."""

    def __init__(self, servers: Mapping[str, Server]) -> None:
        self._servers = servers

    async def ask(self, member: str, question: Callable[[Connection], Awaitable[Any]]) -> Any:
        """None if it does not answer soon."""
        connection: Connection | None = None
        try:
            async with asyncio.timeout(_ANSWER_S):
                connection = await connect(self._servers[member].address, timeout_s=_ANSWER_S, vectors=False)
                return await question(connection)
        except FAILURES:
            return None
        finally:
            if connection is not None:
                connection.terminate()

    async def observe(self, member: str) -> Observation:
        row = await self.ask(member, lambda connection: connection.row(_LOOK))
        now = time.monotonic_ns()
        if row is None:
            lives = bool(self._servers[member].pids())
            return Observation(member, now, "silent" if lives else "stopped", healthy=False)
        return Observation(
            member,
            now,
            "replica" if row["replica"] else "primary",
            term=row["timeline"],
            applied=parse_lsn(row["position"]),
        )

    async def all_follow(self, primary: str) -> bool:
        """Whether all others have applied what the primary had a moment ago."""
        wanted = await self.ask(primary, lambda one: one.value("SELECT pg_current_wal_lsn()::text"))
        if wanted is None:
            return False
        others = [member for member in self._servers if member != primary]
        return all(await asyncio.gather(*(self._has_applied(one, str(wanted)) for one in others)))

    async def comes_to_follow(self, member: str, primary: str) -> bool:
        """Whether it does so by itself, in the time that this takes."""
        try:
            await wait_until(f"{member} to follow", lambda: self._follows(member, primary), _FOLLOW_S)
        except TimeoutError:
            return False
        return True

    async def _has_applied(self, member: str, position: str) -> bool:
        async def ask(connection: Connection) -> Any:
            streams = await connection.value("SELECT 1 FROM pg_stat_wal_receiver WHERE status = 'streaming'")
            return streams and await connection.value("SELECT pg_last_wal_replay_lsn()::text")

        end = time.monotonic() + 1.0
        while time.monotonic() < end:
            applied = await self.ask(member, ask)
            if applied is not None and parse_lsn(str(applied)) >= parse_lsn(position):
                return True
            await asyncio.sleep(0.05)
        return False

    async def _follows(self, member: str, primary: str) -> bool:
        """On the primary's timeline: one that received more than what was promoted also streams now and then,
        but never gets there."""
        one, other = await asyncio.gather(self.observe(member), self.observe(primary))
        return one.role == "replica" and one.term is not None and one.term == other.term
