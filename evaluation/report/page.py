"""The HTML page: what the template is filled with. Everything it shows is inside the one file."""

from __future__ import annotations

import base64
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from evaluation.checking.promised import promised
from evaluation.checking.verdict import PROPERTIES
from evaluation.report import curves, storage, style, timeline
from evaluation.report.costs import cost_tables
from evaluation.report.counterexamples import CounterExample, clearest, examples_of
from evaluation.report.matrices import METRICS, Matrix, matrix_of
from evaluation.report.measures import PHASES, Measures, read_measures
from evaluation.report.names import METRICS as DEFINITIONS
from evaluation.report.names import SYSTEMS, fault_words
from evaluation.report.numbers import MISSING, duration, percent, whole
from evaluation.report.standing import Standing, standing_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from evaluation.report.runs import Evaluation, Run


@dataclass
class RunView:
    """One run as the page shows it."""

    run: Run
    timeline_png: bytes = b""
    examples: list[CounterExample] = field(default_factory=list[CounterExample])
    measures: Measures = field(default_factory=Measures)
    outcomes: dict[str, int] = field(default_factory=dict[str, int])
    problem: str = ""
    """Why the history is not shown."""

    @property
    def findings(self) -> list[tuple[Any, Standing, bool]]:
        if self.run.judgement is None:
            return []
        promises = self.run.promises
        return [
            (finding, standing_of(finding, promises), promised(finding.property, promises))
            for finding in self.run.judgement.findings
        ]

    @property
    def timeline_uri(self) -> str:
        return "data:image/png;base64," + base64.b64encode(self.timeline_png).decode()


def view_of(run: Run, *, draw: bool = True) -> RunView:
    """Reads the run's history, and forgets it again. Without `draw`: no timeline."""
    view = RunView(run)
    if run.judgement is not None:
        view.measures = read_measures(run.judgement.measures)
    try:
        operations = run.operations
    except (ValueError, OSError) as error:
        view.problem = f"the history cannot be read: {error}"
        operations = []
    view.outcomes = dict(Counter(operation.outcome.value for operation in operations))
    if draw and run.record is not None and operations:
        with style.styled():
            figure = timeline.draw(run.record, operations)
            view.timeline_png = style.to_png(figure) if figure else b""
    view.examples = examples_of(run, {operation.id: operation for operation in operations})
    run.forget_operations()
    return view


@dataclass(frozen=True)
class Overview:
    """One system in one line."""

    system: str
    what: str
    cells: dict[Standing, int]
    lost: int | None
    stale: int | None
    duplicated: int | None
    violated: Sequence[str]
    """Properties violated under any fault, promised ones first."""
    own_errors: str
    measured: bool
    """Did any run say anything?"""

    @property
    def violated_words(self) -> str:
        if not self.measured:
            return MISSING
        return ", ".join(self.violated) or "nothing that was checked"


def overview_of(matrix: Matrix, system: str) -> Overview:
    cells = [cell for cell in matrix.of_system(system) if cell.runs]
    standings: dict[str, Standing] = {}
    for cell in cells:
        for name, standing in cell.properties().items():
            if standing in (Standing.BROKEN, Standing.ANOMALY):
                standings.setdefault(name, standing)

    def add(counts: Sequence[int | None]) -> int | None:
        known = [count for count in counts if count is not None]
        return sum(known) if known else None

    errors: Counter[str] = Counter()
    for cell in cells:
        errors.update(cell.own_errors)
    return Overview(
        system,
        SYSTEMS.get(system, ""),
        dict(Counter(cell.standing for cell in matrix.of_system(system))),
        add([cell.count("lost") for cell in cells]),
        add([cell.stale for cell in cells]),
        add([cell.count("duplicated") for cell in cells]),
        sorted(
            standings, key=lambda name: (standings[name] is not Standing.BROKEN, list(PROPERTIES).index(name))
        ),
        ", ".join(f"{count:,} {kind}" for kind, count in errors.items()),
        any(cell.measured for cell in cells),
    )


def stale_by_system(views: Sequence[RunView], matrix: Matrix) -> dict[tuple[str, str], list[Measures]]:
    """(system, read level) -> measures of all runs with a curve of that level."""
    found: dict[tuple[str, str], list[Measures]] = {}
    for system in matrix.systems:
        for view in views:
            if view.run.system == system and not view.run.error:
                for level in view.measures.curves:
                    found.setdefault((system, level), []).append(view.measures)
    return found


def render(evaluation: Evaluation, progress: Callable[[str], None] = lambda _: None) -> str:
    matrix = matrix_of(evaluation)
    views: list[RunView] = []
    for number, run in enumerate(evaluation.runs, 1):
        progress(f"{number} of {len(evaluation.runs)}: {run.system} / {run.fault} / {run.seed}")
        views.append(view_of(run))
    with style.styled():
        figure = curves.draw(curves.lines_of(stale_by_system(views, matrix)))
        staleness = Markup(style.to_svg(figure)) if figure else ""
        figure = storage.draw(storage.telling(evaluation.compactor))
        holdings = Markup(style.to_svg(figure)) if figure else ""
    environment = Environment(
        loader=PackageLoader("evaluation.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(whole=whole, percent=percent, duration=duration, svg=Markup)
    return environment.get_template("page.html.j2").render(
        evaluation=evaluation,
        matrix=matrix,
        views=views,
        by_system={
            system: [view for view in views if view.run.system == system] for system in matrix.systems
        },
        overviews=[overview_of(matrix, system) for system in matrix.systems],
        staleness=staleness,
        examples=clearest(example for view in views for example in view.examples),
        standings=list(Standing),
        counts=Counter(run.standing for run in evaluation.runs),
        metrics=METRICS,
        properties=PROPERTIES,
        systems=SYSTEMS,
        definitions=DEFINITIONS,
        costs=cost_tables(evaluation.cost),
        compactor=storage.tables(evaluation.compactor),
        holdings=holdings,
        phases=PHASES,
        fault_words=fault_words(),
    )
