"""Two sequences of records compared as they come; pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from cluster.moving.records import Record, differing

if TYPE_CHECKING:
    from collections.abc import Iterable

#: Differences beyond these are counted, not kept.
KEPT: Final = 1000


@dataclass(frozen=True, slots=True)
class Difference:
    """A record that is not the same on both sides, and in what."""

    key: str
    what: str


class Comparison:
    """Feed it both sides, in any turns; what is on one side only is known at the end.

    It holds what came from one side and not yet from the other: little, if both come in the same order and
    at the same pace.
    """

    def __init__(self) -> None:
        self.sources = 0
        self.targets = 0
        self.differing = 0
        self._kept: list[Difference] = []
        self._waiting: tuple[dict[str, tuple[int, Record]], dict[str, tuple[int, Record]]] = ({}, {})
        self._moved: list[Difference] = []

    def source(self, records: Iterable[Record]) -> None:
        """The next records of the source."""
        for record in records:
            self._take(0, self.sources, record)
            self.sources += 1

    def target(self, records: Iterable[Record]) -> None:
        """The next records of the target."""
        for record in records:
            self._take(1, self.targets, record)
            self.targets += 1

    def finish(self) -> list[Difference]:
        """All that differs, at most `KEPT` of it; `differing` counts all.

        Places are compared only if both have the same records: one that is missing moves all behind it.
        """
        for side, words in ((0, "missing in the target"), (1, "not in the source")):
            for record_id in self._waiting[side]:
                self._note(Difference(record_id, words))
        if self._moved and not any(self._waiting):
            for difference in self._moved:
                self._note(difference)
        return list(self._kept)

    def _take(self, side: int, place: int, record: Record) -> None:
        mine, others = self._waiting[side], self._waiting[1 - side]
        if record.key in mine:
            self._note(Difference(record.key, f"twice in the {('source', 'target')[side]}"))
            return
        found = others.pop(record.key, None)
        if found is None:
            mine[record.key] = (place, record)
            return
        fields = differing(record, found[1])
        if fields:
            self._note(Difference(record.key, ", ".join(fields)))
        if found[0] != place and len(self._moved) < KEPT:
            self._moved.append(Difference(record.key, "its place in the order"))

    def _note(self, difference: Difference) -> None:
        self.differing += 1
        if len(self._kept) < KEPT:
            self._kept.append(difference)
