"""Several processes on one Chroma directory: what they do not see of each other, and how they fail."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from typing import TYPE_CHECKING

import pytest

from evaluation.processes import wait_until
from evaluation.systems.shared_dir import SharedDir
from tests.integration.evaluation_client import Documents, Started, started

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.slow


def test_workers_miss_neighbours_lock_each_other_out_and_lose_their_directory(tmp_path: Path) -> None:
    async def run() -> None:
        system = SharedDir()
        async with started(system, tmp_path) as run:
            assert await system.health() is None
            docs = await run.collection("lb", "docs")
            await what_one_writes_others_read_but_do_not_find(run, docs)
            await settings_changed_at_once_are_refused_as_locked(system)
            await a_killed_worker_is_started_again(system)
            await without_its_directory_it_reads_ghosts_and_writes_nothing(system, docs)

    asyncio.run(run())


@pytest.mark.soak
def test_what_was_acknowledged_is_in_no_index_for_good(tmp_path: Path) -> None:
    async def run() -> None:
        async with started(SharedDir(), tmp_path) as run:
            await what_was_acknowledged_is_in_no_index_for_good(run)

    asyncio.run(run())


async def what_one_writes_others_read_but_do_not_find(run: Started, docs: Documents) -> None:
    system = run.system
    assert isinstance(system, SharedDir)
    assert await docs.upsert("worker-1", "first", "1") == 200
    neighbours = {"query_embeddings": [[1.0, 2.0, 3.0]], "n_results": 10, "include": []}
    status, raw = await docs.ask("worker-2", "query", neighbours)
    assert (status, raw["ids"]) == (200, [["first"]]), "its index is loaded now"

    for number in range(5):
        assert await docs.upsert("worker-1", f"later-{number}", "2") == 200

    assert await docs.text("worker-2", "later-4") == "2", "SQLite is common to all"
    _, raw = await docs.ask("worker-2", "query", neighbours)
    assert raw["ids"] == [["first"]], "acknowledged before, there, and not found"
    assert await system.unfound("docs") == {"worker-1": 0, "worker-2": 5, "worker-3": 0}


async def settings_changed_at_once_are_refused_as_locked(system: SharedDir) -> None:
    end = time.monotonic() + 60
    errors: dict[str, int] = {}
    while not errors.get("locked"):
        assert time.monotonic() < end, f"no lock error in 60 s: {errors}"
        errors = await system.contend(2.0)
    assert "database is locked" in system.samples()["locked"]


async def what_was_acknowledged_is_in_no_index_for_good(run: Started) -> None:
    system = run.system
    assert isinstance(system, SharedDir)
    hnsw = {"sync_threshold": 50, "batch_size": 50}
    docs = await run.collection("lb", "saved-often", configuration={"hnsw": hnsw})

    async def write(member: str, writer: int, part: int) -> None:
        ids = [f"{member}-{writer}-{part}-{number}" for number in range(5)]
        vectors = [[float(part), float(writer), float(number)] for number in range(5)]
        assert (await docs.ask(member, "upsert", {"ids": ids, "embeddings": vectors}))[0] == 200

    rounds, unfound = 0, {"": 0}
    while not all(unfound.values()):
        assert rounds < 5, "every document is found on every worker after five restarts"
        for part in range(12 * rounds, 12 * rounds + 12):
            await asyncio.gather(
                *(write(member, writer, part) for member in system.members for writer in range(4))
            )
        rounds += 1
        await system.redeploy()
        unfound = await system.unfound("saved-often")


async def a_killed_worker_is_started_again(system: SharedDir) -> None:
    for pid in system.pids("worker-3"):
        os.kill(pid, signal.SIGKILL)

    async def counted() -> bool:
        return (await system.counters())["crashes"] == 1

    await wait_until("the arbiter sees it", counted, 30)
    await system.restart("worker-3")
    assert await system.health() is None


async def without_its_directory_it_reads_ghosts_and_writes_nothing(
    system: SharedDir, docs: Documents
) -> None:
    await system.replace_directory()
    assert await docs.text("worker-1", "first") == "1"
    body = {"ids": ["new"], "embeddings": [[1.0, 2.0, 3.0]]}
    status, raw = await docs.ask("worker-1", "upsert", body)
    assert status == 500
    assert "(code: 1032) attempt to write a readonly database" in raw["message"]
    assert (await system.counters())["readonly"] == 1
