"""The highest log index seen in any answer, per collection: what a session read must not go behind.

Invariants:
  - what `wanted` returns for a scope is at least every index that was observed for that scope
    before, and at least every index of a catalogue change observed before (a read of a collection
    must see its creation too);
  - `wanted` never decreases for a scope;
  - at most `capacity` collections are remembered one by one; a forgotten one falls back to the
    floor, which is then at least its index. This may make a read wait longer than needed, never
    less.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Final

from lb.routes import Route, Scope

if TYPE_CHECKING:
    from collections.abc import Sequence

#: Digits of the highest index there is. Python reads no number of thousands of digits.
_LONGEST_INDEX: Final = 19


class Guarantees:
    """Indices seen by the clients of one balancer. Not thread-safe: it belongs to one event loop."""

    def __init__(self, capacity: int = 4096) -> None:
        self._capacity = capacity
        self._floor = 0
        self._catalogue = 0
        self._highest = 0
        self._collections: OrderedDict[int, int] = OrderedDict()

    @property
    def floor(self) -> int:
        """What a collection that is not remembered needs."""
        return self._floor

    @property
    def highest(self) -> int:
        """The highest index seen at all."""
        return self._highest

    def __len__(self) -> int:
        return len(self._collections)

    def wanted(self, route: Route) -> int:
        """The index that a session read of `route` must wait for; 0 if it needs none."""
        scope = route.scope
        if scope is Scope.COLLECTION and route.collection is not None:
            seen = self._collections.get(route.collection, self._floor)
            return seen if seen > self._catalogue else self._catalogue
        if scope is Scope.NONE:
            return 0
        return self._highest if scope is Scope.ROWS else self._catalogue

    def observe(self, route: Route, index: int) -> None:
        """An answer for `route` carried `index` as its X-Chroma-Log-Index."""
        if route.scope is Scope.NONE:
            return
        if index > self._highest:
            self._highest = index
        if route.scope is not Scope.COLLECTION or route.collection is None:
            # A lookup by name shows that the collection exists as of its index, so that index is
            # the catalogue's too.
            if index > self._catalogue:
                self._catalogue = index
            return
        key = route.collection
        if index > self._collections.get(key, self._floor):
            self._collections[key] = index
        elif key not in self._collections:
            return
        self._collections.move_to_end(key)
        if len(self._collections) > self._capacity:
            _, evicted = self._collections.popitem(last=False)
            self._floor = max(self._floor, evicted)

    def raise_floor(self, index: int) -> None:
        """Everything up to `index` may have been seen before this balancer started."""
        self._floor = max(self._floor, index)
        self._catalogue = max(self._catalogue, index)
        self._highest = max(self._highest, index)
        for key in [key for key, seen in self._collections.items() if seen <= self._floor]:
            del self._collections[key]

    def forget(self) -> None:
        """The cluster behind this balancer is another one: its indices mean nothing to the new one."""
        self._floor = self._catalogue = self._highest = 0
        self._collections.clear()


def read_index(values: Sequence[str]) -> int | None:
    """The log index in a client's headers, the highest of several, 0 without any; None if one is none."""
    indices: list[int] = []
    for value in values:
        text = value.strip()
        if not (text.isascii() and text.isdigit()) or len(text) > _LONGEST_INDEX:
            return None
        indices.append(int(text))
    return max(indices, default=0)
