"""Bodies on their way in: how long each may take, and how many there may be.

A slow client costs others nothing but its own slot, and of those it can have half: the body that has been on
its way for longest gives way when another comes.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

_BASE_S: Final = 10.0
_BYTES_A_SECOND: Final = 64 * 1024
_LONGEST_S: Final = 120.0

#: A body that has been on its way for less gives way to nobody: its client is not slow.
_FRESH_S: Final = 1.0


class Crowded(Exception):
    """As many bodies are on their way as there may be, and none for long."""


def allowed_s(length: int | None) -> float:
    """How long a body may take; `length` in bytes is None for one that does not say."""
    if length is None:
        return _LONGEST_S
    return min(_BASE_S + length / _BYTES_A_SECOND, _LONGEST_S)


class Receiving:
    """The bodies on their way in; belongs to one event loop."""

    def __init__(self, most: int) -> None:
        self._most = most
        #: In the order in which they began.
        self._scopes: dict[asyncio.Timeout, float] = {}

    def __len__(self) -> int:
        return len(self._scopes)

    @contextlib.asynccontextmanager
    async def body(self, length: int | None) -> AsyncGenerator[None]:
        """Receive one body in here.

        Raises:
            TimeoutError: it took too long, or longer than others that need its place.
            Crowded: there is no place.
        """
        now = asyncio.get_running_loop().time()
        if len(self._scopes) >= self._most:
            self._make_room(now)
        async with asyncio.timeout(allowed_s(length)) as scope:
            self._scopes[scope] = now
            try:
                yield
            finally:
                self._scopes.pop(scope, None)

    def _make_room(self, now: float) -> None:
        oldest = next(iter(self._scopes))
        if now - self._scopes[oldest] < _FRESH_S:
            raise Crowded
        del self._scopes[oldest]
        if not oldest.expired():
            oldest.reschedule(now)
