"""`python -m evaluation.compactor --out DIR`: all variants under all faults, then the throughput."""

from __future__ import annotations

import argparse
import asyncio
import datetime
import os
import platform
import shlex
import sys
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import orjson
from rich.console import Console
from rich.table import Table

from evaluation.checker import judge
from evaluation.compactor import throughput
from evaluation.compactor.document import FORM, summary
from evaluation.compactor.loss import expected, lost
from evaluation.compactor.model import Variant
from evaluation.compactor.scenario import FAULTS, LEASE_MS, run
from evaluation.compactor.storage import StorageServer
from evaluation.history import read_history
from evaluation.systems.interface import SystemFailure

ATTEMPTS = 3


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
    options.out.mkdir(parents=True, exist_ok=True)
    result = asyncio.run(_all(options))
    _print(result, Console())
    wrong = [row for row in result["summary"] if not row["as_expected"]]
    return 1 if wrong else 0


async def _all(options: argparse.Namespace) -> dict[str, Any]:
    out: Path = options.out
    console = Console(stderr=True)
    result: dict[str, Any] = {
        "form": FORM,
        "command": shlex.join(["python", "-m", "evaluation.compactor", *sys.argv[1:]]),
        "started_at": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "load_average": [round(os.getloadavg()[0], 2)],
        "versions": {
            "python": platform.python_version(),
            **{name: version(name) for name in ("chromadb", "obstore")},
        },
        "lease_ms": LEASE_MS,
        "runs": [],
        "summary": [],
        "throughput": [],
    }
    server = StorageServer(out / "logs")
    try:
        await server.start()
        for fault in options.faults:
            for variant in options.variants:
                for seed in range(options.seed, options.seed + options.seeds):
                    one = await measured_run(server.endpoint, Variant(variant), fault, seed, out)
                    console.print(f"[dim]{variant} {fault} {seed}: {one.get('verdict', 'error')}[/dim]")
                    result["runs"].append(one)
        for documents in options.documents:
            for batch in options.batches:
                changes = batch * min(20, max(3, 300 // batch))
                console.print(f"[dim]throughput: {documents} documents, batches of {batch}[/dim]")
                folder = out / "throughput" / f"{documents}-{batch}"
                measured = await throughput.measure(server.endpoint, folder, documents, batch, changes)
                result["throughput"].append(asdict(measured))
    finally:
        server.stop()
    result["load_average"].append(round(os.getloadavg()[0], 2))
    result["summary"] = summary(result["runs"])
    (out / "compactor.json").write_bytes(orjson.dumps(result, option=orjson.OPT_INDENT_2))
    return result


async def measured_run(endpoint: str, variant: Variant, fault: str, seed: int, out: Path) -> dict[str, Any]:
    """One run with its verdict, as a row of the document; repeated if it was disturbed."""
    facts: dict[str, Any] = {
        "system": f"compactor-{variant.value}",
        "variant": variant.value,
        "fault": fault,
        "seed": seed,
    }
    folder = out / facts["system"] / fault / str(seed)
    command = (
        f"python -m evaluation.compactor --out DIR --variants {variant.value} --faults {fault} "
        f"--seed {seed} --seeds 1 --documents"
    )
    error = ""
    for attempt in range(ATTEMPTS):
        try:
            # Cycles that a busy machine makes longer than the lease need a longer one.
            lease_ms = LEASE_MS * 2**attempt
            record = await run(endpoint, variant, fault, seed, folder, command, lease_ms)
            break
        except SystemFailure as failure:
            error = str(failure)
    else:
        return {**facts, "error": error}
    operations = list(read_history(folder / "history.jsonl"))
    judgement = judge(record, operations)
    (folder / "verdict.json").write_bytes(orjson.dumps(judgement.to_json(), option=orjson.OPT_INDENT_2))
    finding, counted = judgement.of("lost"), lost(operations)
    if (finding.verdict, finding.count) != (counted.verdict, counted.count):
        return {**facts, "error": f"the checker says {finding}, counting says {counted}"}
    wanted = expected(variant, fault)
    return {
        **facts,
        "folder": str(folder.relative_to(out)),
        "point": record.fault_detail.get("point"),
        "victim": record.fault_detail.get("victim"),
        "lease_ms": record.fault_detail.get("lease_ms"),
        "lasted_ms": record.fault_detail.get("lasted_ms"),
        "acknowledged": finding.checked,
        "lost": finding.count,
        "verdict": finding.verdict.value,
        "expected": wanted.value,
        "as_expected": finding.verdict is wanted,
        "detail": counted.detail,
        **record.measured,
    }


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
