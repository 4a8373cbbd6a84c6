"""The strategies by name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from evaluation.systems.naive.crdt import ObservedRemove
from evaluation.systems.naive.lww import LastWriteWins
from evaluation.systems.naive.manual import ManualQueue
from evaluation.systems.naive.vector_clock import VectorClocks

if TYPE_CHECKING:
    from evaluation.systems.naive.strategy import Strategy

STRATEGIES = ("lww", "vector-clock", "crdt", "manual")


def strategy(name: str, *, tombstones: bool = False) -> Strategy[Any]:
    """`tombstones`: of last write wins; the others cannot do without.

    Raises:
        ValueError: no such strategy.
    """
    match name:
        case "lww":
            return LastWriteWins(tombstones=tombstones)
        case "vector-clock":
            return VectorClocks()
        case "crdt":
            return ObservedRemove()
        case "manual":
            return ManualQueue()
        case _:
            raise ValueError(f"no strategy {name!r}; there are {', '.join(STRATEGIES)}")
