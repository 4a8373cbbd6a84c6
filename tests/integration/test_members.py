"""Members of a real cluster come and go: one cluster, one operator, a client that writes all the while."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from tests.integration.harness import RunningCluster, free_port, running_cluster

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.slow

COMMAND = [sys.executable, "-P", "-m", "cluster"]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningCluster]:
    """Where a node whose disk is lost is let in again by the operator only."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CHROMA_CLUSTER_AUTO_REPLACE", "false")
        with running_cluster(tmp_path_factory.mktemp("members") / "data") as running:
            yield running


def members(cluster: RunningCluster, *words: str) -> subprocess.CompletedProcess[str]:
    command = [*COMMAND, "members", *words, "--data", str(cluster.data)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def done(cluster: RunningCluster, *words: str) -> None:
    result = members(cluster, *words)
    assert result.returncode == 0, f"{result.stdout}{result.stderr}\n{cluster.logs()}"


def listed(cluster: RunningCluster) -> dict[str, Any]:
    found = json.loads(members(cluster, "list", "--json").stdout)
    return {member["id"]: member for member in found["members"]}


def write(cluster: RunningCluster, name: str) -> None:
    client = cluster.client()
    client.get_or_create_collection("docs").upsert(ids=[name], embeddings=[[1.0, 2.0]])


def used(cluster: RunningCluster) -> set[str]:
    """Whom the balancer sends requests."""
    return {name for name, healthy in cluster.status()["balancer"]["nodes"].items() if healthy}


def test_nodes_are_added_and_founders_leave(cluster: RunningCluster) -> None:
    write(cluster, "first")
    done(cluster, "add")
    assert {name: it["role"] for name, it in listed(cluster).items()} == dict.fromkeys(
        ("node-1", "node-2", "node-3", "node-4"), "voter"
    )
    write(cluster, "with four")
    leader = cluster.leader()["id"]
    done(cluster, "remove", leader)
    write(cluster, "without the leader")
    assert leader not in listed(cluster)
    # A dead founder is replaced.
    [dead, *_] = [name for name in listed(cluster) if name != "node-4" and name != cluster.leader()["id"]]
    cluster.kill(cluster.node(dead))
    done(cluster, "replace", dead)
    write(cluster, "with five")
    assert {"node-4", "node-5"} < set(listed(cluster))
    assert not {leader, dead} & set(listed(cluster))
    cluster.wait("the balancer follows", lambda: used(cluster) == set(listed(cluster)))
    cluster.wait_caught_up()
    ids = cluster.client().get_collection("docs").get()["ids"]
    assert set(ids) == {"first", "with four", "without the leader", "with five"}


@pytest.mark.parametrize(
    ("words", "said"), [(("promote", "node-4"), "voter already"), (("transfer", "nobody"), "no member")]
)
def test_what_cannot_be_done_is_said(cluster: RunningCluster, words: tuple[str, ...], said: str) -> None:
    result = members(cluster, *words)
    assert result.returncode == 1
    assert said in result.stderr


def test_all_come_back_with_the_same_command(cluster: RunningCluster) -> None:
    before = listed(cluster)
    cluster.down()
    cluster.nodes_count = len(before)
    cluster.up()
    assert set(listed(cluster)) == set(before)
    write(cluster, "after a restart")
    cluster.wait_caught_up()


def test_a_wiped_node_waits_for_the_operator(cluster: RunningCluster) -> None:
    wiped = next(name for name in listed(cluster) if name != cluster.leader()["id"])
    cluster.kill(cluster.node(wiped))
    shutil.rmtree(cluster.directory.node_directory(wiped))
    cluster.up()
    cluster.wait_caught_up()
    assert listed(cluster)[wiped]["has_vote"] is False
    assert f"members admit {wiped}" in cluster.node(wiped)["reason"]
    done(cluster, "admit", wiped)
    assert listed(cluster)[wiped]["has_vote"] is True
    again = members(cluster, "admit", wiped)
    assert again.returncode == 1
    assert "does not wait" in again.stderr


def test_a_copy_of_a_living_node_is_refused_and_the_node_serves_on(cluster: RunningCluster) -> None:
    plan = cluster.directory.read_plan()
    assert plan is not None
    cluster.wait_caught_up()
    victim = plan.nodes[-1]
    copy = cluster.data.parent / "copy"
    shutil.copytree(cluster.directory.node_directory(victim.id), copy, ignore=shutil.ignore_patterns("LOCK"))
    command = [*COMMAND, "node", "--id", victim.id, "--cluster-id", plan.cluster, "--data-dir", str(copy)]
    command += ["--http", f"127.0.0.1:{free_port()}", "--raft", f"127.0.0.1:{free_port()}"]
    command += ["--join", plan.nodes[0].url]
    log = cluster.data.parent / "copy.log"
    pid = cluster.node(victim.id)["pid"]
    with log.open("w") as output:
        beside = subprocess.Popen(
            command,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, "CHROMA_CLUSTER_SECRET": plan.secret},
        )
        try:
            said = f"another process is running as {victim.id}"
            cluster.wait("the copy is told", lambda: said in log.read_text(), 60)
            write(cluster, "beside a copy")
            cluster.wait_caught_up()
            assert cluster.node(victim.id)["pid"] == pid
        finally:
            beside.terminate()
            beside.wait(30)
