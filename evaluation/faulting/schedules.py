"""Random schedules of several faults, from a seed: which strikes when, for how long. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import random
    from collections.abc import Iterator, Sequence


@dataclass(frozen=True, slots=True)
class Step:
    """After `wait_s` of calm this fault strikes, and lasts `for_s`."""

    wait_s: float
    fault: str
    for_s: float


def steps(
    rng: random.Random, faults: Sequence[str], *, mean_wait_s: float, mean_for_s: float
) -> Iterator[Step]:
    """Without end. Times are exponential, cut off at a tenth and three times their mean: short and long ones,
    and none that a run of some seconds would not see the end of. No fault follows itself."""
    last = ""
    while True:
        choices = [fault for fault in faults if fault != last] or list(faults)
        last = rng.choice(choices)
        yield Step(_time(rng, mean_wait_s), last, _time(rng, mean_for_s))


def _time(rng: random.Random, mean_s: float) -> float:
    return min(3 * mean_s, max(mean_s / 10, rng.expovariate(1 / mean_s)))
