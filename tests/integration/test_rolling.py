"""`restart --rolling` under load: every node anew, no request failed, nothing lost; refused with one away."""

from __future__ import annotations

import importlib.metadata
import subprocess
import threading
from typing import TYPE_CHECKING

import pytest
import requests

from tests.integration.harness import COMMAND, RunningCluster, running_cluster
from tests.integration.traffic import Writers

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.slow
COLLECTIONS = "/api/v2/tenants/default_tenant/databases/default_database/collections"


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningCluster]:
    with running_cluster(tmp_path_factory.mktemp("rolling") / "data") as made:
        yield made


def restart(data: Path, *flags: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, "restart", *flags, "--data", str(data)],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


class Readers:
    """Threads that count a collection at one level over and over; what failed is kept."""

    def __init__(self, url: str, collection_id: str) -> None:
        self._count = f"{url}{COLLECTIONS}/{collection_id}/count"
        self._stop = threading.Event()
        self.failed: list[str] = []
        self.answered = 0
        self._threads = [
            threading.Thread(target=self._read, args=(level,), daemon=True)
            for level in ("session", "linearizable", "eventual")
        ]

    def _read(self, level: str) -> None:
        session = requests.Session()
        while not self._stop.is_set():
            try:
                answer = session.get(self._count, headers={"X-Chroma-Consistency": level}, timeout=30)
            except requests.RequestException as error:
                self.failed.append(repr(error))
                continue
            self.answered += 1
            if answer.status_code != 200:
                self.failed.append(answer.text)

    def __enter__(self) -> Readers:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(timeout=60)


def test_every_node_is_restarted_under_load_and_no_request_fails(cluster: RunningCluster) -> None:
    made = requests.post(f"{cluster.url}{COLLECTIONS}", json={"name": "rolling"}, timeout=30)
    collection_id: str = made.json()["id"]
    before = {row["id"]: row["pid"] for row in cluster.status()["nodes"]}
    balancer = cluster.status()["balancer"]["pid"]
    writers = Writers(cluster.url, collection_id, count=4).start()
    try:
        writers.wait_acknowledged(8)
        with Readers(cluster.url, collection_id) as readers:
            done = restart(cluster.data, "--rolling")
        writers.wait_acknowledged(len(writers.acknowledged) + 8)
    finally:
        writers.stop()
    assert done.returncode == 0, done.stdout + done.stderr + cluster.logs()
    assert readers.failed == []
    assert readers.answered > 0
    assert writers.unknown == set()
    status = cluster.status()
    after = {row["id"]: row["pid"] for row in status["nodes"]}
    assert after.keys() == before.keys()
    assert all(after[name] != before[name] for name in before)
    assert all(row["ready"] for row in status["nodes"])
    assert status["balancer"]["pid"] == balancer
    assert set(cluster.assert_replicas_equal(collection_id)) == set(writers.acknowledged)


def test_a_node_whose_chroma_was_replaced_is_compared_before_the_next_goes(cluster: RunningCluster) -> None:
    """As far as each node knows its files were written by another version: its engine may migrate them."""
    for row in cluster.status()["nodes"]:
        (cluster.data / row["id"] / "chroma.version").write_text("1.0.0")
    done = restart(cluster.data, "--rolling")
    assert done.returncode == 0, done.stdout + done.stderr + cluster.logs()
    version = importlib.metadata.version("chromadb")
    for row in cluster.status()["nodes"]:
        folder = cluster.data / row["id"]
        assert row["state"] == "ready"
        # Noted when a verification had found the node equal, for which the command waited.
        assert (folder / "chroma.version").read_text() == version
        said = "unverified: The files of this node's Chroma are of chromadb 1.0.0 and are opened by chromadb"
        assert f"{said} {version}" in cluster.directory.log_file(row["id"]).read_text()


def test_nothing_is_restarted_while_a_node_is_away(cluster: RunningCluster) -> None:
    away = cluster.followers()[0]
    before = {row["id"]: row["pid"] for row in cluster.status()["nodes"]}
    cluster.kill(away)
    try:
        refused = restart(cluster.data, "--rolling")
        assert refused.returncode == 1
        assert f"Nothing was restarted: {away['id']} is not ready" in refused.stderr
        left = {row["id"]: row["pid"] for row in cluster.status()["nodes"] if row["id"] != away["id"]}
        assert left == {name: pid for name, pid in before.items() if name != away["id"]}
    finally:
        cluster.up()


def test_a_node_that_does_not_come_back_ends_it_and_the_others_are_left_alone(
    cluster: RunningCluster,
) -> None:
    before = {row["id"]: row["pid"] for row in cluster.status()["nodes"]}
    first = min(row["id"] for row in cluster.followers())
    state = cluster.data / first / "state.sqlite"
    # The running process has its file open; the next one finds a directory in its place.
    kept = state.rename(state.with_suffix(".kept"))
    state.mkdir()
    try:
        ended = restart(cluster.data, "--rolling")
        assert ended.returncode == 1, ended.stdout
        assert f"{first} was restarted and is not back" in ended.stderr
        assert "Restarted before it: none" in ended.stderr
        rows = cluster.status()["nodes"]
        assert {row["id"]: row["pid"] for row in rows if row["id"] != first} == {
            name: pid for name, pid in before.items() if name != first
        }
    finally:
        state.rmdir()
        kept.rename(state)
        cluster.up()


def test_it_is_rolling_or_nothing(cluster: RunningCluster) -> None:
    refused = restart(cluster.data)
    assert refused.returncode == 2
    assert "--rolling" in refused.stderr
