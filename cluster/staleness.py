"""How much of the log a node knows to be complete, as of when, and how old that makes what it reads. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

#: The most by which the clocks of two nodes may differ in rate (2 ms a second). Crystals are good to 0.01 %,
#: and a time service may slow or speed a clock by 0.05 %.
MAX_DRIFT: Final = 0.002


@dataclass(frozen=True, slots=True)
class Knowledge:
    """Whatever any node had committed, and hence anybody answered, at `as_of_s` has an index up to `index`.

    `as_of_s` is a time of this node's own `cluster.steady` clock, -inf for never. What is known stays true;
    it only grows old.
    """

    index: int
    as_of_s: float


NOTHING_KNOWN: Final = Knowledge(0, float("-inf"))


def newer(one: Knowledge, other: Knowledge) -> Knowledge:
    """The one that is true as of later."""
    return other if other.as_of_s > one.as_of_s else one


def age_ms(known: Knowledge, now_s: float, drift: float = MAX_DRIFT) -> float:
    """How old a state with everything up to `known.index` may be at `now_s`, by any clock: an upper bound."""
    return max(0.0, now_s - known.as_of_s) * 1000 * (1 + drift)


def seen_as_of(known: Knowledge, latest: Knowledge, applied_index: int) -> Knowledge:
    """What a read shows that began after `known` was applied and when `applied_index` was.

    `latest` is what the node has learnt meanwhile: if all of that was applied when the read began, the read
    is as fresh as that.
    """
    return newer(known, latest) if latest.index <= applied_index else known
