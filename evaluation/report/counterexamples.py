"""For each violation: the finding, its smallest counter-example, and the contradiction in words. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from evaluation.checking.verdict import PROPERTIES, Verdict
from evaluation.report.drawing import in_words, to_svg
from evaluation.report.lanes import lay_out
from evaluation.report.standing import Standing, standing_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from evaluation.checking.verdict import Finding
    from evaluation.history import Operation
    from evaluation.report.runs import Run


@dataclass(frozen=True)
class CounterExample:
    system: str
    fault: str
    seed: str
    property: str
    standing: Standing
    meaning: str
    """What a violation of the property is."""
    detail: str
    """The contradiction in words, from the checker."""
    count: int
    svg: str
    """Empty when the checker names no operations, or the history lacks them."""
    words: Sequence[str]
    size: int


def examples_of(run: Run, operations: Mapping[int, Operation]) -> list[CounterExample]:
    """One a violated property of a run that is no error."""
    if run.error or run.judgement is None:
        return []
    return [
        _example(run, finding, [operations[id] for id in finding.example if id in operations])
        for finding in run.judgement.findings
        if finding.verdict is Verdict.VIOLATION
    ]


def _example(run: Run, finding: Finding, operations: Sequence[Operation]) -> CounterExample:
    layout = lay_out(operations) if operations else None
    return CounterExample(
        run.system,
        run.fault,
        run.seed,
        finding.property,
        standing_of(finding, run.promises),
        PROPERTIES.get(finding.property, ""),
        finding.detail,
        finding.count,
        to_svg(layout) if layout else "",
        in_words(layout) if layout else (),
        len(operations),
    )


def clearest(examples: Iterable[CounterExample]) -> list[CounterExample]:
    """One a system and property: drawn if possible, of the fewest operations. Broken promises first."""
    best: dict[tuple[str, str], CounterExample] = {}
    for example in examples:
        key = (example.system, example.property)
        if key not in best or _rank(example) < _rank(best[key]):
            best[key] = example
    # Stable: systems stay in the order in which they came.
    return sorted(best.values(), key=lambda example: example.standing is not Standing.BROKEN)


def _rank(example: CounterExample) -> tuple[bool, bool, int]:
    return (example.standing is not Standing.BROKEN, not example.svg, example.size)
