"""Vector clocks per document: a version that has seen another replaces it, concurrent ones are kept. Pure.

Nothing is decided: clients read one sibling, the others lie beside it and are counted. Chroma's API carries
no causal context, so a write is taken to have seen what its member holds, and ends the siblings there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from evaluation.systems.naive.records import Stamp, canonical
from evaluation.systems.naive.strategy import Queue, Spread, fold

if TYPE_CHECKING:
    from collections.abc import Iterable

    from evaluation.systems.naive.records import Change, Fields

Clock: TypeAlias = Mapping[str, int]


def dominates(a: Clock, b: Clock) -> bool:
    """Whether `a` has seen all of `b`; equal clocks dominate each other."""
    return all(a.get(node, 0) >= count for node, count in b.items())


def join(clocks: Iterable[Clock]) -> dict[str, int]:
    joined: dict[str, int] = {}
    for clock in clocks:
        for node, count in clock.items():
            joined[node] = max(joined.get(node, 0), count)
    return joined


@dataclass(frozen=True, slots=True)
class Sibling:
    """One version. `fields` None: a delete, which is a version like any other."""

    clock: Clock
    at: Stamp
    fields: Fields | None

    def rank(self) -> tuple[bool, Stamp, bytes]:
        """A document before a delete, a later one before an earlier: only what is shown depends on it."""
        return self.fields is not None, self.at, canonical(self.fields)


Siblings: TypeAlias = tuple[Sibling, ...]
"""None has seen another; the one that is shown first."""


def maximal(versions: Iterable[Sibling]) -> Siblings:
    """Without what another one has seen; of versions with the same clock one remains."""
    by_clock: dict[bytes, Sibling] = {}
    for version in versions:
        key = canonical(dict(version.clock))
        by_clock[key] = max(version, by_clock.get(key, version), key=Sibling.rank)
    kept = [
        version
        for version in by_clock.values()
        if not any(
            other is not version and dominates(other.clock, version.clock) for other in by_clock.values()
        )
    ]
    return tuple(sorted(kept, key=Sibling.rank, reverse=True))


class VectorClocks:
    """Merging keeps the maximal versions of both: commutative, associative, idempotent."""

    name = "vector-clock"
    hybrid = False

    def write(self, state: Siblings | None, change: Change, at: Stamp) -> Siblings:
        before = None if state is None else self.shown(state)
        return (Sibling(_next(state, at.node), at, change.on(before)),)

    def delete(self, state: Siblings | None, at: Stamp) -> Siblings | None:
        return (Sibling(_next(state, at.node), at, None),)

    def merge(self, a: Siblings, b: Siblings) -> Siblings:
        return maximal((*a, *b))

    def decide(self, states: Mapping[str, Siblings]) -> Spread | Queue:
        return Spread(fold(self, states))

    def shown(self, state: Siblings) -> Fields | None:
        return state[0].fields

    def conflicts(self, state: Siblings) -> int:
        return len(state) - 1

    def newest(self, state: Siblings) -> Stamp:
        return max(version.at for version in state)

    def to_json(self, state: Siblings) -> Any:
        alone = len(state) == 1
        return [
            {"clock": dict(version.clock), "at": version.at.to_json()}
            | ({} if alone else {"fields": version.fields})
            for version in state
        ]

    def from_json(self, raw: Any, shown: Fields | None) -> Siblings:
        return tuple(
            Sibling(one["clock"], Stamp.from_json(one["at"]), one.get("fields", shown)) for one in raw
        )


def _next(state: Siblings | None, node: str) -> dict[str, int]:
    clock = join(version.clock for version in state or ())
    clock[node] = clock.get(node, 0) + 1
    return clock
