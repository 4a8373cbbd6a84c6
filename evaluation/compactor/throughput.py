"""How many changes a second one worker applies, by how many it takes in each download and upload."""

from __future__ import annotations

import asyncio
import math
import shutil
import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from evaluation.compactor import snapshot
from evaluation.compactor.model import POINTER, Change, Pointer, Variant
from evaluation.compactor.pair import Compactor
from evaluation.history import Phase

if TYPE_CHECKING:
    from pathlib import Path

DIMENSION = 384


@dataclass(frozen=True, slots=True, kw_only=True)
class Throughput:
    """One worker, no fault; nothing else is going on in the bucket."""

    documents_before: int
    """In the snapshot before the first change."""
    batch: int
    cycles: int
    changes: int
    changes_per_second: float
    cycle_ms_p50: float
    bytes_down_per_change: int
    bytes_up_per_change: int
    snapshot_bytes: int


async def measure(endpoint: str, folder: Path, documents_before: int, batch: int, changes: int) -> Throughput:
    """Apply `changes` queued changes, `batch` a cycle, to a snapshot of so many documents."""
    label = f"throughput/{documents_before}/{batch}"
    compactor = Compactor(endpoint, Variant.FENCED, folder, label, batch=batch)
    size = await asyncio.to_thread(_prepare, compactor, folder, documents_before)
    await asyncio.to_thread(compactor.add, changes, Phase.WARMUP, DIMENSION)
    try:
        await compactor.start(("worker-1",), lease_ms=600_000)
        cycles = math.ceil(changes / batch)
        await compactor.compacted(deadline_s=60 + 30 * cycles)
        await compactor.wait("the last report", lambda: len(compactor.named("done")) >= cycles)
    finally:
        await asyncio.to_thread(compactor.stop)
    done, first = compactor.named("done"), compactor.named("locked")[0]
    await asyncio.to_thread(shutil.rmtree, folder)
    seconds = (int(done[-1]["at_ns"]) - int(first["at_ns"])) / 1e9
    return Throughput(
        documents_before=documents_before,
        batch=batch,
        cycles=len(done),
        changes=changes,
        changes_per_second=round(changes / seconds, 2),
        cycle_ms_p50=round(statistics.median(float(step["seconds"]) for step in done) * 1000, 1),
        bytes_down_per_change=sum(int(step["bytes_down"]) for step in done) // changes,
        bytes_up_per_change=sum(int(step["bytes_up"]) for step in done) // changes,
        snapshot_bytes=size,
    )


def _prepare(compactor: Compactor, folder: Path, documents: int) -> int:
    """The snapshot to begin with, and its pointer; its size."""
    rng = np.random.default_rng(documents)
    rows = rng.normal(size=(documents, DIMENSION)).astype(np.float32)
    changes = [Change.of(f"old-{number}", row, f"document {number}") for number, row in enumerate(rows)]
    own = folder / "first.chroma"
    snapshot.unpack(None, own)
    snapshot.apply(own, changes)
    body = snapshot.pack(own)
    pointer = Pointer.after(None, 0, "nobody")
    compactor.bucket.put(pointer.snapshot, body)
    compactor.bucket.put(POINTER, pointer.encode())
    return len(body)
