"""A donor, or the node that is filled, is killed at every step of a snapshot: the cluster gets whole.

One cluster for all. Every second node that is filled has lost its disk, the others were away for too long.
"""

from __future__ import annotations

import itertools
import shutil
import signal
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from cluster.cli.plan import BALANCER
from cluster.failpoint import NAMES
from tests.integration.lab import Lab, Write, death, running_lab

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.slow

MIB = 1024 * 1024
POINTS = [name for name in NAMES if name.startswith(("snapshot.", "fetch.", "install."))]
#: One of either side, where most is half done. All of them take minutes.
SOON = ("snapshot.copied", "install.chroma_set_aside")
CASES = [
    pytest.param(at, point, id=point, marks=() if point in SOON else pytest.mark.soak)
    for at, point in enumerate(POINTS)
]
_PATIENCE_S = 120.0
_numbers = itertools.count()


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    patch = pytest.MonkeyPatch()
    patch.setenv("CHROMA_CLUSTER_JOURNAL_BUDGET_BYTES", str(MIB))
    patch.setenv("CHROMA_CLUSTER_LOG_RETENTION_BYTES", str(MIB))
    try:
        with running_lab(tmp_path_factory.mktemp("kills") / "data") as made:
            status, collection = made.outcome(Write("", {"name": "records"}, "collection"))
            assert status == 200, collection
            made.collection_id = made.collections["records"] = collection["id"]
            yield made
    finally:
        patch.undo()


def upserting(lab: Lab, size: int) -> Write:
    """Ten documents of so many bytes each, under ids of earlier ones; the model has them already."""
    number = next(_numbers)
    some: dict[str, Any] = {
        f"{number % 3}-{at}": ([float(number), at + 0.5], f"{number} ".ljust(size, "x"), {"number": number})
        for at in range(10)
    }
    lab.records.update(some)
    embeddings, documents, metadatas = map(list, zip(*some.values(), strict=True))
    body = {"ids": list(some), "embeddings": embeddings, "documents": documents, "metadatas": metadatas}
    return Write(f"/{lab.collection_id}/upsert", body, f"upsert-{number}")


def drop_log(lab: Lab, nodes: list[str], index: int) -> None:
    """Write until these nodes have compacted their logs so far that who has this entry lacks the next."""

    def dropped() -> bool:
        assert lab.outcome(upserting(lab, 40_000)) == (200, {})
        return all(lab.status(name).get("first_index", 0) > index + 1 for name in nodes)

    lab.wait("the logs to be compacted", dropped, _PATIENCE_S)


def follower(lab: Lab, nodes: list[str]) -> str:
    """That one of two nodes which follows the other: it is asked for a snapshot first."""

    def found() -> str | None:
        roles = {lab.status(name).get("role"): name for name in nodes}
        return roles.get("follower") if "leader" in roles else None

    return str(lab.wait("a leader", found))


@pytest.mark.parametrize(("at", "point"), CASES)
def test_a_node_is_filled_though_a_process_is_killed_at(lab: Lab, at: int, point: str) -> None:
    lab.heal()
    leader = lab.wait_whole(_PATIENCE_S)
    filled, *_ = [name for name in lab.nodes if name != leader]
    others = [name for name in lab.nodes if name != filled]
    index = lab.status(leader)["last_index"]
    lab.kill(filled)
    # Beyond what it has, and beyond every snapshot that is kept: a new one is taken.
    drop_log(lab, others, index)
    if at % 2 == 0:
        shutil.rmtree(lab.supervisor.directory.root / filled)
    victim = follower(lab, others) if point.startswith("snapshot.") else filled
    log = lab.supervisor.children[victim].log
    start = log.stat().st_size
    gate = lab.gates / victim / point
    gate.touch()
    lab.start([filled])
    write = upserting(lab, 100)
    with ThreadPoolExecutor(1) as threads:
        sending = threads.submit(write.send, lab.url(BALANCER))
        died = lab.wait(f"the death of {victim}", lambda: death(log, start, point), _PATIENCE_S)
        child = lab.supervisor.children[victim]
        assert (child.process.wait(timeout=30), child.process.pid) == (-signal.SIGKILL, died)
        gate.unlink()
        lab.start([victim])
        sending.result()
    assert lab.outcome(write) == (200, {})
    lab.wait_whole(_PATIENCE_S)
    lab.assert_replicas_hold_exactly_this()
    assert lab.status(filled)["first_index"] > index + 1, "it was filled"
    left = {path.name for path in (lab.supervisor.directory.root / filled).iterdir()}
    assert not left & {"incoming", "install.json", "replaced"}, left
    # Without it the next case would be short of a majority.
    lab.wait("its vote", lambda: "new here" not in (lab.status(filled).get("reason") or ""), _PATIENCE_S)
