"""An upgrade node by node: the command level waits for the last member, and rises by itself then."""

from __future__ import annotations

import os
import re
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from cluster.state.commands import NEWEST_LEVEL
from tests.integration.harness import COMMAND, RunningCluster, running_cluster

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.slow
LIMIT = "CHROMA_CLUSTER_COMMAND_LEVEL_LIMIT"


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningCluster]:
    """Every node says that it understands level 1 alone, as a build would that was older."""
    held = pytest.MonkeyPatch()
    held.setenv(LIMIT, "1")
    try:
        with running_cluster(tmp_path_factory.mktemp("level") / "data") as made:
            held.undo()
            yield made
    finally:
        held.undo()


def verify(cluster: RunningCluster) -> subprocess.CompletedProcess[str]:
    command = [*COMMAND, "verify", "--data", str(cluster.data)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def levels(cluster: RunningCluster) -> dict[str, dict[str, Any]]:
    return {row["id"]: row["level"] or {} for row in cluster.status()["nodes"]}


def test_the_level_rises_once_the_last_member_understands_it(cluster: RunningCluster) -> None:
    assert LIMIT not in os.environ
    assert {level["in_force"] for level in levels(cluster).values()} == {1}
    first, *left = [cluster.followers()[0], cluster.followers()[1], cluster.leader()]
    cluster.kill(first)
    cluster.up()  # what is missing, without the setting
    leader = cluster.leader()["id"]
    names = {row["id"] for row in left}
    cluster.wait("who holds the level", lambda: set(levels(cluster)[leader]["waits_for"]) == names)
    assert {level["in_force"] for level in levels(cluster).values()} == {1}
    refused = verify(cluster)
    assert refused.returncode == 2
    message = " ".join((refused.stdout + refused.stderr).split())
    assert f"needs command level {NEWEST_LEVEL}, and the cluster is at level 1" in message
    assert all(f"{name} (it understands level 1)" in message for name in names)

    for row in left:
        cluster.kill(row)
    cluster.up()
    cluster.wait(
        "the level in force everywhere",
        lambda: {level.get("in_force") for level in levels(cluster).values()} == {NEWEST_LEVEL},
    )
    assert all(not level["waits_for"] for level in levels(cluster).values())
    found = verify(cluster)
    assert found.returncode == 0, found.stdout + found.stderr


def test_a_node_that_does_not_understand_the_level_is_refused(
    cluster: RunningCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A member whose disk was lost comes back held at an older level; then as the others."""
    cluster.wait("the level", lambda: levels(cluster)[cluster.leader()["id"]].get("in_force") == NEWEST_LEVEL)
    name = max(row["id"] for row in cluster.followers())  # it dials the others
    cluster.kill(cluster.node(name))
    cluster.wait("its end", lambda: cluster.node(name)["pid"] is None)
    (cluster.data / name).rename(cluster.data / "lost")
    monkeypatch.setenv(LIMIT, "1")
    process = subprocess.Popen(
        [*COMMAND, "up", "--data", str(cluster.data), "--detach", "--timeout", "60"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        said = re.compile(
            rf"refused this node: {name} understands command levels up to 1, the cluster is at level "
            rf"{NEWEST_LEVEL}, which never falls: start {name} with a build that understands level"
        )
        cluster.wait("the refusal", lambda: said.search(cluster.node(name)["reason"] or ""))
        assert not cluster.node(name)["healthy"]
    finally:
        process.kill()
        process.wait(timeout=30)
        monkeypatch.undo()
    cluster.kill(cluster.node(name))
    cluster.wait("its end", lambda: cluster.node(name)["pid"] is None)
    cluster.up()
    assert cluster.node(name)["level"]["in_force"] == NEWEST_LEVEL
