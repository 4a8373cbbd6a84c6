"""Sequential models: what one key would do if its operations ran one after another.

A model is a function `step(state, call)`: the state after the call, or `REJECTED` if the call could not have
been answered as it was. States are immutable and hashable. A call of unknown outcome is never rejected.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from evaluation.history import Action, Fate, Operation

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

#: The return time of a call that was never answered: it may take effect at any later time, or never.
NEVER: Final = math.inf


class _Rejected:
    """No state: the call does not fit here."""


REJECTED: Final = _Rejected()


@dataclass(frozen=True, slots=True)
class Call:
    """One operation as a model sees it."""

    id: int
    action: Action
    value: Any
    invoked: float
    returned: float
    """`NEVER` when it is open."""
    answered: bool = True
    """False: only its effect is asked for, whatever the answer would have been."""

    @property
    def open(self) -> bool:
        return self.returned == NEVER


#: Actions whose effect depends on whether the document is there.
CONDITIONAL: Final = frozenset({Action.ADD, Action.UPDATE})


def register_step(state: Any, call: Call) -> Any:
    """One document, as Chroma has it: None is absent."""
    match call.action:
        case Action.GET | Action.GET_WHERE:
            return state if state == call.value else REJECTED
        case Action.UPSERT:
            return call.value
        case Action.DELETE:
            return None
        case Action.ADD:
            return call.value if state is None else state
        case Action.UPDATE:
            return state if state is None else call.value
        case _:
            raise ValueError(f"not an operation on a document: {call.action}")


def catalogue_step(state: Any, call: Call) -> Any:
    """One collection's name: there or not. The answers of create and drop say what was there before."""
    match call.action:
        case Action.EXISTS:
            return state if state == call.value else REJECTED
        case Action.CREATE:
            return REJECTED if call.answered and call.value == state else True
        case Action.DROP:
            return REJECTED if call.answered and call.value != state else False
        case _:
            raise ValueError(f"not an operation on a catalogue: {call.action}")


def set_step(state: Any, call: Call) -> Any:
    """A collection that only grows: a frozenset of ids."""
    match call.action:
        case Action.ADD:
            return state | {call.value}
        case Action.GET_ALL:
            return state if tuple(sorted(state)) == call.value else REJECTED
        case Action.COUNT:
            return state if len(state) == call.value else REJECTED
        case _:
            raise ValueError(f"not an operation on a set: {call.action}")


def list_step(state: Any, call: Call) -> Any:
    """A list with an atomic append: a tuple; an absent one reads as None."""
    match call.action:
        case Action.APPEND:
            return (*state, call.value)
        case Action.GET:
            return state if tuple(call.value or ()) == state else REJECTED
        case _:
            raise ValueError(f"not an operation on a list: {call.action}")


@dataclass(frozen=True, slots=True)
class Model:
    """A step function and where it starts."""

    name: str
    step: Callable[[Any, Call], Any]
    initial: Any


REGISTER: Final = Model("register", register_step, None)
CATALOGUE: Final = Model("catalogue", catalogue_step, False)
GROWING_SET: Final = Model("set", set_step, frozenset[str]())
APPEND_LIST: Final = Model("list", list_step, ())

#: Workloads whose keys are registers of unique values. A batch is one, as long as its reads are whole.
REGISTERS: Final = frozenset({"register", "counter", "batch"})
MODELS: Final[Mapping[str, Model]] = {name: REGISTER for name in REGISTERS} | {"catalogue": CATALOGUE}

#: Read levels whose answers must fit real time. `default` is all that systems without levels have.
STRONG: Final = frozenset({"linearizable", "default"})


def calls_of(
    operations: Iterable[Operation],
    levels: frozenset[str] | None = STRONG,
    ends: Mapping[int, int] | None = None,
) -> list[Call]:
    """What binds the order of one key: refused operations had no effect, and unknown reads say nothing.

    Reads count at `levels` only (None: at all). Reads of half a batch are no state at all; they are found
    as fractured. `ends`: by when writes of unknown outcome took effect, where a log says so.
    """
    calls: list[Call] = []
    for operation in operations:
        if operation.outcome is Fate.REFUSED:
            continue
        known = operation.outcome is Fate.OK
        value = operation.value
        if not operation.is_write:
            if not known or (levels is not None and operation.level not in levels):
                continue
            if operation.workload == "batch":
                value = whole(value)
                if value is FRACTURED:
                    continue
            elif isinstance(value, list):
                value = tuple(value)  # type: ignore[reportUnknownArgumentType]
        returned = operation.returned_ns if known and operation.returned_ns is not None else NEVER
        if ends and operation.id in ends:
            returned = ends[operation.id]
        calls.append(Call(operation.id, operation.action, value, operation.invoked_ns, returned, known))
    return calls


FRACTURED: Final = object()


def whole(values: Any) -> Any:
    """The one value of all of a batch's documents, None if all are missing, or `FRACTURED`."""
    if not values:
        return None
    first = values[0]
    return first if all(value == first for value in values) else FRACTURED
