"""How a handler reaches the servers: writes on the primary, reads from the first server that answers."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import asyncpg

from cluster.errors import OutcomeUnknown, Unavailable
from evaluation.systems.postgres import writing
from evaluation.systems.postgres.connection import BROKEN

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from evaluation.systems.postgres.api.exchange import Request
    from evaluation.systems.postgres.connection import Connection, Pool
    from evaluation.systems.postgres.routing import Readers, Route

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Access:
    """`work` is one statement or one transaction."""

    pools: Mapping[str, Pool]
    route: Route
    readers: Readers
    deadline_s: float
    attempt_s: float
    """How long one server may take over a read before the next one is asked."""

    async def write(self, request: Request, work: Callable[[Connection], Awaitable[T]]) -> T:
        primary = self.route.primary()
        if primary is None:
            raise Unavailable("No primary is known at the moment. Nothing was changed; send it again.")
        request.node = primary.member
        return await writing.write(
            self.pools[primary.member],
            work,
            deadline_s=self.deadline_s,
            still_primary=lambda: self.route.holds(primary),
        )

    async def prepare(self, request: Request, work: Callable[[Connection], Awaitable[T]]) -> T:
        """Something on the primary before the write itself, which is surely not done if this fails."""
        try:
            return await self.write(request, work)
        except OutcomeUnknown as error:
            raise Unavailable(f"Nothing was changed: before the write began, {error.message}") from None

    async def read(self, request: Request, work: Callable[[Connection], Awaitable[T]]) -> T:
        """From the first server that answers."""
        end = time.monotonic() + self.deadline_s
        why: BaseException | None = None
        for member in self.readers.order(self.route, time.monotonic()):
            left = end - time.monotonic()
            if left <= 0:
                break
            try:
                async with self.pools[member].use(min(self.attempt_s, left)) as connection:
                    request.node = member
                    return await work(connection)
            except asyncpg.PostgresError as error:
                why = error
                if writing.undone(error) is not None and error.sqlstate not in writing.REPEATABLE:
                    raise
            except BROKEN as error:
                why = error
            self.readers.avoid(member, time.monotonic())
        raise Unavailable(f"No Postgres server answered the read ({why!r}). Try again.")
