"""Linearizability of a register whose values are unique, near-linear in time (Gibbons and Korach, 1997).

All operations on one value (its write and the reads of it) stand together in any legal order. Of such a
group only two times matter: when the first of them has ended, and when the last of them begins. Group A must
come before B if A's first end is before B's last begin; two groups that must each come before the other are
a contradiction, and without such a pair there is an order.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from evaluation.checking.models import CONDITIONAL, NEVER, Call
from evaluation.history import Action

if TYPE_CHECKING:
    from collections.abc import Sequence

_READS = frozenset({Action.GET, Action.GET_WHERE})


@dataclass(slots=True)
class _Zone:
    write: Call | None
    """None: the state before all writes."""
    reads: list[Call] = field(default_factory=list[Call])
    first_end: float = NEVER
    last_begin: float = -NEVER

    def close(self) -> None:
        calls = [*self.reads, self.write] if self.write else self.reads
        self.first_end = min(call.returned for call in calls) if self.write else -NEVER
        self.last_begin = max((call.invoked for call in calls), default=-NEVER)

    def witnesses(self) -> set[int]:
        """The write and the operations that set the two times."""
        calls = [*self.reads, self.write] if self.write else self.reads
        ids = {self.write.id} if self.write else set[int]()
        if calls:
            ids.add(min(calls, key=lambda call: call.returned).id)
            ids.add(max(calls, key=lambda call: call.invoked).id)
        return ids


def check(calls: Sequence[Call]) -> list[int] | None:
    """Ids of operations that contradict each other, [] if there is an order, None if this method cannot say:
    adds and updates depend on what is there, repeated values and reads of a deleted state are ambiguous."""
    of_value: dict[Any, _Zone] = {}
    deletes: list[_Zone] = []
    for call in calls:
        if call.action in CONDITIONAL:
            return None
        if call.action is Action.DELETE:
            # Whether an open delete happened shows only in reads of the absent state.
            if not call.open:
                deletes.append(_Zone(call))
        elif call.action is Action.UPSERT:
            if call.value is None or call.value in of_value:
                return None
            of_value[call.value] = _Zone(call)
    initial = _Zone(None)
    has_deletes = any(call.action is Action.DELETE for call in calls)
    for call in calls:
        if call.action not in _READS:
            continue
        if call.value is None:
            if has_deletes:
                return None
            initial.reads.append(call)
            continue
        zone = of_value.get(call.value)
        if zone is None or zone.write is None:
            return [call.id]
        if call.returned < zone.write.invoked:
            return [zone.write.id, call.id]
        zone.reads.append(call)
    # An open write that nobody read need not have happened.
    zones = [zone for zone in of_value.values() if zone.reads or (zone.write and not zone.write.open)]
    return _contradiction([*zones, *deletes, initial])


def _contradiction(zones: list[_Zone]) -> list[int]:
    for zone in zones:
        zone.close()
    forward = sorted(
        (zone for zone in zones if zone.first_end < zone.last_begin), key=lambda zone: zone.first_end
    )
    for one, other in pairwise(forward):
        if other.first_end < one.last_begin:
            return sorted(one.witnesses() | other.witnesses())
    # Forward zones are now disjoint, so at most one can hold a backward zone's begin.
    firsts = [zone.first_end for zone in forward]
    for zone in zones:
        if zone.first_end < zone.last_begin:
            continue
        at = bisect_right(firsts, zone.last_begin) - 1
        while at >= 0 and forward[at].first_end >= zone.last_begin:
            at -= 1
        if at >= 0 and zone.first_end < forward[at].last_begin:
            return sorted(zone.witnesses() | forward[at].witnesses())
    return []
