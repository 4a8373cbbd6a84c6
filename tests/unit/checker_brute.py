"""The slow and obvious way: tries orders one by one, with models of its own. For small histories."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from evaluation.history import Action, Fate, Operation, Phase

if TYPE_CHECKING:
    import random
    from collections.abc import Sequence

INITIAL: dict[str, Any] = {"register": None, "catalogue": False, "set": [], "append": []}


def effect(state: Any, operation: Operation) -> tuple[bool, Any]:
    """Could it be answered like this, and what is there afterwards?"""
    action, value = operation.action, operation.value
    unknown = operation.outcome is Fate.UNKNOWN
    if action in (Action.GET, Action.GET_WHERE) and operation.workload == "register":
        return state == value, state
    if action is Action.UPSERT:
        return True, value
    if action is Action.DELETE:
        return True, None
    if action is Action.UPDATE:
        return True, None if state is None else value
    if action is Action.ADD and operation.workload == "register":
        return True, state if state is not None else value
    if action is Action.EXISTS:
        return value == state, state
    if action is Action.CREATE:
        return unknown or value == (not state), True
    if action is Action.DROP:
        return unknown or value == state, False
    if action is Action.ADD:
        return True, sorted([*state, value])
    if action is Action.GET_ALL:
        return value == state, state
    if action is Action.COUNT:
        return value == len(state), state
    if action is Action.APPEND:
        return True, [*state, value]
    return (value or []) == state, state


def linearizable(operations: Sequence[Operation]) -> bool:
    """Whether some order of those that count fits; unknown writes may be in it or not."""
    counts = [
        op for op in operations if op.outcome is Fate.OK or (op.outcome is Fate.UNKNOWN and op.is_write)
    ]
    return not counts or _extends(counts, INITIAL[counts[0].workload])


def _extends(left: list[Operation], state: Any) -> bool:
    certain = [op for op in left if op.outcome is Fate.OK]
    if not certain:
        return True
    for chosen in left:
        rest = [op for op in left if op is not chosen]
        if any(
            op.returned_ns < chosen.invoked_ns
            for op in certain
            if op is not chosen and op.returned_ns is not None
        ):
            continue
        fits, after = effect(state, chosen)
        if fits and _extends(rest, after):
            return True
    return False


_ACTIONS: dict[str, tuple[list[Action], list[int]]] = {
    "register": (
        [Action.UPSERT, Action.ADD, Action.UPDATE, Action.DELETE, Action.GET, Action.GET_WHERE],
        [5, 2, 2, 2, 8, 1],
    ),
    "plain": ([Action.UPSERT, Action.DELETE, Action.GET], [5, 1, 8]),
    "catalogue": ([Action.CREATE, Action.DROP, Action.EXISTS], [3, 2, 3]),
    "set": ([Action.ADD, Action.GET_ALL, Action.COUNT], [4, 5, 1]),
    "append": ([Action.APPEND, Action.GET], [4, 5]),
}


def made_up(kind: str, rng: random.Random, *, size: int, span: int, good: bool) -> list[Operation]:
    """A small history of one key. Good: answers are those of one copy; else they are chosen at random."""
    workload = "register" if kind == "plain" else kind
    actions, weights = _ACTIONS[kind]
    drafts: list[tuple[float, bool, Operation]] = []
    for number in range(size):
        action = rng.choices(actions, weights)[0]
        begin = rng.randint(0, span)
        end = begin + rng.randint(0, 6)
        chance = rng.random()
        outcome = Fate.UNKNOWN if chance < 0.15 else Fate.REFUSED if chance < 0.2 else Fate.OK
        happens = outcome is Fate.OK or (outcome is Fate.UNKNOWN and rng.random() < 0.6)
        acts = rng.uniform(begin, end if outcome is Fate.OK else end + 10)
        has_value = action.is_write and action is not Action.DELETE
        one = Operation(
            id=number,
            workload=workload,
            process=number,
            session=f"s{rng.randint(0, 2)}",
            entry="lb",
            action=action,
            key="x",
            value=f"v{number}" if has_value else None,
            level="default",
            phase=Phase.WARMUP,
            invoked_ns=begin,
            returned_ns=None if outcome is Fate.UNKNOWN and rng.random() < 0.5 else end,
            outcome=outcome,
        )
        drafts.append((acts, happens, one))
    drafts.sort(key=lambda draft: draft[0])
    values = [one.value for _, _, one in drafts if one.is_write and one.value is not None]
    state = INITIAL[workload]
    operations: list[Operation] = []
    for _, happens, one in drafts:
        if not one.is_write or workload == "catalogue":
            answer = _answer(state, one) if good else _random_answer(values, one, rng)
            one = replace(one, value=answer)
        if happens and one.is_write:
            state = effect(state, one)[1]
        operations.append(one)
    return sorted(operations, key=lambda one: (one.invoked_ns, one.id))


def _answer(state: Any, operation: Operation) -> Any:
    match operation.action:
        case Action.COUNT:
            return len(state)
        case Action.CREATE:
            return not state
        case _:
            return state


def _random_answer(values: list[Any], operation: Operation, rng: random.Random) -> Any:
    match operation.action:
        case Action.COUNT:
            return rng.randint(0, len(values))
        case Action.CREATE | Action.DROP | Action.EXISTS:
            return rng.random() < 0.5
        case Action.GET_ALL:
            return sorted(rng.sample(values, rng.randint(0, len(values))))
        case Action.GET if operation.workload == "append":
            return rng.sample(values, rng.randint(0, len(values)))
        case _:
            return rng.choice([None, *values])


def mutated(operations: Sequence[Operation], rng: random.Random) -> list[Operation]:
    """One thing made wrong, perhaps: answers swapped, a write dropped, a stale or resurrected answer."""
    changed = list(operations)
    answers = [at for at, op in enumerate(changed) if not op.is_write]
    match rng.choice(("swap", "drop", "stale", "resurrect")):
        case "swap" if len(answers) > 1:
            one, other = rng.sample(answers, 2)
            if changed[one].action is changed[other].action:
                first, second = changed[one].value, changed[other].value
                changed[one] = replace(changed[one], value=second)
                changed[other] = replace(changed[other], value=first)
        case "drop":
            writes = [at for at, op in enumerate(changed) if op.is_write]
            if writes:
                del changed[rng.choice(writes)]
        case "stale" if answers:
            at = rng.choice(answers)
            same = [op.value for op in changed[:at] if op.action is changed[at].action]
            changed[at] = replace(changed[at], value=rng.choice(same or [changed[at].value]))
        case _ if answers:
            at = answers[-1]
            values = [op.value for op in changed if op.is_write and op.value is not None]
            if changed[at].workload == "register" and values:
                changed[at] = replace(changed[at], value=rng.choice(values))
    return changed
