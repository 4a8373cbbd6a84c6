"""Last write wins, by the wall clock of the member that took the write. Pure.

Converges, and loses: of two acknowledged writes between two rounds of the agent one is discarded, and a
member whose clock is ahead wins over everything that others take later. Without tombstones (as most such
systems are built) a deleted document comes back with the next round from a member that still has it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from evaluation.systems.naive.records import Stamp, canonical
from evaluation.systems.naive.strategy import Queue, Spread, fold

if TYPE_CHECKING:
    from collections.abc import Mapping

    from evaluation.systems.naive.records import Change, Fields


@dataclass(frozen=True, slots=True)
class Latest:
    """One version. `fields` None: deleted."""

    at: Stamp
    fields: Fields | None


class LastWriteWins:
    """Merging is the maximum of a total order: commutative, associative, idempotent."""

    name = "lww"
    hybrid = False

    def __init__(self, *, tombstones: bool = False) -> None:
        self._tombstones = tombstones

    def write(self, state: Latest | None, change: Change, at: Stamp) -> Latest:
        return Latest(at, change.on(None if state is None else state.fields))

    def delete(self, state: Latest | None, at: Stamp) -> Latest | None:
        del state
        return Latest(at, None) if self._tombstones else None

    def merge(self, a: Latest, b: Latest) -> Latest:
        return max(a, b, key=lambda version: (version.at, canonical(version.fields)))

    def decide(self, states: Mapping[str, Latest]) -> Spread | Queue:
        return Spread(fold(self, states))

    def shown(self, state: Latest) -> Fields | None:
        return state.fields

    def conflicts(self, state: Latest) -> int:
        del state
        return 0

    def newest(self, state: Latest) -> Stamp:
        return state.at

    def to_json(self, state: Latest) -> Any:
        return {"at": state.at.to_json()}

    def from_json(self, raw: Any, shown: Fields | None) -> Latest:
        return Latest(Stamp.from_json(raw["at"]), shown)
