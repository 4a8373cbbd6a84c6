"""The result of `python -m evaluation.compactor`, as `compactor.json`.

form          "compactor/1"
command       what repeats it
started_at    wall clock, ISO 8601, UTC
load_average  [before, after] of one minute
versions      python, chromadb, obstore
lease_ms      how long the lock lasts; a run that the machine disturbed is repeated with twice the lease
runs[]        system (compactor-VARIANT), variant, fault, seed, folder (relative to this file: run.json,
              history.jsonl, verdict.json), point (where in its cycle the holder was struck; null for
              none), victim, lease_ms, lasted_ms (of the fault), acknowledged, lost, verdict, expected,
              as_expected, detail (the first lost change in words), refused_moves (late pointer moves
              that were refused), holdings[] (see below); of a run that was no run only error beside
              system, variant, fault, seed
holdings[]    who held the lock when: worker, token, locked_ns, expires_ns, ended_ns (null: killed), end
              (done, refused, idle, killed), paused_ns, awake_ns; from the run's start
summary[]     variant, fault, runs, runs_with_loss, acknowledged, lost, expected, as_expected, errors
throughput[]  documents_before, batch, cycles, changes, changes_per_second, cycle_ms_p50,
              bytes_down_per_change, bytes_up_per_change, snapshot_bytes
problems[]    what of the throughput could not be measured, and why
"""

from __future__ import annotations

from typing import Any

from evaluation.compactor.loss import expected
from evaluation.compactor.model import Variant

FORM = "compactor/1"


def summary(runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """All runs of one variant under one fault together, in the order of their first run."""
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for run in runs:
        groups.setdefault((run["variant"], run["fault"]), []).append(run)
    rows: list[dict[str, Any]] = []
    for (variant, fault), members in groups.items():
        valid = [run for run in members if "error" not in run]
        rows.append(
            {
                "variant": variant,
                "fault": fault,
                "runs": len(valid),
                "runs_with_loss": sum(run["lost"] > 0 for run in valid),
                "acknowledged": sum(run["acknowledged"] for run in valid),
                "lost": sum(run["lost"] for run in valid),
                "expected": expected(Variant(variant), fault).value,
                "as_expected": bool(valid) and all(run["as_expected"] for run in valid),
                "errors": len(members) - len(valid),
            }
        )
    return rows
