"""pysyncobj 0.3.17 itself does what `docs/raft.md` says it does: the reasons for `cluster/raft/node.py`.

Each test hands an unmodified SyncObj the messages that `test_raft_node.py` hands to ours. If one of them
fails after an upgrade, the hazard may be gone: read the change, then simplify.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from pysyncobj import SyncObj, SyncObjConf
from pysyncobj.node import Node
from pysyncobj.transport import Transport

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

NO_OP = b"\x01"


class Ear(Transport):
    """Takes down what the node sends and puts messages in."""

    def __init__(self) -> None:
        super().__init__(None, None, ())
        self.sent: list[tuple[str, dict[str, Any]]] = []

    def send(self, node: Node, message: dict[str, Any]) -> bool:
        self.sent.append((node.id, message))
        return True

    def said(self, kind: str) -> list[dict[str, Any]]:
        return [message for _, message in self.sent if message["type"] == kind]


class Stock:
    def __init__(self, monkeypatch: pytest.MonkeyPatch, journal: Path | None = None) -> None:
        self.now = 100.0
        monkeypatch.setattr("pysyncobj.syncobj.monotonicTime", lambda: self.now)
        self.ear = Ear()
        self.peers = {name: Node(name) for name in ("n2", "n3")}
        conf = SyncObjConf(
            autoTick=False,
            raftMinTimeout=1.0,
            raftMaxTimeout=2.0,
            journalFile=None if journal is None else str(journal),
        )
        self.node = SyncObj(Node("n1"), list(self.peers.values()), conf=conf, transport=self.ear)
        for peer in self.peers.values():
            self.ear._onNodeConnected(peer)

    def say(self, peer: str, **message: Any) -> None:
        self.ear._onMessageReceived(self.peers[peer], message)

    def append(
        self, peer: str, term: int, prev: tuple[int, int], commit: int, *entries: tuple[bytes, int, int]
    ) -> None:
        self.say(
            peer,
            type="append_entries",
            term=term,
            prevLogIdx=prev[0],
            prevLogTerm=prev[1],
            commit_index=commit,
            entries=list(entries),
        )

    def lead(self) -> int:
        while not self.node._isLeader():
            self.now += 3
            self.node.doTick(0)
            self.say("n2", type="response_vote", term=self.node.raftCurrentTerm)
        return self.node.raftCurrentTerm

    @property
    def last_index(self) -> int:
        return self.node._SyncObj__raftLog[-1][1]  # type: ignore[attr-defined]


def test_1_an_ack_without_a_term_commits_in_any_term(monkeypatch: pytest.MonkeyPatch) -> None:
    stock = Stock(monkeypatch)
    stock.lead()
    before = stock.node.raftCommitIndex
    delayed = {
        "type": "next_node_idx",
        "next_node_idx": stock.last_index + 1,
        "reset": False,
        "success": True,
    }
    stock.say("n2", **delayed)  # might be of any earlier term: nothing in it says so
    stock.node.doTick(0)
    assert stock.node.raftCommitIndex > before


def test_2_an_old_append_drops_committed_entries(monkeypatch: pytest.MonkeyPatch) -> None:
    stock = Stock(monkeypatch)
    entries = [(NO_OP, index, 1) for index in range(2, 6)]
    stock.append("n2", 1, (1, 0), 5, *entries)
    assert (stock.last_index, stock.node.raftCommitIndex) == (5, 5)
    stock.append("n2", 1, (1, 0), 5, *entries[:1])
    assert stock.last_index == 2


def test_2b_each_pipelined_append_is_answered_with_another_reset(monkeypatch: pytest.MonkeyPatch) -> None:
    stock = Stock(monkeypatch)
    stock.append("n2", 1, (1, 0), 1, *[(NO_OP, index, 1) for index in range(2, 101)])
    stock.ear.sent.clear()
    stock.append("n3", 3, (100, 2), 1, (NO_OP, 101, 3))
    stock.append("n3", 3, (101, 3), 1, (NO_OP, 102, 3))
    answers = [(answer["next_node_idx"], answer["reset"]) for answer in stock.ear.said("next_node_idx")]
    assert answers == [(100, True), (101, True)]  # the second one takes the leader back to where it was


def test_3_a_vote_is_promised_without_an_fsync(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    synced: list[int] = []
    for name in ("fsync", "fdatasync"):
        monkeypatch.setattr(os, name, synced.append)
    stock = Stock(monkeypatch, tmp_path / "journal")
    stock.say("n2", type="request_vote", term=5, last_log_index=1, last_log_term=0)
    assert stock.ear.said("response_vote")
    stock.append("n2", 5, (1, 0), 1, (NO_OP, 2, 5))
    assert stock.ear.said("next_node_idx")[-1]["success"]
    assert synced == []
    stock.node.destroy()


def test_6_a_cut_off_leader_still_believes_after_25_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    stock = Stock(monkeypatch)
    stock.lead()
    stock.now += 25
    stock.node.doTick(0)
    assert stock.node._isLeader()


def test_7_anybody_with_a_higher_term_deposes_a_healthy_leader(monkeypatch: pytest.MonkeyPatch) -> None:
    stock = Stock(monkeypatch)
    term = stock.lead()
    stock.say("n3", type="request_vote", term=term + 7, last_log_index=99, last_log_term=99)
    assert not stock.node._isLeader()
    assert stock.node.raftCurrentTerm == term + 7
