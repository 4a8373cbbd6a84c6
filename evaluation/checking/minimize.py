"""The smallest part of a history that still contradicts itself, for people to look at.

Only steps that cannot make a good history bad: later events are cut off; a read goes; a write goes with all
reads that may have seen it, as long as no add or update depends on what was there. For a catalogue, earlier
events are cut off where the rest contradicts itself whatever the state was.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from evaluation.checking.linearizability import check
from evaluation.checking.models import CATALOGUE, CONDITIONAL, NEVER, Call, Model
from evaluation.history import Action
from evaluation.verdict import Verdict

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_READS = frozenset({Action.GET, Action.GET_WHERE, Action.EXISTS})


def minimize(
    calls: Sequence[Call], model: Model, max_checks: int = 1_000, max_steps: int = 30_000
) -> list[Call]:
    """A part of `calls` (which must be in violation) from which nothing more can be taken away this way."""
    left = max_checks

    def bad(part: Sequence[Call]) -> bool:
        nonlocal left
        left -= 1
        return left >= 0 and check(part, model, max_steps, max_steps).verdict is Verdict.VIOLATION

    kept = _shortest_prefix(sorted(calls, key=lambda call: call.invoked), bad)
    if model is CATALOGUE:
        models = [replace(CATALOGUE, initial=there) for there in (False, True)]

        def bad_anyhow(part: Sequence[Call]) -> bool:
            return all(check(part, one, max_steps, max_steps).verdict is Verdict.VIOLATION for one in models)

        kept, anyhow = _latest_start(kept, bad_anyhow)
        if anyhow:
            bad = bad_anyhow
    size = max(1, len(kept) // 2)
    while True:
        smaller = _take_away(kept, size, bad)
        if len(smaller) == len(kept) and size == 1:
            return kept
        kept, size = smaller, max(1, size // 2)


def _shortest_prefix(calls: list[Call], bad: Callable[[Sequence[Call]], bool]) -> list[Call]:
    """Up to the first moment by which it is a violation; what had not returned by then is open."""
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


def _latest_start(calls: list[Call], bad: Callable[[Sequence[Call]], bool]) -> tuple[list[Call], bool]:
    for start in sorted({call.invoked for call in calls}, reverse=True):
        if any(call.invoked < start <= call.returned < NEVER for call in calls):
            continue
        part = [call for call in calls if call.invoked >= start or call.open]
        if bad(part):
            return part, True
    return calls, False


def _take_away(calls: list[Call], size: int, bad: Callable[[Sequence[Call]], bool]) -> list[Call]:
    kept = list(calls)
    at = len(calls)
    while at > 0:
        chunk = calls[max(0, at - size) : at]
        at -= size
        gone: set[int] = set()
        for call in chunk:
            gone |= _unit(call, kept)
        part = [call for call in kept if call.id not in gone]
        if len(part) < len(kept) and bad(part):
            kept = part
    return kept


def _unit(call: Call, calls: Sequence[Call]) -> set[int]:
    """What must go with this call; nothing, if it must stay."""
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


def _saw(call: Call, value: object) -> bool:
    return call.action in _READS and call.value == value
