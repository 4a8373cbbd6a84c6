"""Nobody asks: a cluster verifies itself by schedule, and a node whose copy differs fills itself."""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.integration import corruption
from tests.integration.harness import COMMAND, RunningCluster, running_cluster

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningCluster]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CHROMA_CLUSTER_VERIFY_INTERVAL_S", "2")
        patch.setenv("CHROMA_CLUSTER_AUTO_REPAIR", "true")
        with running_cluster(tmp_path_factory.mktemp("verify-itself") / "data") as running:
            yield running


def test_a_silent_change_is_found_and_repaired_without_a_command(
    cluster: RunningCluster, tmp_path: Path
) -> None:
    collection = cluster.client().create_collection("docs", embedding_function=None)
    ids = [f"docs-{number}" for number in range(60)]
    collection.upsert(
        ids=ids,
        embeddings=[[float(number), 1.0] for number in range(60)],
        metadatas=[{"i": number} for number in range(60)],
    )
    cluster.wait_caught_up()
    victim = next(row for row in cluster.status()["nodes"] if row["role"] == "follower")["id"]
    # Killed, it leaves no seal: its start finds nothing.
    cluster.kill(cluster.node(victim))
    folder = cluster.data / victim
    corruption.change_metadata_value(folder / "chroma", "docs", "docs-5", "i", 1000)
    cluster.up(check=False)
    cluster.wait("it fills itself", lambda: (folder / "repairs.json").exists(), 90)
    cluster.wait("it is ready again", lambda: cluster.node(victim).get("ready"), 90)
    assert not (folder / "alarms.json").exists()
    found = cluster.assert_replicas_equal(str(collection.id))
    assert found["docs-5"][2]["i"] == 5
    assert len(json.loads((folder / "repairs.json").read_text())) == 1

    # Asked from elsewhere, with the secret in a file.
    plan = cluster.directory.read_plan()
    assert plan is not None
    secret = tmp_path / "secret"
    secret.write_text(plan.secret)
    words = ["--url", cluster.leader()["url"], "--secret-file", str(secret), "--json"]
    done = subprocess.run(
        [*COMMAND, "verify", *words], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads(done.stdout)["standing"] == "same"
    secret.write_text("not the secret")
    done = subprocess.run(
        [*COMMAND, "verify", *words], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 2
    assert "secret" in json.loads(done.stdout)["reason"]
