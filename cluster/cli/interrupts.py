"""Being asked to end: SIGINT, SIGTERM and SIGHUP as something to wait for, never as an exception.

A KeyboardInterrupt comes between any two steps, also inside a callback whose exceptions Python only
prints and forgets: then the request to end is lost. And a handler must take no lock, because it may
run in the middle of code that holds it; so it counts and writes one byte to a pipe.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Generator
    from types import FrameType


class Interrupts:
    """Counts SIGINT, SIGTERM and SIGHUP: the first asks to end, the second to end at once."""

    def __init__(self) -> None:
        self._count = 0
        self._reader, self._writer = os.pipe()
        os.set_blocking(self._writer, False)

    @contextlib.contextmanager
    def installed(self) -> Generator[None]:
        """Take the signals over for as long as the block lasts; to be used once, on the main thread."""
        numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        before = {number: signal.signal(number, self._receive) for number in numbers}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
            os.close(self._reader)
            os.close(self._writer)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        del number, frame
        self._count += 1
        with contextlib.suppress(BlockingIOError):  # the pipe is full: who waits wakes all the same
            os.write(self._writer, b"!")

    def asked(self) -> bool:
        """Was it asked to end?"""
        return self._count > 0

    def hurried(self) -> bool:
        """Was it asked to end at once?"""
        return self._count > 1

    def wait(self, timeout_s: float) -> bool:
        """Wait for the first; False if none came in time."""
        if not self._count:
            select.select([self._reader], [], [], timeout_s)
        return self._count > 0
