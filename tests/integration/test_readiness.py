"""A node that cannot serve as the others do says so, and whoever looks at the cluster sees it."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import signal
import subprocess
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
import requests

from cluster.cli.layout import DataDirectory
from cluster.cli.supervisor import node_arguments
from cluster.failpoint import VARIABLE
from evaluation.processes import free_port
from tests.integration.harness import COMMAND, RunningCluster, running_cluster

if TYPE_CHECKING:
    from collections.abc import Iterator

COLLECTIONS = "/api/v2/tenants/default_tenant/databases/default_database/collections"
MIB = 1024 * 1024
HELD = "donors-are-held"


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningCluster]:
    patch = pytest.MonkeyPatch()
    patch.setenv("CHROMA_CLUSTER_JOURNAL_BUDGET_BYTES", str(MIB))
    patch.setenv("CHROMA_CLUSTER_LOG_RETENTION_BYTES", str(MIB))
    data = tmp_path_factory.mktemp("readiness") / "data"
    # While there is this file, donors give nothing.
    patch.setenv(VARIABLE, f"snapshot.before_part=pause:600000@{data.parent / HELD}")
    try:
        with running_cluster(data) as running:
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
    nodes = requests.get(f"{cluster.url}/cluster/status", auth=cluster.member, timeout=10).json()["nodes"]
    return next(node for node in nodes if node["id"] == node_id)


def said(cluster: RunningCluster, row: dict[str, Any]) -> dict[str, Any]:
    """A node's own status."""
    return requests.get(f"{row['url']}/cluster/status", auth=cluster.member, timeout=10).json()


def test_all_is_well_and_every_node_is_ready(cluster: RunningCluster) -> None:
    code, seen = cluster.wait("every node ready", lambda: seen if (seen := status(cluster))[0] == 0 else None)
    assert code == 0
    assert all(row["ready"] and row["reason"] is None and row["state"] == "ready" for row in seen["nodes"])
    assert seen["balancer"]["not_used"] == {}


def test_up_restarts_a_node_that_lives_but_has_a_fault(cluster: RunningCluster) -> None:
    collection = cluster.client().get_or_create_collection("limited")
    victim = cluster.followers()[0]
    # No file of this process may grow beyond 4 KiB from here on: what a full disk does to its writes.
    subprocess.run(["prlimit", f"--pid={victim['pid']}", "--fsize=4096:"], check=True)
    numbers = itertools.count()

    def failed() -> bool:
        collection.upsert(ids=[str(next(numbers))], embeddings=[[1.0, 2.0]])
        return cluster.node(victim["id"])["state"] == "failed"

    cluster.wait("a fault", failed)
    code, seen = status(cluster)
    assert code == 3
    row = next(row for row in seen["nodes"] if row["id"] == victim["id"])
    assert row["reason"]
    assert "restart" in row["remedy"]
    said_by_up = cluster.up().stdout
    assert f"{victim['id']} runs, but has stopped serving; restarted now" in said_by_up
    assert "nothing is missing" not in said_by_up
    after = cluster.node(victim["id"])
    assert after["pid"] != victim["pid"]
    assert (after["state"], after["ready"]) == ("ready", True), "`up` has waited for it"


def test_a_follower_that_hears_its_leader_over_the_log_only_says_so(cluster: RunningCluster) -> None:
    directory = DataDirectory(cluster.data)
    plan = directory.read_plan()
    assert plan is not None
    odd = cluster.followers()[0]
    cluster.kill(odd, signal.SIGTERM)
    cluster.wait("it to be down", lambda: cluster.node(odd["id"])["role"] == "down")
    me = plan.node(odd["id"])
    nobody = f"127.0.0.1:{free_port()}"
    nodes = tuple(node if node is me else replace(node, http=nobody) for node in plan.nodes)
    arguments = node_arguments(replace(plan, nodes=nodes), me, directory.node_directory(me.id))
    process = subprocess.Popen(
        [*COMMAND, *arguments],
        env={**os.environ, "CHROMA_CLUSTER_SECRET": plan.secret},
        stderr=subprocess.DEVNULL,
    )
    try:
        cluster.wait("it to notice", lambda: cluster.node(odd["id"])["state"] == "leader out of reach")
        row = cluster.node(odd["id"])
        assert (row["healthy"], row["ready"]) == (True, False)
        assert nobody in row["reason"]
        assert "`peers`" in row["remedy"]
        answer = requests.post(
            f"{row['url']}{COLLECTIONS}", json={"name": "refused"}, auth=cluster.member, timeout=60
        )
        assert (answer.status_code, answer.json()["error"]) == (503, "UnavailableError")
        assert "cannot reach it over HTTP" in answer.json()["message"]
        assert "Nothing was changed; send it to " in answer.json()["message"]
        read = requests.get(f"{row['url']}{COLLECTIONS}", auth=cluster.member, timeout=30)
        assert read.status_code == 200, "a session read needs no leader"
        assert "cannot reach it over HTTP" in balancer_node(cluster, odd["id"])["not_used"]
    finally:
        process.terminate()
        process.wait()
    cluster.up()


