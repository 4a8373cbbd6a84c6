"""What a seed decides of one run: where the fault strikes, and how many changes come when. Pure."""

from __future__ import annotations

import random
from dataclasses import dataclass

from evaluation.compactor.model import Point

#: fault -> the points at which it may strike, each a place between "has the snapshot" and "is done".
FAULTS: dict[str, tuple[Point, ...]] = {
    "none": (),
    "pause-holder": (Point.DOWNLOADED, Point.APPLIED, Point.PACKED, Point.UPLOADED, Point.CHECKED),
    "kill-holder": (Point.PACKED, Point.UPLOADED, Point.CHECKED, Point.MOVED),
}


@dataclass(frozen=True, slots=True)
class Script:
    """What a seed decides."""

    fault: str
    point: Point | None
    before: int
    """Changes compacted before the fault."""
    during: tuple[int, int]
    """Changes until the holder is struck, and after that, until the other has compacted them."""
    after: int


def script(fault: str, seed: int, point: Point | None = None) -> Script:
    """The same for the same arguments. `point` overrules the seed's choice."""
    rng = random.Random(f"{fault}/{seed}")
    chosen = rng.choice(FAULTS[fault]) if FAULTS[fault] else None
    counts = [rng.randint(3, 12) for _ in range(4)]
    return Script(fault, point or chosen, counts[0], (counts[1], counts[2]), counts[3])
