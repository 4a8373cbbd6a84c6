"""A node that is left goes on alone, as a cluster of its own; nothing of the old one comes back into it."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

import pytest

from cluster.cli.plan import new_plan
from cluster.cli.recover import alone, examine, recover, words
from cluster.errors import Fault
from cluster.lock import DirectoryLock
from cluster.raft.journal import Journal
from cluster.raft.meta import Standing
from cluster.raft.raft import RaftNode

if TYPE_CHECKING:
    from pathlib import Path


def left_over(folder: Path, node_id: str = "node-2") -> Path:
    """A node of three that holds five entries and knows of three that they were committed."""
    folder.mkdir(parents=True)
    founders = ["node-1", "node-2", "node-3"]
    journal = Journal.open(folder / "raft.sqlite", "old", node_id, members=founders, incarnation="life")
    journal.set_term(4, "node-3")
    for number in range(5):
        journal.append(4, b"entry %d" % number)
    journal.flush()
    journal.set_commit(3)
    journal.append(4, b"last")
    journal.flush()
    journal.close()
    return folder


def test_what_is_kept_and_what_may_be_lost_is_said_and_nothing_changed(tmp_path: Path) -> None:
    folder = left_over(tmp_path / "node-2")
    before = (folder / "raft.sqlite").read_bytes()
    said = words(examine(folder))
    assert "up to 6, also" in said
    assert "node-1, node-3" in said
    assert (folder / "raft.sqlite").read_bytes() == before


def test_it_leads_alone_with_everything_and_the_old_ones_stay_out(tmp_path: Path) -> None:
    folder = left_over(tmp_path / "node-2")
    (tmp_path / "cluster.json").write_text(new_plan(3, 8000, range(20000, 20010)).to_json())
    cluster_id = recover(folder)
    journal = Journal.open(folder / "raft.sqlite", cluster_id, "node-2")
    assert journal.configuration.voters == {"node-2"}
    assert journal.former_configuration is None
    assert (journal.standing, journal.term, journal.vote) == (Standing.VOTER, 5, None)
    assert journal.incarnation != "life"
    journal.close()
    with pytest.raises(Fault, match="belongs to node node-2 of cluster"):
        Journal.open(folder / "raft.sqlite", "old", "node-2")
    plan = json.loads((tmp_path / "cluster.json").read_text())
    assert (plan["cluster"], [node["id"] for node in plan["nodes"]]) == (cluster_id, ["node-2"])
    node = RaftNode(
        "node-2", {"node-2": ("127.0.0.1", 1)}, ("127.0.0.1", 0), folder / "raft.sqlite", cluster_id, b"s"
    )
    node.start()
    try:
        deadline = time.monotonic() + 20
        while node.status().role != "leader" and time.monotonic() < deadline:
            node.wait_commit(10**9, 0.02)
        position = node.propose(b"after").result(20)
        kept = [entry.payload for entry in node.entries(1, 1 << 20) if entry.payload]
        assert kept == [*(b"entry %d" % number for number in range(5)), b"last", b"after"]
        assert position.index > 7
    finally:
        node.stop()


def test_a_node_that_runs_or_is_none_is_not_touched(tmp_path: Path) -> None:
    folder = left_over(tmp_path / "node-2")
    with DirectoryLock(folder), pytest.raises(Fault, match="in use by process"):
        recover(folder)
    with pytest.raises(Fault, match="There is no journal"):
        recover(tmp_path)
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "raft.sqlite").write_bytes(b"not a database" * 100)
    with pytest.raises(Fault, match=r"cannot be read|damaged"):
        recover(tmp_path / "bad")


def test_founders_of_the_old_cluster_are_none_of_the_new() -> None:
    plan = new_plan(3, 8000, range(20000, 20010)).without_node("node-1")
    assert [node.id for node in alone(plan, "node-3", "new").founders] == ["node-3"]
