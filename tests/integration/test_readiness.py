"""A node that cannot, or cannot yet, serve as the others do says so, and whoever looks at the cluster sees it."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from typing import TYPE_CHECKING, Any

import pytest
import requests

from tests.integration.harness import COMMAND, RunningCluster, running_cluster

if TYPE_CHECKING:
    from collections.abc import Iterator

MIB = 1024 * 1024


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningCluster]:
    patch = pytest.MonkeyPatch()
    patch.setenv("CHROMA_CLUSTER_JOURNAL_BUDGET_BYTES", str(MIB))
    try:
        with running_cluster(tmp_path_factory.mktemp("readiness") / "data") as running:
            yield running
    finally:
        patch.undo()


def status(cluster: RunningCluster) -> tuple[int, dict[str, Any]]:
    """Exit code and JSON of `status`."""
    command = [*COMMAND, "status", "--data", str(cluster.data), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    return done.returncode, json.loads(done.stdout)


def balancer_node(cluster: RunningCluster, node_id: str) -> dict[str, Any]:
    """How the balancer sees one node."""
    nodes = requests.get(f"{cluster.url}/cluster/status", timeout=10).json()["nodes"]
    return next(node for node in nodes if node["id"] == node_id)


def said(row: dict[str, Any]) -> dict[str, Any]:
    """A node's own status."""
    return requests.get(f"{row['url']}/cluster/status", timeout=10).json()


def test_all_is_well_and_every_node_is_ready(cluster: RunningCluster) -> None:
    code, seen = cluster.wait(
        "every node ready", lambda: status(cluster) if status(cluster)[0] == 0 else None
    )
    assert code == 0
    assert all(row["ready"] and row["reason"] is None and row["state"] == "ready" for row in seen["nodes"])
    assert seen["balancer"]["not_used"] == {}


def test_a_node_that_lacks_entries_says_so_and_serves_nothing(cluster: RunningCluster) -> None:
    collection = cluster.client().create_collection("large")
    for number in range(40):
        collection.add(ids=[str(number)], embeddings=[[1.0, 2.0]], documents=["x" * 100_000])
    cluster.wait(
        "the logs to be compacted",
        lambda: all(said(row)["first_index"] > 1 for row in cluster.status()["nodes"]),
    )
    lost = cluster.followers()[0]
    cluster.kill(lost)
    cluster.wait("it to be seen down", lambda: cluster.node(lost["id"])["role"] == "down")
    shutil.rmtree(cluster.data / lost["id"])

    began = time.monotonic()
    again = cluster.up("--timeout", "100", check=False)
    assert again.returncode == 1
    assert f"Not ready: {lost['id']}: It lacks log entries from 1 on" in again.stderr
    assert "no snapshot transfer" in again.stderr
    assert time.monotonic() - began < 95, "what waiting does not mend is not waited for"

    code, seen = status(cluster)
    row = next(row for row in seen["nodes"] if row["id"] == lost["id"])
    assert code == 3, "it serves, but not whole"
    assert (row["state"], row["healthy"], row["ready"], row["applied_index"]) == (
        "lacks entries",
        False,
        False,
        0,
    )
    assert row["lacks"]["needs"] == 1
    assert row["lacks"]["compacted"] >= 1
    assert row["lag"] >= 40, "counted from what the leader has"
    assert "lacks log entries" in seen["balancer"]["not_used"][lost["id"]]
    assert said(cluster.leader())["unservable"] == {lost["id"]: row["lacks"]}, "the leader says so too"

    path = "/api/v2/tenants/default_tenant/databases/default_database/collections"
    for level in ("eventual", "session", "linearizable"):
        answer = requests.get(row["url"] + path, headers={"X-Chroma-Consistency": level}, timeout=30)
        assert (answer.status_code, answer.json()["error"]) == (503, "UnavailableError")
        assert "lacks log entries" in answer.json()["message"]
    for _ in range(12):  # the balancer sends none there, so nothing is empty
        answer = requests.get(cluster.url + path, headers={"X-Chroma-Consistency": "eventual"}, timeout=30)
        assert [found["name"] for found in answer.json()] == ["large"]
    assert not balancer_node(cluster, lost["id"])["healthy"]
