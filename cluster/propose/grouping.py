"""Which waiting writes form the next log entry.

Pure. There is no delay timer: while the log has room for another entry in flight, what waits goes
at once, so a lone writer never waits for company; while the log is busy, writes gather, and all
that gathered go together as soon as an entry leaves flight. So groups grow with load by
by themselves, and one fsync and one round to the followers is shared by as many writes as it delayed.

Large writes and small ones take turns: a large one goes alone, only one of them is in flight, and between
two of them all small ones that wait go first. So a small write waits for one large write at most, and
a large one for one group of small ones, however many come.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Final, Generic, TypeVar

from cluster.errors import Overloaded

if TYPE_CHECKING:
    from collections.abc import Iterable

MIB: Final = 1024 * 1024

Item = TypeVar("Item")


@dataclass(frozen=True, slots=True)
class GroupLimits:
    """Bounds of one node's way into the log; each node may have its own.

    An entry has at most `entry_bytes`, unless a single proposal is larger: it goes alone. Two
    entries in flight keep the journal busy while the followers' acknowledgements travel; more
    would only make groups smaller. `queue_bytes` bounds what is accepted but not yet applied. A proposal
    above `large_bytes` goes in turn with the small ones.
    """

    entry_bytes: int = 4 * MIB
    entry_proposals: int = 2048
    in_flight: int = 2
    queue_bytes: int = 256 * MIB
    large_bytes: int = MIB


def choose(sizes: Iterable[int], in_flight: int, limits: GroupLimits) -> int:
    """How many of the oldest waiting proposals, of these sizes in bytes, form an entry now."""
    if in_flight >= limits.in_flight:
        return 0
    chosen = 0
    total = 0
    for size in islice(sizes, limits.entry_proposals):
        total += size
        if chosen and total > limits.entry_bytes:
            break
        chosen += 1
    return chosen


def admits(queued_bytes: int, size: int, limits: GroupLimits) -> bool:
    """Whether a proposal may join those not yet applied; a large one may always if it is alone."""
    return queued_bytes == 0 or queued_bytes + size <= limits.queue_bytes


class WaitingLine(Generic[Item]):
    """Proposals in order of arrival, and how much of the log's room is taken.

    Small items keep their order, and so do large ones. An item's bytes count against `queue_bytes` from
    `join` until `finish`, that is while it waits, is in flight, or is committed but not yet applied: a
    slow engine slows the writers down.
    """

    def __init__(self, limits: GroupLimits | None = None) -> None:
        self._limits = limits or GroupLimits()
        self._small: deque[tuple[Item, int]] = deque()
        self._large: deque[tuple[Item, int]] = deque()
        self._in_flight = 0
        self._large_in_flight = 0
        self._last_was_large = False
        self._queued_bytes = 0

    @property
    def queued_bytes(self) -> int:
        return self._queued_bytes

    @property
    def in_flight(self) -> int:
        return self._in_flight

    def __len__(self) -> int:
        """How many wait that were not taken yet."""
        return len(self._small) + len(self._large)

    def join(self, item: Item, size: int) -> None:
        """Put an item of `size` bytes at the end.

        Raises:
            Overloaded: the queue is full; the item was not accepted.
        """
        if not admits(self._queued_bytes, size, self._limits):
            raise Overloaded(
                f"The write queue is full ({self._queued_bytes} of {self._limits.queue_bytes} bytes): this"
                " write was not accepted and nothing was changed. Try again later."
            )
        (self._large if self.is_large(size) else self._small).append((item, size))
        self._queued_bytes += size

    def take(self) -> list[Item]:
        """The items of the next entry, oldest first, now in flight; empty if none may go now."""
        if self._in_flight >= self._limits.in_flight:
            return []
        if self._large and not self._large_in_flight and not (self._small and self._last_was_large):
            self._in_flight += 1
            self._large_in_flight += 1
            self._last_was_large = True
            return [self._large.popleft()[0]]
        count = choose((size for _, size in self._small), self._in_flight, self._limits)
        if count:
            self._in_flight += 1
            self._last_was_large = False
        return [self._small.popleft()[0] for _ in range(count)]

    def landed(self, *, large: bool = False) -> None:
        """An entry that was taken is committed or has failed: there is room for another.

        `large` says that it was one large item.
        """
        if self._in_flight == 0 or (large and self._large_in_flight == 0):
            raise ValueError("no such entry is in flight")
        self._in_flight -= 1
        self._large_in_flight -= large

    def is_large(self, size: int) -> bool:
        """Whether an item of that size goes alone, in turn with the small ones."""
        return size > self._limits.large_bytes

    def finish(self, size: int) -> None:
        """An item of `size` bytes is applied, or known to have failed: release its room."""
        if size > self._queued_bytes:
            raise ValueError(f"{size} bytes finished, but only {self._queued_bytes} are queued")
        self._queued_bytes -= size

    def withdraw(self, item: Item) -> bool:
        """Remove an item that still waits; False if it was taken, and may yet be applied.

        After True the item's write has surely changed nothing.
        """
        for line in (self._large, self._small):
            for position, (waiting, size) in enumerate(line):
                if waiting is item:
                    del line[position]
                    self._queued_bytes -= size
                    return True
        return False
