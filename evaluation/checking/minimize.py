"""The smallest part of a history that still contradicts itself, for people to look at.

Only steps that cannot make a good history bad:

- later events are cut off, and what had not returned by then is open;
- a read goes; a write goes with all reads that may have seen it, unless an add or update may depend on it;
- adds and updates count as upserts if somebody read what they wrote, and else as nothing;
- earlier events are cut off where the rest contradicts itself whatever the state was then.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from evaluation.checking.linearizability import check, search
from evaluation.checking.models import CATALOGUE, CONDITIONAL, NEVER, Call, Model
from evaluation.checking.verdict import Verdict
from evaluation.history import Action

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_READS = frozenset({Action.GET, Action.GET_WHERE, Action.EXISTS})
#: So few operations can be understood as they are.
_SMALL = 4
#: A state that no operation names.
_OTHER = object()


def minimize(
    calls: Sequence[Call], model: Model, max_work: int = 400_000, max_steps: int = 30_000
) -> list[Call]:
    """A part of `calls` (which must be in violation) from which nothing more can be taken away this way.

    `max_work`: operations looked at, in each of two rounds. Of a catalogue it may be a violation whatever was
    there before, rather than from nothing.
    """
    left = max_work

    def bad(part: Sequence[Call]) -> bool:
        nonlocal left
        left -= len(part)
        return left >= 0 and check(part, model, max_steps, max_steps).verdict is Verdict.VIOLATION

    def bad_from_any_state(part: Sequence[Call]) -> bool:
        nonlocal left
        states: list[Any] = [False, True]
        if model is not CATALOGUE:
            written = {call.value for call in part if call.action not in _READS}
            seen = {call.value for call in part if call.action in _READS} - written - {None}
            states = [None, _OTHER, *seen]
        left -= len(states) * len(part)
        return left >= 0 and all(
            search(part, replace(model, initial=state), max_steps, max_steps).verdict is Verdict.VIOLATION
            for state in states
        )

    kept = sorted(calls, key=lambda call: call.invoked)
    plain = _without_conditions(kept)
    if len(plain) < len(kept) and bad(plain):
        kept = plain
    kept = _shortest_prefix(kept, bad)
    small = _smallest(kept, bad)
    if len(small) > _SMALL:
        left = max_work
        part = _latest_start(small, bad_from_any_state)
        if part is not None:
            part = _smallest(part, bad_from_any_state)
            read = {call.value for call in part if call.action in _READS and model is not CATALOGUE}
            ids = {call.id for call in part}
            # With the writes of all that is read it speaks for itself.
            part += [call for call in small if call.id not in ids and _wrote(call, read)]
            small = _smallest(sorted(part, key=lambda call: call.invoked), bad)
    ids = {call.id for call in small}
    return [call for call in calls if call.id in ids]


def _smallest(calls: list[Call], bad: Callable[[Sequence[Call]], bool]) -> list[Call]:
    """Takes away larger parts first."""
    kept, size = calls, max(1, len(calls) // 2)
    while True:
        smaller = _take_away(kept, size, bad)
        if len(smaller) == len(kept) and size == 1:
            return kept
        kept, size = smaller, max(1, size // 2)


def _without_conditions(calls: list[Call]) -> list[Call]:
    """What was read was written, whatever it depended on; what was not read need not have been."""
    if not any(call.action in CONDITIONAL for call in calls):
        return calls
    seen = {call.value for call in calls if call.action in _READS}
    return [
        replace(call, action=Action.UPSERT) if call.action in CONDITIONAL else call
        for call in calls
        if call.action not in CONDITIONAL or call.value in seen
    ]


def _shortest_prefix(calls: list[Call], bad: Callable[[Sequence[Call]], bool]) -> list[Call]:
    """Up to the first moment by which it is a violation."""
    ends = sorted({call.returned for call in calls if not call.open})

    def until(time: float) -> list[Call]:
        part = [call for call in calls if call.invoked <= time]
        return [
            call if call.returned <= time else replace(call, returned=NEVER, answered=False)
            for call in part
            if call.returned <= time or call.action not in _READS
        ]

    low, high = 0, len(ends) - 1
    while low < high:
        middle = (low + high) // 2
        if bad(until(ends[middle])):
            high = middle
        else:
            low = middle + 1
    cut = until(ends[high]) if ends else calls
    return cut if bad(cut) else calls


def _latest_start(calls: list[Call], bad: Callable[[Sequence[Call]], bool]) -> list[Call] | None:
    """From the last moment from which it is a violation; what had begun before may have happened before."""
    # One by one: a later start may need an earlier one's straddling call less open than it is here.
    for start in sorted({call.invoked for call in calls}, reverse=True):
        part = [
            call if call.invoked >= start else replace(call, returned=NEVER, answered=False)
            for call in calls
            if call.invoked >= start or (call.returned >= start and call.action not in _READS)
        ]
        if bad(part):
            return part
    return None


def _take_away(calls: list[Call], size: int, bad: Callable[[Sequence[Call]], bool]) -> list[Call]:
    kept = list(calls)
    at = len(calls)
    while at > 0:
        chunk = calls[max(0, at - size) : at]
        at -= size
        gone: set[int] = set()
        for call in chunk:
            gone |= unit(call, kept)
        part = [call for call in kept if call.id not in gone]
        if len(part) < len(kept) and bad(part):
            kept = part
    return kept


def unit(call: Call, calls: Sequence[Call]) -> set[int]:
    """Ids of what must go together with this call; empty, if it must stay."""
    if call.action in _READS:
        return {call.id}
    if call.action in (Action.CREATE, Action.DROP):
        # One that found it there, or nothing, is only a read.
        return {call.id} if call.answered and not call.value else set()
    if call.action is not Action.UPDATE and any(
        other.action in CONDITIONAL and other.id != call.id for other in calls
    ):
        return set()
    if call.action is Action.DELETE:
        saw = {other.id for other in calls if _saw(other, None) and other.returned >= call.invoked}
    else:
        if sum(other.action not in _READS and other.value == call.value for other in calls) > 1:
            return set()
        saw = {other.id for other in calls if _saw(other, call.value)}
    return saw | {call.id}


def _wrote(call: Call, values: set[Any]) -> bool:
    return call.action not in _READS and call.action is not Action.DELETE and call.value in values


def _saw(call: Call, value: object) -> bool:
    return call.action in _READS and call.value == value
