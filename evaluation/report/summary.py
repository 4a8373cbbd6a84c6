"""The report's numbers as JSON, for other programs. Pure."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from evaluation.report.matrices import METRICS, matrix_of

if TYPE_CHECKING:
    from evaluation.report.cells import MergedCell
    from evaluation.report.runs import Evaluation


def summary(evaluation: Evaluation) -> dict[str, Any]:
    """Numbers that were not measured are null; `text` has each metric as the page shows it."""
    matrix = matrix_of(evaluation)
    return {
        "runs": len(evaluation.runs),
        "standings": dict(Counter(run.standing.value for run in evaluation.runs)),
        "systems": list(matrix.systems),
        "faults": list(matrix.faults),
        "cells": [_cell(cell) for cell in matrix.cells.values()],
        "problems": evaluation.problems,
    }


def _cell(cell: MergedCell) -> dict[str, Any]:
    return {
        "system": cell.system,
        "fault": cell.fault,
        "standing": cell.standing.value,
        "seeds": {run.seed: run.standing.value for run in cell.runs},
        "commands": [run.record.command for run in cell.runs if run.record],
        "errors": {run.seed: run.error for run in cell.runs if run.error},
        "properties": {name: standing.value for name, standing in cell.properties().items()},
        "lost": cell.count("lost"),
        "stale": cell.stale,
        "duplicated": cell.count("duplicated"),
        "text": {metric.id: metric.text(cell) for metric in METRICS},
    }