def test_a_node_without_a_majority_names_whom_it_reaches(cluster: RunningCluster) -> None:
    rows = cluster.status()["nodes"]
    for row in rows[1:]:
        cluster.kill(row)
    alone = cluster.wait(
        "it to notice",
        lambda: row if (row := cluster.node(rows[0]["id"]))["state"] == "no majority" else None,
    )
    assert not alone["healthy"]
    assert "No contact with a majority for " in alone["reason"]
    assert "it reaches nobody, not node-2, node-3" in alone["reason"]
    assert "Start node-2, node-3" in alone["remedy"]
    assert status(cluster)[0] == 1
    cluster.up()
    assert status(cluster)[0] == 0


def up_without_a_disk(cluster: RunningCluster, lost: str) -> subprocess.CompletedProcess[str]:
    """Lose a node's disk and run `up`, until that ends with what the node itself says.

    How long a process takes to say anything depends on the machine: so `up` gets more and more time.
    """
    for timeout_s in ("5", "10", "20", "40"):
        cluster.kill(cluster.node(lost))
        cluster.wait("its end", lambda: cluster.node(lost)["pid"] is None)
        if (cluster.data / lost).exists():  # it may have been killed before it began
            shutil.rmtree(cluster.data / lost)
        done = cluster.up("--timeout", timeout_s, check=False)
        if "lacks log entries" in done.stderr:
            break
    return done


def test_a_node_that_lacks_entries_says_so_and_serves_nothing(cluster: RunningCluster) -> None:
    collection = cluster.client().create_collection("large")
    for number in range(40):
        collection.add(ids=[str(number)], embeddings=[[1.0, 2.0]], documents=["x" * 100_000])
    cluster.wait(
        "the logs to be compacted",
        lambda: all(said(cluster, row)["first_index"] > 1 for row in cluster.status()["nodes"]),
    )
    lost = cluster.followers()[0]["id"]
    held = cluster.data.parent / HELD
    held.touch()
    again = up_without_a_disk(cluster, lost)
    assert again.returncode == 1
    assert f"Not ready: {lost}: It lacks log entries from 1 on" in again.stderr
    assert "it is filled with a snapshot of another node" in again.stderr

    code, seen = status(cluster)
    row = next(row for row in seen["nodes"] if row["id"] == lost)
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
    assert row["filling"]["phase"] in ("asking", "fetching", "waiting")
    assert "lacks log entries" in seen["balancer"]["not_used"][lost]
    assert said(cluster, cluster.leader())["unservable"] == {lost: row["lacks"]}, "the leader says so too"

    for level in ("eventual", "session", "linearizable"):
        answer = requests.get(
            row["url"] + COLLECTIONS,
            headers={"X-Chroma-Consistency": level},
            auth=cluster.member,
            timeout=30,
        )
        assert (answer.status_code, answer.json()["error"]) == (503, "UnavailableError")
        assert "lacks log entries" in answer.json()["message"]
    for _ in range(12):  # the balancer sends none there, so nothing is empty
        answer = requests.get(
            cluster.url + COLLECTIONS, headers={"X-Chroma-Consistency": "eventual"}, timeout=30
        )
        assert "large" in {found["name"] for found in answer.json()}
    assert not balancer_node(cluster, lost)["healthy"]

    held.unlink()
    # `up` would not wait: nothing is missing for it.
    cluster.wait("it to be filled", lambda: cluster.node(lost)["ready"], 60)
    cluster.assert_replicas_equal(str(collection.id))
