"""Bugs that were planted in the log and found by nothing else: each test fails with its own and only then."""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING

import pytest

from cluster.raft.journal import Journal
from cluster.raft.messages import Accepted, HeartbeatReply, TimeoutNow
from tests.unit.raft_net import Net
from tests.unit.test_raft_node import Bench, entries

if TYPE_CHECKING:
    from pathlib import Path


def test_what_a_follower_acknowledged_counts_only_on_its_connection() -> None:
    bench = Bench()
    term = bench.lead()
    index, _ = bench.node.propose(b"x")
    bench.wait(0)
    bench.say("n2", Accepted(term, index))
    assert bench.node.match_indices()["n2"] == index
    bench.net.wires["n1"].disconnected(bench.node.peers["n2"])
    assert bench.node.match_indices()["n2"] == 0
    bench.connect("n2")
    assert bench.node.match_indices()["n2"] == 0


def test_leadership_goes_to_a_follower_only_when_it_holds_everything() -> None:
    bench = Bench()
    term = bench.lead()
    index, _ = bench.node.propose(b"x")
    bench.wait(0)
    bench.say("n2", Accepted(term, index - 1))
    bench.node.transfer()
    assert not any(isinstance(message, TimeoutNow) for _, message in bench.wait(0))
    said = bench.say("n2", Accepted(term, index))
    assert [peer for peer, message in said if isinstance(message, TimeoutNow)] == ["n2"]


def test_a_node_with_a_fault_accepts_no_leadership() -> None:
    from cluster.raft.messages import Append

    bench = Bench()
    bench.say("n2", Append(3, 0, 0, 0, 0, entries(1, 1)))
    bench.node.bar("its engine is broken")
    bench.say("n2", TimeoutNow(3))
    assert (bench.node.role, bench.node.term) == ("follower", 3)


def test_a_leader_that_steps_down_was_in_touch_when_a_majority_last_answered() -> None:
    bench = Bench()
    term = bench.lead()
    bench.wait(0.2)
    began = bench.net.now
    number = bench.node.reads.number
    bench.say("n2", HeartbeatReply(term, number))
    bench.wait(0.3)
    bench.wait(0.3)
    contact = bench.node.quorum_contact_s()
    assert contact <= began
    bench.node.become_follower(term, None)
    assert bench.node.quorum_contact_s() == contact


def test_freshness_of_a_leader_is_that_of_a_majority_not_of_its_best_follower() -> None:
    net = Net(5)
    leader = net.leader()
    assert net.run(3, net.converged)
    best, *others = (node_id for node_id in net.ids if node_id != leader.node_id)
    cut_at = net.now
    for other in others:
        net.cut(leader.node_id, other, notice=False)
    net.run(0.8)
    assert leader.is_leader
    assert leader.is_connected(best)
    assert leader.quorum_contact_s() <= cut_at


def test_the_mark_never_runs_ahead_of_the_transaction(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A commit that failed must not be remembered as durable: the journal would be refused as damaged."""
    path = tmp_path / "raft.sqlite"
    journal = Journal.open(path, "c", "n1")
    journal.append(1, b"kept")
    journal.flush()

    def fail(point: str) -> None:
        if point == "journal.before_fsync":
            raise sqlite3.OperationalError("disk I/O error")

    monkeypatch.setattr("cluster.raft.storage.failpoint", fail)
    journal.append(1, b"lost")
    with pytest.raises(sqlite3.OperationalError):
        journal.flush()
    journal.close()
    monkeypatch.undo()
    again = Journal.open(path, "c", "n1")
    assert again.last_index == 1
    again.close()
