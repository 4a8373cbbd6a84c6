"""What the replicated log knows: every acknowledged request is in it once, and in real-time order.

`LogEvidence` comes from the members' own journals after the run. It is a second opinion: the black-box
checks never use it, except that operations of unknown outcome can be resolved by it (`resolve`).
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING

from evaluation.checking.findings import Tally, ms
from evaluation.history import Fate, Operation

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


@dataclass(frozen=True, slots=True)
class LogEntry:
    """One committed entry."""

    index: int
    term: int
    request_ids: tuple[str, ...]
    """Requests that took effect by it: repeats that the state machine ignored are left out."""


@dataclass(frozen=True, slots=True)
class LogEvidence:
    """Each member's committed entries, ascending, without gaps; the front may be compacted away."""

    members: Mapping[str, Sequence[LogEntry]]

    def first(self) -> int:
        """The smallest index that any member still has."""
        return min((entries[0].index for entries in self.members.values() if entries), default=0)

    def index_of(self) -> dict[str, int]:
        """Request id -> the index at which it took effect."""
        return {
            request: entry.index
            for entries in self.members.values()
            for entry in entries
            for request in entry.request_ids
        }


def check(evidence: LogEvidence, operations: Sequence[Operation]) -> Tally:
    """Members agree; each acknowledged write is in the log once, where real time and its answer put it."""
    tally = Tally("log")
    agreed: dict[int, tuple[str, LogEntry]] = {}
    for member, entries in evidence.members.items():
        for entry in entries:
            name, known = agreed.setdefault(entry.index, (member, entry))
            if (known.term, known.request_ids) != (entry.term, entry.request_ids):
                tally.blame(f"{name} and {member} hold different entries at index {entry.index}", [])
    times = Counter(request for _, entry in agreed.values() for request in entry.request_ids)
    index_of = evidence.index_of()
    first = evidence.first()
    placed: list[tuple[int, Operation]] = []
    for operation in operations:
        request = operation.request_id
        if not operation.is_write or request is None:
            continue
        if operation.outcome is Fate.REFUSED:
            if request in index_of:
                tally.blame(
                    f"write {operation.id} of {operation.key} was refused, but is in the log", [operation.id]
                )
            continue
        if times[request] > 1:
            tally.blame(
                f"write {operation.id} of {operation.key} took effect {times[request]} times", [operation.id]
            )
        if operation.outcome is not Fate.OK:
            continue
        index = index_of.get(request)
        if index is None:
            if operation.index is not None and operation.index < first:
                continue  # compacted
            if first > 1 and operation.index is None:
                continue  # perhaps compacted
            tally.checked += 1
            tally.blame(
                f"write {operation.id} of {operation.key} was acknowledged at "
                f"{ms(operation.returned_ns)} and is not in the log",
                [operation.id],
            )
            continue
        tally.checked += 1
        placed.append((index, operation))
        if operation.index is not None and operation.index < index:
            tally.blame(
                f"write {operation.id} of {operation.key} was acknowledged at index "
                f"{operation.index}, but is at {index}",
                [operation.id],
            )
    _check_order(placed, tally)
    return tally


def _check_order(placed: list[tuple[int, Operation]], tally: Tally) -> None:
    """A write that ended before another began has no larger index."""
    by_begin = sorted(placed, key=lambda item: item[1].invoked_ns)
    by_end = sorted(placed, key=lambda item: item[1].returned_ns or 0)
    highest: tuple[int, Operation] | None = None
    done = 0
    for index, operation in by_begin:
        while done < len(by_end) and (by_end[done][1].returned_ns or 0) < operation.invoked_ns:
            if highest is None or by_end[done][0] > highest[0]:
                highest = by_end[done]
            done += 1
        if highest is not None and highest[0] > index:
            tally.blame(
                f"write {operation.id} began after write {highest[1].id} was acknowledged, but is before "
                f"it in the log ({index} < {highest[0]})",
                [operation.id, highest[1].id],
            )


@dataclass(frozen=True, slots=True)
class Resolution:
    """A history with fewer open writes."""

    operations: list[Operation]
    ends: dict[int, int]
    """Id of a write of unknown outcome -> by when it certainly took effect."""
    counts: dict[str, int]
    """How many unknown writes were `dropped`, `closed` or left `open`."""


def resolve(evidence: LogEvidence, operations: Sequence[Operation]) -> Resolution:
    """What the log says of writes whose outcome the client did not learn.

    One that no member has in its log never took effect, as long as the log has its beginning and every
    acknowledged write. One that is in the log took effect before any acknowledged write behind it was
    answered.
    """
    index_of = evidence.index_of()
    complete = 0 < evidence.first() <= 1 and all(
        op.request_id in index_of
        for op in operations
        if op.is_write and op.outcome is Fate.OK and op.request_id is not None
    )
    behind = sorted(
        (index_of[op.request_id], op.returned_ns)
        for op in operations
        if op.is_write
        and op.outcome is Fate.OK
        and op.request_id is not None
        and op.request_id in index_of
        and op.returned_ns is not None
    )
    # By when everything up to an index has certainly taken effect: the soonest answer behind it.
    soonest = list(accumulate((end for _, end in reversed(behind)), min))[::-1]
    indices = [index for index, _ in behind]
    kept: list[Operation] = []
    ends: dict[int, int] = {}
    counts = {"dropped": 0, "closed": 0, "open": 0}
    for operation in operations:
        kept.append(operation)
        if not operation.is_write or operation.outcome is not Fate.UNKNOWN or operation.request_id is None:
            continue
        index = index_of.get(operation.request_id)
        at = len(behind) if index is None else bisect_right(indices, index)
        if index is None and complete:
            counts["dropped"] += 1
            kept.pop()
        elif at < len(behind):
            counts["closed"] += 1
            ends[operation.id] = max(soonest[at], operation.invoked_ns)
        else:
            counts["open"] += 1
    return Resolution(kept, ends, counts)
