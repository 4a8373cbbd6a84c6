"""Requests under way, and how they come to their end when this process is told to stop.

While it drains, requests that have begun go on, their bodies go on arriving, and every answer closes its
connection. What has not ended by then is interrupted, and answered all the same.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Generator

#: For so long without a request, clients of open connections have been told, or have nothing to ask.
_QUIET_S: Final = 0.2
_LOOK_S: Final = 0.02
#: For interrupted requests to send their answers.
_LAST_WORDS_S: Final = 1.0


class Drain:
    """Belongs to one event loop."""

    def __init__(self) -> None:
        self.draining = False
        """Answers are to close their connections."""
        self.over = False
        """A request that is cancelled now is cancelled because the time for it is up."""
        self._under_way: set[asyncio.Task[Any]] = set()
        self._heard_at = 0.0

    @contextlib.contextmanager
    def under_way(self) -> Generator[None]:
        """The running task handles a request in here."""
        task = asyncio.current_task()
        assert task is not None
        self._under_way.add(task)
        try:
            yield
        finally:
            self._under_way.discard(task)
            self._heard_at = asyncio.get_running_loop().time()

    def _is_quiet(self, now: float) -> bool:
        return not self._under_way and now - self._heard_at >= _QUIET_S

    async def finish(self, wait_s: float) -> None:
        """Let all requests end, for up to `wait_s`; then interrupt them and let them answer that."""
        loop = asyncio.get_running_loop()
        self.draining = True
        self._heard_at = loop.time()
        deadline = loop.time() + wait_s
        while not self._is_quiet(loop.time()) and loop.time() < deadline:  # noqa: ASYNC110 (silence is no event)
            await asyncio.sleep(_LOOK_S)
        self.over = True
        left = set(self._under_way)
        for task in left:
            task.cancel()
        if left:
            await asyncio.wait(left, timeout=_LAST_WORDS_S)
            # The answers are with the server, which is about to send them.
            await asyncio.sleep(_LOOK_S)
