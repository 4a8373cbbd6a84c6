"""Real nodes that lost their memory or their peers: refused or harmless, and nothing acknowledged is lost."""

from __future__ import annotations

import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from evaluation.raft.cluster import RaftCluster, eventually, free_ports

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.slow


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[RaftCluster]:
    made = RaftCluster(tmp_path)
    yield made
    made.close()


def _files(cluster: RaftCluster, node_id: str) -> list[Path]:
    return list(cluster.folder.glob(f"{node_id}.sqlite*"))


def _wipe(cluster: RaftCluster, node_id: str) -> None:
    for path in _files(cluster, node_id):
        path.unlink()


def _acknowledged_without(cluster: RaftCluster, away: str) -> list[str]:
    """50 writes, acknowledged by the two others."""
    cluster.kill(away)
    texts = [f"kept-{number}" for number in range(50)]
    for text in texts:
        cluster.write(text)
    return texts


def test_a_wiped_node_elects_nobody_who_lacks_what_was_acknowledged(cluster: RaftCluster) -> None:
    cluster.start()
    cluster.write("first")
    cluster.agree()
    away = "b"
    texts = _acknowledged_without(cluster, away)
    leader = cluster.leader()
    wiped = next(node_id for node_id in ("a", "c") if node_id != leader)
    cluster.kill(wiped, leader)
    _wipe(cluster, wiped)
    cluster.start(away, wiped)
    eventually(lambda: cluster.status(away)["connected"] == [wiped], 20, "they are connected")
    term = cluster.status(away)["term"]
    eventually(lambda: cluster.status(away)["role"] == "candidate", 20, "it asks for votes")
    # Several elections' time: what a leader without the entries would need is a single one.
    with pytest.raises(AssertionError, match="not within"):
        eventually(lambda: "leader" in [cluster.status(it)["role"] for it in (away, wiped)], 6)
    assert cluster.status(away)["term"] == term
    assert cluster.status(wiped)["hint"].startswith("new here")
    cluster.start(leader)
    cluster.write("after")
    cluster.agree()
    for node_id in cluster.ids:
        assert set(texts) <= set(cluster.texts(node_id))
    eventually(lambda: cluster.status(wiped)["hint"] is None, 20, "it has a vote again")
    # And now its vote is worth one again: with it alone beside, the log goes on.
    cluster.kill(leader)
    cluster.write("with its vote")


def test_an_old_copy_has_no_vote_until_it_has_caught_up(cluster: RaftCluster, tmp_path: Path) -> None:
    cluster.start()
    cluster.write("first")
    cluster.agree()
    leader = cluster.leader()
    copied, other = (node_id for node_id in cluster.ids if node_id != leader)
    cluster.kill(copied)
    (tmp_path / "copy").mkdir()
    for path in _files(cluster, copied):
        shutil.copy(path, tmp_path / "copy")
    cluster.start(copied)
    cluster.agree()
    cluster.kill(other)
    for number in range(20):
        cluster.write(f"kept-{number}")
    cluster.kill(copied)
    _wipe(cluster, copied)
    for path in (tmp_path / "copy").iterdir():
        shutil.copy(path, cluster.folder)
    cluster.start(copied)
    eventually(lambda: "once acknowledged" in (cluster.status(copied)["hint"] or ""), 20, "it has no vote")
    # With it alone the leader has no majority any more; with the third it has, and lets it in.
    cluster.start(other)
    eventually(lambda: cluster.status(copied)["hint"] is None, 30, "it has a vote again")
    cluster.agree()
    assert {f"kept-{number}" for number in range(20)} <= set(cluster.texts(copied))


def test_new_nodes_wait_for_all_of_them(cluster: RaftCluster) -> None:
    cluster.start("a", "c")
    eventually(lambda: cluster.status("a")["hint"] == "founding waits for b", 20, "the hint")
    cluster.start("b")
    cluster.write("first")


def test_other_members_than_it_was_founded_with_are_refused(tmp_path: Path) -> None:
    ports = free_ports(6)
    data = tmp_path / "node-1"
    base = [sys.executable, "-m", "cluster", "node", "--id", "node-1", "--cluster-id", "c"]
    base += ["--secret", "of a test"]
    base += ["--data-dir", str(data), "--http", f"127.0.0.1:{ports[0]}", "--raft", f"127.0.0.1:{ports[1]}"]
    peers = [
        flag
        for number, raft, http in ((2, ports[2], ports[3]), (3, ports[4], ports[5]))
        for flag in ("--peer", f"node-{number}=127.0.0.1:{raft},http://127.0.0.1:{http}")
    ]
    log = tmp_path / "node.log"
    with log.open("wb") as out:
        running = subprocess.Popen([*base, *peers], stdout=out, stderr=out)
    try:
        eventually(lambda: b"serves on" in log.read_bytes(), 60, "it serves")
    finally:
        running.terminate()
        running.wait(30)
    before = {path: path.read_bytes() for path in data.glob("raft.sqlite*")}
    for given, words in ((peers[:0], "node-2, node-3 missing"), (peers[:2], "node-3 missing")):
        done = subprocess.run([*base, *given], capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 1
        assert words in done.stderr
        assert "Nothing was changed" in done.stderr
        assert {path: path.read_bytes() for path in data.glob("raft.sqlite*")} == before
