"""Is there an order of one key's operations that a sequential model accepts and that respects real time?

The search of Wing and Gong with Lowe's memory: calls and returns in a doubly linked list; a call that fits
is taken out and becomes the next of the order; a return whose call is still in the list means that some
earlier choice was wrong. Pairs (operations taken, state) that were seen before are not searched again.
Intervals are closed: of equal times, calls come before returns, so such operations are concurrent. Keys are
independent: the whole is linearizable if each key is (Herlihy and Wing's locality).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from evaluation.checking import zones
from evaluation.checking.event_list import EventList
from evaluation.checking.models import CONDITIONAL, NEVER, REGISTER, REJECTED, Call, Model
from evaluation.checking.verdict import Verdict
from evaluation.history import Action

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


@dataclass(frozen=True, slots=True)
class Budget:
    """How much may be searched before the answer is `unknown`."""

    rounds: tuple[int, ...] = (3_000, 30_000, 300_000)
    """Steps for each key; every key has its turn before any key gets the next, larger round."""
    total_steps: int = 3_000_000
    """Steps for all keys together."""
    states: int = 300_000
    """Remembered states of one key at a time: a bound of memory."""


@dataclass(frozen=True, slots=True)
class SearchResult:
    """The answer for one key."""

    verdict: Verdict
    steps: int = 0
    order: tuple[int, ...] = ()
    """Ids in an order that fits (ok), or the longest part of one that was found."""


def search(calls: Sequence[Call], model: Model, max_steps: int, max_states: int) -> SearchResult:
    """One search, with what is known about open calls left as it is."""
    step, state = model.step, model.initial
    events = EventList(calls)
    after, number_of, is_call = events.after, events.number_of, events.is_call
    taken = 0
    left = sum(not call.open for call in calls)
    path: list[tuple[int, Any]] = []
    longest: tuple[int, ...] = ()
    seen: set[tuple[int, Any]] = set()
    steps = 0
    node = after[0]
    while left:
        if is_call[node]:
            steps += 1
            if steps > max_steps or len(seen) > max_states:
                return SearchResult(Verdict.UNKNOWN, steps, longest)
            number = number_of[node]
            call = calls[number]
            new = step(state, call)
            # An open call that changes nothing now need not have happened now.
            if new is not REJECTED and not (call.open and new == state):
                memory = (taken | 1 << number, new)
                if memory not in seen:
                    seen.add(memory)
                    path.append((number, state))
                    taken, state = memory
                    left -= not call.open
                    events.take(number)
                    node = after[0]
                    continue
            node = after[node]
        else:
            if len(path) > len(longest):
                longest = tuple(calls[number].id for number, _ in path)
            if not path:
                return SearchResult(Verdict.VIOLATION, steps, longest)
            number, state = path.pop()
            taken ^= 1 << number
            left += not calls[number].open
            node = after[events.put_back(number)]
    return SearchResult(Verdict.OK, steps, tuple(calls[number].id for number, _ in path))


_READS = frozenset({Action.GET, Action.GET_WHERE})


def tighten(calls: Sequence[Call]) -> list[Call]:
    """The same question about a register with fewer open calls; needs values that are written once each.

    An open write that somebody read took effect before that read returned. One that nobody read need not
    have happened, unless what it did to the document's presence may have mattered to an add or update.
    """
    writes = [call for call in calls if call.action not in _READS and call.action is not Action.DELETE]
    if len({call.value for call in writes}) < len(writes):
        return list(calls)
    first_read: dict[Any, float] = {}
    for call in calls:
        if call.action in _READS:
            first_read[call.value] = min(first_read.get(call.value, NEVER), call.returned)
    has_conditions = any(call.action in CONDITIONAL for call in writes)
    kept: list[Call] = []
    for call in calls:
        if call.open and call.action in _READS:
            continue
        if call.open and call.action is not Action.DELETE:
            returned = first_read.get(call.value, NEVER)
            if returned == NEVER:
                if call.action is Action.UPDATE or not has_conditions:
                    continue
            elif returned >= call.invoked:
                # A read that ended before the write began is left to the search, which rejects it.
                call = replace(call, returned=returned)
        kept.append(call)
    return kept


def check(
    calls: Sequence[Call], model: Model, max_steps: int = 300_000, max_states: int = 300_000
) -> SearchResult:
    """One key, by the quickest way that is exact for it."""
    if model is REGISTER:
        fast = zones.check(calls)
        if fast is not None:
            return SearchResult(Verdict.VIOLATION if fast else Verdict.OK, len(calls), tuple(fast))
        calls = tighten(calls)
    return search(calls, model, max_steps, max_states)


@dataclass(frozen=True, slots=True)
class KeyResults:
    """The answers for all keys, as far as they were sought."""

    results: Mapping[str, SearchResult]

    @property
    def verdict(self) -> Verdict:
        found = {result.verdict for result in self.results.values()}
        for verdict in (Verdict.VIOLATION, Verdict.UNKNOWN, Verdict.OK):
            if verdict in found:
                return verdict
        return Verdict.NOT_CHECKED


def check_keys(histories: Mapping[str, tuple[Model, Sequence[Call]]], budget: Budget) -> KeyResults:
    """Every key in rounds of growing budgets; once a key is found in violation, no larger round begins."""
    results: dict[str, SearchResult] = {}
    spent = 0
    for allowed in budget.rounds:
        for key, (model, calls) in histories.items():
            if key in results and results[key].verdict is not Verdict.UNKNOWN:
                continue
            most = min(allowed, budget.total_steps - spent)
            if most <= 0:
                results.setdefault(key, SearchResult(Verdict.UNKNOWN))
                continue
            results[key] = check(calls, model, most, budget.states)
            spent += results[key].steps
        if KeyResults(results).verdict is Verdict.VIOLATION:
            break
    return KeyResults(results)
