"""How a home-made system decides between versions of one document. Pure; one module for each strategy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Mapping

    from evaluation.systems.naive.records import Change, Fields, Stamp

S = TypeVar("S")


@dataclass(frozen=True, slots=True)
class Spread:
    """All members shall hold this."""

    state: Any


@dataclass(frozen=True, slots=True)
class Queue:
    """Nobody is changed; an operator decides between the members' versions."""

    states: Mapping[str, Any]


class Strategy(Protocol[S]):
    """`S` is the state of one document at one member; an absent document has none.

    A state is JSON (`to_json`) that leaves out what the shown document says anyway, so that a document
    without conflict is stored once.
    """

    @property
    def name(self) -> str: ...

    @property
    def hybrid(self) -> bool:
        """Stamps are hybrid logical times: never behind one seen. Else the member's plain wall clock."""
        ...

    def write(self, state: S | None, change: Change, at: Stamp) -> S:
        """A client's add, upsert or update, accepted by the member `at.node`."""
        ...

    def delete(self, state: S | None, at: Stamp) -> S | None:
        """A client's delete. None: nothing remains to tell others of it."""
        ...

    def merge(self, a: S, b: S) -> S:
        """What a member that holds `a` holds after the agent has brought it `b`."""
        ...

    def decide(self, states: Mapping[str, S]) -> Spread | Queue:
        """What the agent does with the versions of one document, by member."""
        ...

    def shown(self, state: S) -> Fields | None:
        """What clients read; None: no such document."""
        ...

    def conflicts(self, state: S) -> int:
        """Versions beside the shown one that nobody has decided on."""
        ...

    def newest(self, state: S) -> Stamp:
        """The latest stamp in it."""
        ...

    def to_json(self, state: S) -> Any: ...

    def from_json(self, raw: Any, shown: Fields | None) -> S:
        """`shown`: the document as it is stored beside `raw`."""
        ...


def fold(strategy: Strategy[S], states: Mapping[str, S]) -> S:
    """All states merged, in the members' order."""
    merged: S | None = None
    for member in sorted(states):
        merged = states[member] if merged is None else strategy.merge(merged, states[member])
    if merged is None:
        raise ValueError("there is no state to merge")
    return merged
