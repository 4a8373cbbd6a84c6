"""Nodes that lost their disk, or were away for too long, are filled while the cluster serves."""

from __future__ import annotations

import shutil
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest
import requests

from tests.integration.harness import RunningCluster, running_cluster

if TYPE_CHECKING:
    from collections.abc import Iterator

MIB = 1024 * 1024
COLLECTIONS = "/api/v2/tenants/default_tenant/databases/default_database/collections"


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningCluster]:
    patch = pytest.MonkeyPatch()
    patch.setenv("CHROMA_CLUSTER_JOURNAL_BUDGET_BYTES", str(MIB))
    patch.setenv("CHROMA_CLUSTER_LOG_RETENTION_BYTES", str(MIB))
    try:
        with running_cluster(tmp_path_factory.mktemp("snapshots") / "data") as running:
            yield running
    finally:
        patch.undo()


def said(cluster: RunningCluster, row: dict[str, Any]) -> dict[str, Any]:
    """A node's own status."""
    return requests.get(f"{row['url']}/cluster/status", auth=cluster.member, timeout=10).json()


def upsert(cluster: RunningCluster, collection: str, first: int, count: int = 20, size: int = 20_000) -> None:
    """Documents whose bytes make the log long."""
    answer = requests.post(
        f"{cluster.url}{COLLECTIONS}/{collection}/upsert",
        json={
            "ids": [f"{number}" for number in range(first, first + count)],
            "embeddings": [[float(number), 1.0, 2.0] for number in range(first, first + count)],
            "documents": [f"{number} " * (size // 8) for number in range(first, first + count)],
        },
        timeout=30,
    )
    assert answer.status_code == 200, answer.text


def compacted(cluster: RunningCluster, beyond: int, but: str) -> bool:
    """Whether no node but one has the entries up to an index any more."""
    rows = [row for row in cluster.status()["nodes"] if row["id"] != but]
    return all(said(cluster, row)["first_index"] > beyond for row in rows)


class Load:
    """One client that writes and reads through the balancer all the time."""

    def __init__(self, cluster: RunningCluster, collection: str) -> None:
        self._cluster = cluster
        self._collection = collection
        self._over = threading.Event()
        self.failures: list[str] = []
        self.done = 0
        self.longest_s = 0.0
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Load:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        number = 100_000
        while not self._over.wait(0.01):
            began = time.monotonic()
            try:
                upsert(self._cluster, self._collection, number, 1, 100)
                answer = requests.post(
                    f"{self._cluster.url}{COLLECTIONS}/{self._collection}/get",
                    json={"ids": [str(number)], "include": []},
                    timeout=30,
                )
                assert answer.json()["ids"] == [str(number)], answer.text
            except (AssertionError, requests.RequestException) as error:
                self.failures.append(str(error))
            self.longest_s = max(self.longest_s, time.monotonic() - began)
            self.done += 1
            number += 1


def test_a_lost_disk_is_filled_while_the_cluster_serves(cluster: RunningCluster) -> None:
    collection = cluster.client().create_collection("filled", metadata={"hnsw:sync_threshold": 50})
    name = str(collection.id)
    victim = cluster.followers()[0]
    cluster.kill(victim)
    before = cluster.leader()["last_index"]
    first = 0

    def dropped() -> bool:
        nonlocal first
        upsert(cluster, name, first % 400)
        first += 20
        return compacted(cluster, before, victim["id"])

    cluster.wait("the log is compacted beyond what the victim has", dropped)
    shutil.rmtree(cluster.data / victim["id"])
    with Load(cluster, name) as load:
        cluster.wait("some writes", lambda: load.done > 5)
        up = cluster.up("--timeout", "60")
        assert up.returncode == 0, up.stdout + up.stderr
        assert cluster.node(victim["id"])["ready"]
        done = load.done
        cluster.wait("some writes after it", lambda: load.done > done + 5)
    assert load.failures == []
    assert len(cluster.assert_replicas_equal(name)) == min(first, 400) + load.done
    # It was filled with a snapshot: its log does not begin at the beginning.
    assert said(cluster, cluster.node(victim["id"]))["first_index"] > before
    # And it has a vote again.
    cluster.wait("it has a vote", lambda: "new here" not in (said(cluster, victim)["reason"] or ""))
