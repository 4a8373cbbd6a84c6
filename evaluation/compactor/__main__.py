"""`python -m evaluation.compactor --out DIR`: all variants under all faults, then the throughput."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from evaluation.compactor.campaign import measure
from evaluation.compactor.model import Variant
from evaluation.compactor.script import FAULTS


def main() -> int:
    parser = argparse.ArgumentParser(description="The lock-and-snapshot compactor: what it loses, and when.")
    parser.add_argument("--out", type=Path, required=True, help="folder for compactor.json and all runs")
    parser.add_argument("--variants", nargs="+", choices=list(Variant), default=list(Variant))
    parser.add_argument("--faults", nargs="+", choices=list(FAULTS), default=list(FAULTS))
    parser.add_argument("--seeds", type=int, default=3, help="runs of each variant under each fault")
    parser.add_argument("--seed", type=int, default=1, help="the first seed")
    parser.add_argument("--batches", nargs="*", type=int, default=[1, 10, 100], help="changes a cycle")
    parser.add_argument("--documents", nargs="*", type=int, default=[1000, 5000], help="before the changes")
    options = parser.parse_args()
    console = Console(stderr=True)
    result = measure(
        options.out,
        variants=options.variants,
        faults=options.faults,
        seeds=range(options.seed, options.seed + options.seeds),
        batches=options.batches,
        documents=options.documents,
        say=lambda line: console.print(f"[dim]{line}[/dim]", highlight=False),
    )
    _print(result, Console())
    wrong = [row for row in result["summary"] if not row["as_expected"]]
    return 1 if wrong else 0


def _print(result: dict[str, Any], console: Console) -> None:
    runs = Table(title="acknowledged changes lost")
    for heading in ("variant", "fault", "runs", "with loss", "acknowledged", "lost", "expected", "errors"):
        runs.add_column(heading)
    for row in result["summary"]:
        cells = ("variant", "fault", "runs", "runs_with_loss", "acknowledged", "lost", "expected", "errors")
        runs.add_row(*(str(row[cell]) for cell in cells))
    console.print(runs)
    speed = Table(title="one worker, no fault")
    for heading in ("documents before", "batch", "changes/s", "cycle ms", "KiB down/change", "KiB up/change"):
        speed.add_column(heading, justify="right")
    for row in result["throughput"]:
        speed.add_row(
            str(row["documents_before"]),
            str(row["batch"]),
            f"{row['changes_per_second']:.1f}",
            f"{row['cycle_ms_p50']:.0f}",
            f"{row['bytes_down_per_change'] / 1024:.0f}",
            f"{row['bytes_up_per_change'] / 1024:.0f}",
        )
    console.print(speed)


if __name__ == "__main__":
    sys.exit(main())
