"""A member's wall clock, which may be wrong, and the stamps made from it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from evaluation.systems.naive.records import Stamp

if TYPE_CHECKING:
    from pathlib import Path


class MemberClock:
    """The machine's wall clock plus an offset read from a file at each write, so that a fault can step it."""

    def __init__(self, node: str, offset_file: Path, *, hybrid: bool) -> None:
        self._node = node
        self._offset_file = offset_file
        self._hybrid = hybrid
        self._last = Stamp(0, 0, node)

    def stamp(self) -> Stamp:
        """For the next write. Hybrid: later than every stamp made or seen, whatever the wall clock says."""
        wall_us = time.time_ns() // 1000 + self._offset_ms() * 1000
        if self._hybrid:
            self._last = following(self._last, wall_us, self._node)
            return self._last
        return Stamp(wall_us, 0, self._node)

    def saw(self, stamp: Stamp) -> None:
        if (stamp.wall_us, stamp.count) > (self._last.wall_us, self._last.count):
            self._last = Stamp(stamp.wall_us, stamp.count, self._node)

    def _offset_ms(self) -> int:
        try:
            return int(self._offset_file.read_text().strip() or "0")
        except FileNotFoundError:
            return 0


def following(last: Stamp, wall_us: int, node: str) -> Stamp:
    """The hybrid logical time after `last` when the wall clock says `wall_us`. Pure."""
    if wall_us > last.wall_us:
        return Stamp(wall_us, 0, node)
    return Stamp(last.wall_us, last.count + 1, node)
