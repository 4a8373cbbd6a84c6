"""What an interrupted move has done so far, from the lines it wrote; pure.

A line is written after what it tells is safe in the target, so what happened after the last one is done
again, which is harmless: `add` leaves ids that exist alone, and a collection is built under a name of its
own.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal

from cluster.moving.comparison import KEPT, Difference
from cluster.moving.plan import Place
from cluster.moving.records import NOTHING, Record, differing

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

FORMAT: Final = 1


@dataclass(slots=True)
class Built:
    """A collection under its temporary name (or its own: `placed`)."""

    uid: str
    outcome: Literal["moved", "replaced"]
    records: int = 0
    digest: bytes = NOTHING
    rounded: int = 0
    roundings: list[Difference] = field(default_factory=list[Difference])
    """The first of them, as far as this process has seen them."""
    verified: bool = False
    placed: bool = False

    def note_rounded(self, records: Sequence[Record], shown: Sequence[Record]) -> None:
        """Which records Chroma can keep only with other last bits."""
        for one, other in zip(records, shown, strict=True):
            if one is not other:
                self.rounded += 1
                if len(self.roundings) < KEPT:
                    what = f"last bits of {', '.join(differing(one, other))}"
                    self.roundings.append(Difference(one.key, what))


@dataclass(slots=True)
class Journal:
    """The state that the lines tell."""

    header: Mapping[str, Any] | None = None
    built: dict[Place, Built] = field(default_factory=dict[Place, Built])
    finished: Mapping[str, Any] | None = None
    """The report, if only tidying up is left."""
    copied: dict[str, tuple[int, int, int, int]] | None = None
    """The files of a source directory as they were when they were copied."""
    marks: set[str] = field(default_factory=set[str])

    @property
    def ours(self) -> dict[Place, str]:
        """Ids of the collections that this move made."""
        return {place: built.uid for place, built in self.built.items()}

    def apply(self, line: Mapping[str, Any]) -> None:
        """One line more."""
        if "move" in line:
            self.header = line["move"]
        if "finished" in line:
            self.finished = line["finished"]
        if "copied" in line:
            self.copied = {name: tuple(facts) for name, facts in line["copied"].items()}
        if "mark" in line:
            self.marks.add(line["mark"])
        if "place" not in line:
            return
        place = Place(*line["place"])
        if "building" in line:
            self.built[place] = Built(line["building"], line["outcome"])
        elif "dropped" in line:
            self.built.pop(place, None)
        elif place in self.built:
            built = self.built[place]
            if "records" in line:
                built.records, built.digest = line["records"], bytes.fromhex(line["digest"])
            built.rounded = line.get("rounded", built.rounded)
            built.verified = built.verified or "verified" in line
            built.placed = built.placed or "placed" in line


def read(lines: Iterable[bytes]) -> Journal:
    """The journal of complete lines; what follows one that is torn never happened."""
    journal = Journal()
    for line in lines:
        if not line.endswith(b"\n"):
            break
        try:
            told = json.loads(line)
        except ValueError:
            break
        journal.apply(told)
    return journal
