"""Log time: milliseconds that only go on, measured by no wall clock.

Log time bounds how long an answered request is remembered. If it came from the leader's wall clock, a jump
ahead would forget all of them at once, and a write that is sent again would be applied again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


class LogClock:
    """What the log's entries would be stamped with now, if this node led.

    It goes on from the latest log time that this node has seen applied, at the pace of its monotonic clock.
    While no node runs it stands still: then requests are remembered for longer.
    """

    def __init__(self, seen_ms: Callable[[], int], monotonic_ns: Callable[[], int]) -> None:
        self._seen_ms = seen_ms
        self._monotonic_ns = monotonic_ns
        self._offset_ms = seen_ms() - monotonic_ns() // 1_000_000

    def now_ms(self) -> int:
        """Never below what was seen; never below what it said before."""
        monotonic_ms = self._monotonic_ns() // 1_000_000
        self._offset_ms = max(self._offset_ms, self._seen_ms() - monotonic_ms)
        return self._offset_ms + monotonic_ms
