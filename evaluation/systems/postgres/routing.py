"""Which server takes writes and which ones reads, as one API server knows it.

Fenced (`Supervised`): the supervisor says who is primary. Its word is a lease: it holds for `lease_s` from
the moment it was asked for. Without a word that holds, no write is sent, and none that is under way is
acknowledged: a cut-off API server stops acknowledging before the supervisor promotes another server,
because the supervisor waits for the leases it gave. What is left open: an API process that is stopped
between its last look at the lease and its answer.

Not fenced (`Discovering`): what a driver with several hosts and `target_session_attrs=read-write` does. The
first server that says it is not in recovery is the primary, the server beside this process is asked first.
An old primary that nobody stopped goes on being used from its own side.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

import aiohttp

from cluster.errors import Unavailable
from evaluation.systems.postgres.connection import FAILURES

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from evaluation.systems.postgres.connection import Pool

POLL_S: Final = 0.1
_CHECK_S: Final = 0.5
#: A server that did not answer a read is asked last for so long.
_AVOID_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class Primary:
    """Who takes writes, and the term (timeline) of that; 0 where nobody counts them."""

    member: str
    term: int


class Route(Protocol):
    def primary(self) -> Primary | None:
        """Who takes writes now, if that is known."""
        ...

    def holds(self, primary: Primary) -> bool:
        """Whether what it has committed just now may be acknowledged."""
        ...

    def readable(self) -> Sequence[str] | None:
        """Which members may be read; None: any."""
        ...

    async def run(self) -> None:
        """Keeps itself up to date until cancelled."""
        ...


@dataclass(frozen=True, slots=True)
class Word:
    """The supervisor's answer: `primary` is None while there is none."""

    primary: str | None
    term: int
    readable: tuple[str, ...]
    asked_at: float


class Supervised:
    """`Route` by the supervisor's word."""

    def __init__(
        self, name: str, url: str, lease_s: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._name = name
        self._url = url
        self._lease_s = lease_s
        self._clock = clock
        self._word: Word | None = None

    def hear(self, word: Word) -> None:
        self._word = word

    def primary(self) -> Primary | None:
        word = self._word
        if word is None or word.primary is None or self._clock() - word.asked_at >= self._lease_s:
            return None
        return Primary(word.primary, word.term)

    def holds(self, primary: Primary) -> bool:
        return self.primary() == primary

    def readable(self) -> Sequence[str] | None:
        # Reads go on without the supervisor: they promise nothing about time.
        return None if self._word is None else self._word.readable

    async def run(self) -> None:
        timeout = aiohttp.ClientTimeout(total=_CHECK_S)
        async with aiohttp.ClientSession(timeout=timeout) as session:
            while True:
                asked_at = self._clock()
                with contextlib.suppress(aiohttp.ClientError, TimeoutError, OSError, ValueError, KeyError):
                    async with session.get(f"{self._url}/state", params={"api": self._name}) as answer:
                        found = await answer.json()
                    self.hear(Word(found["primary"], found["term"], tuple(found["readable"]), asked_at))
                await asyncio.sleep(POLL_S)


class Discovering:
    """`Route` by asking the servers themselves, the one beside this process first."""

    def __init__(self, pools: Mapping[str, Pool], local: str) -> None:
        self._pools = pools
        self._order = [local, *(name for name in pools if name != local)]
        self._primary: Primary | None = None

    def primary(self) -> Primary | None:
        return self._primary

    def holds(self, primary: Primary) -> bool:
        del primary
        return True  # a driver takes the server's word for it

    def readable(self) -> Sequence[str] | None:
        return None

    async def run(self) -> None:
        while True:
            self._primary = await self._look()
            await asyncio.sleep(POLL_S)

    async def _look(self) -> Primary | None:
        for member in self._order:
            with contextlib.suppress(*FAILURES):
                async with self._pools[member].use(_CHECK_S) as connection:
                    if not await connection.value("SELECT pg_is_in_recovery()"):
                        return Primary(member, 0)
        return None


class Readers:
    """In which order servers are asked for a read: `spread` over all, `local` or `primary` first."""

    def __init__(self, members: Sequence[str], local: str, reads: str) -> None:
        if reads not in ("spread", "local", "primary"):
            raise ValueError(f"reads must be spread, local or primary, not {reads!r}")
        self._members = tuple(members)
        self._local = local
        self._reads = reads
        self._turn = itertools.count()
        self._avoided: dict[str, float] = {}

    def avoid(self, member: str, now: float) -> None:
        """It did not answer."""
        self._avoided[member] = now + _AVOID_S

    def order(self, route: Route, now: float) -> list[str]:
        """Raises:
        Unavailable: none may be read.
        """
        allowed = route.readable()
        members = [name for name in self._members if allowed is None or name in allowed]
        if not members:
            raise Unavailable("No Postgres server may be read at the moment. Try again.")
        primary = route.primary()
        first = self._local
        if self._reads == "primary" and primary is not None:
            first = primary.member
        elif self._reads == "spread":
            first = members[next(self._turn) % len(members)]
        at = members.index(first) if first in members else 0
        turned = members[at:] + members[:at]
        return sorted(turned, key=lambda name: self._avoided.get(name, 0.0) > now)
