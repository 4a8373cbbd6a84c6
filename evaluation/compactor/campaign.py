"""All variants under all faults with some seeds, then the throughput; saved as compactor.json."""

from __future__ import annotations

import asyncio
import datetime
import os
import platform
from dataclasses import asdict
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import orjson

from evaluation.checking.judge import judge
from evaluation.compactor import throughput
from evaluation.compactor.document import FORM, summary
from evaluation.compactor.loss import expected, lost
from evaluation.compactor.model import Variant
from evaluation.compactor.pair import LEASE_MS
from evaluation.compactor.scenario import run
from evaluation.compactor.script import FAULTS
from evaluation.compactor.storage import StorageServer
from evaluation.failure import SystemFailure
from evaluation.history import read_history

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

ATTEMPTS = 3
_MAX_CYCLES = 20
_CHANGES = 300


def measure(
    out: Path,
    *,
    variants: Iterable[str] = tuple(Variant),
    faults: Iterable[str] = tuple(FAULTS),
    seeds: Sequence[int] = range(1, 4),
    batches: Sequence[int] = (1, 10, 100),
    documents: Sequence[int] = (1000, 5000),
    say: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """The whole result (its form: `evaluation.compactor.document`), also saved in `out` with all runs.

    Runs an event loop of its own: not to be called from within one.
    """
    out.mkdir(parents=True, exist_ok=True)
    chosen, named = [*map(Variant, variants)], [*faults]
    result: dict[str, Any] = {
        "form": FORM,
        "command": _command(chosen, named, seeds, batches, documents),
        "started_at": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "load_average": [round(os.getloadavg()[0], 2)],
        "versions": {
            "python": platform.python_version(),
            **{name: version(name) for name in ("chromadb", "obstore")},
        },
        "lease_ms": LEASE_MS,
    }
    runs, speeds, problems = asyncio.run(_all(out, chosen, named, seeds, batches, documents, say))
    result["load_average"].append(round(os.getloadavg()[0], 2))
    result |= {"runs": runs, "summary": summary(runs), "throughput": speeds, "problems": problems}
    (out / "compactor.json").write_bytes(orjson.dumps(result, option=orjson.OPT_INDENT_2))
    return result


def _command(
    variants: Sequence[Variant],
    faults: Sequence[str],
    seeds: Sequence[int],
    batches: Sequence[int],
    documents: Sequence[int],
) -> str:
    """What repeats it; `seeds` follow each other."""
    flags = {
        "--variants": [variant.value for variant in variants],
        "--faults": faults,
        "--seed": seeds[:1],
        "--seeds": [len(seeds)],
        "--batches": batches,
        "--documents": documents,
    }
    words = [word for flag, values in flags.items() for word in (flag, *map(str, values))]
    return " ".join(["python -m evaluation.compactor --out DIR", *words])


async def _all(
    out: Path,
    variants: Sequence[Variant],
    faults: Sequence[str],
    seeds: Sequence[int],
    batches: Sequence[int],
    documents: Sequence[int],
    say: Callable[[str], None],
) -> tuple[list[dict[str, Any]], list[dict[str, Any]], list[str]]:
    runs: list[dict[str, Any]] = []
    speeds: list[dict[str, Any]] = []
    problems: list[str] = []
    server = StorageServer(out / "logs")
    try:
        await server.start()
        for fault in faults:
            for variant in variants:
                for seed in seeds:
                    runs.append(await measured_run(server.endpoint, variant, fault, seed, out))
                    say(f"{variant.value} {fault} {seed}: {runs[-1].get('verdict', 'error')}")
        for before in documents:
            for batch in batches:
                # Enough cycles for a median, but a cycle of one change is as long as one of a hundred.
                changes = batch * min(_MAX_CYCLES, max(3, _CHANGES // batch))
                folder = out / "throughput" / f"{before}-{batch}"
                try:
                    measured = await throughput.measure(server.endpoint, folder, before, batch, changes)
                except SystemFailure as failure:
                    problems.append(f"{before} documents, batches of {batch}: {failure}")
                    continue
                speeds.append(asdict(measured))
                say(f"{before} documents, batches of {batch}: {measured.changes_per_second} changes/s")
    finally:
        server.stop()
    return runs, speeds, problems


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
