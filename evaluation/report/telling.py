"""Which of many runs and counter-examples a short document shows. Pure."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from evaluation.report.standing import Standing

if TYPE_CHECKING:
    from collections.abc import Sequence

    from evaluation.report.counterexamples import CounterExample
    from evaluation.report.runs import Run

#: Whose timelines tell most; of each group the first system of which there is a run.
GROUPS = (
    ("cluster",),
    ("naive-lww", "naive-crdt", "naive-vector-clock", "naive-manual"),
    ("postgres-async", "postgres-async-unfenced", "postgres-quorum", "postgres-all"),
)
#: Under which faults, the first one of which there is a run.
FAULTS = ("leader-isolated", "minority-isolated", "pause-leader", "kill-leader", "leader-refused")
#: Properties whose violation everybody understands come first.
ORDER = (
    "lost",
    "split-brain",
    "resurrected",
    "duplicated",
    "fractured",
    "read-your-writes",
    "linearizable",
    "lost-updates",
    "monotonic-reads",
)


def telling_runs(runs: Sequence[Run]) -> list[Run]:
    """At most one run a group, none in error; one that shows something before one that does not."""
    found: list[Run] = []
    for systems in GROUPS:
        fitting = [run for run in runs if run.system in systems and run.fault in FAULTS and not run.error]
        fitting.sort(
            key=lambda run: (
                systems.index(run.system),
                FAULTS.index(run.fault),
                run.standing is Standing.OK,
                run.seed,
            )
        )
        found += fitting[:1]
    return found


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
                ORDER.index(one.property) if one.property in ORDER else len(ORDER),
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
