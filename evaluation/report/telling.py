"""Which of many runs and counter-examples a short document shows. Pure."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from evaluation.report.standing import Standing

if TYPE_CHECKING:
    from collections.abc import Sequence

    from evaluation.report.counterexamples import CounterExample
    from evaluation.report.runs import Run

#: Faults whose timelines tell most, the first of them that was run on most systems.
TELLING_FAULTS = ("leader-isolated", "pause-leader", "kill-leader", "leader-refused", "leader-blackhole")
TELLING_SYSTEMS = ("cluster", "naive-lww", "postgres-async")


def telling_runs(runs: Sequence[Run]) -> list[Run]:
    """One run a system, all of the same fault, none in error; the seed is the same where it can be."""

    def of(fault: str) -> list[Run]:
        found: list[Run] = []
        for system in TELLING_SYSTEMS:
            fitting = [run for run in runs if (run.system, run.fault) == (system, fault) and not run.error]
            found += sorted(fitting, key=lambda run: (run.standing is Standing.OK, run.seed))[:1]
        return found

    return max((of(fault) for fault in TELLING_FAULTS), key=len)


def chosen(examples: Sequence[CounterExample], most: int) -> list[CounterExample]:
    """Of many: a system at most once as long as others wait, and other properties before the same again."""
    left = list(examples)
    found: list[CounterExample] = []
    while left and len(found) < most:
        systems = Counter(one.system for one in found)
        properties = Counter(one.property for one in found)
        best = min(
            left,
            key=lambda one: (
                one.standing is not Standing.BROKEN,
                systems[one.system],
                properties[one.property],
                one.size,
            ),
        )
        found.append(best)
        left.remove(best)
    return found


def spans(numbers: Sequence[int]) -> str:
    """1, 2, 3, 7 -> 1-3, 7."""
    found: list[list[int]] = []
    for number in numbers:
        if found and number == found[-1][-1] + 1:
            found[-1][1:] = [number]
        else:
            found.append([number])
    return ", ".join("-".join(str(end) for end in span) for span in found)
