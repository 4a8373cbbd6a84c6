"""The node against each hazard of pysyncobj 0.3.17, message by message, on a simulated clock."""

from __future__ import annotations

import random
import sqlite3
from typing import TYPE_CHECKING

import pytest

from cluster.errors import NotLeader
from cluster.raft.following import Following
from cluster.raft.hand_over import MAX_LAG
from cluster.raft.interface import Lack
from cluster.raft.journal import Journal, checksum
from cluster.raft.messages import (
    Accepted,
    Append,
    Heartbeat,
    HeartbeatReply,
    Hello,
    PreVote,
    PreVoteReply,
    Rejected,
    TimeoutNow,
    Unservable,
    Vote,
    VoteReply,
    WireEntry,
)
from cluster.raft.meta import Standing
from cluster.raft.node import CorrectedNode
from cluster.raft.outbox import Outbox
from cluster.raft.settings import RaftSettings
from tests.unit.raft_net import Disk, Net

if TYPE_CHECKING:
    from typing import Any


def entries(first: int, *terms: int, text: str = "e") -> tuple[WireEntry, ...]:
    made: list[WireEntry] = []
    for offset, term in enumerate(terms):
        payload = f"{text}{first + offset}".encode()
        made.append(WireEntry(term, checksum(first + offset, term, payload), payload))
    return tuple(made)


class Bench:
    """One node (n1 of three) with hand-made peers: `say` puts a message in, `said` takes replies out."""

    def __init__(self, disk: Disk | None = None) -> None:
        self.net = Net(3)
        for node_id in ("n2", "n3"):
            self.net.crash(node_id)
        if disk is not None:
            self.net.disks["n1"] = disk
            self.net.restart("n1")
        self.disk = self.net.disks["n1"]
        self.node = self.net.nodes["n1"]
        self.out: list[tuple[str, Any]] = []
        self.net.intercept = self._take
        for peer in ("n2", "n3"):
            self.connect(peer)

    def connect(self, peer: str) -> None:
        """A new connection, on which the peer says that it is a voter."""
        self.net.wires["n1"].connected(self.node.peers[peer])
        self.net.wires["n1"].receive(self.node.peers[peer], Hello(0, peer, Standing.VOTER, 10**6, "n1"))

    def _take(self, _source: str, target: str, message: Any) -> bool:
        if not isinstance(message, Hello):
            self.out.append((target, message))
        return False

    def say(self, peer: str, *messages: Any, tick: bool = True) -> list[tuple[str, Any]]:
        for message in messages:
            self.net.wires["n1"].receive(self.node.peers[peer], message)
        if tick:
            self.node.doTick(0)
        return self.said()

    def said(self) -> list[tuple[str, Any]]:
        out, self.out = self.out, []
        return out

    def wait(self, seconds: float) -> list[tuple[str, Any]]:
        self.net.now += seconds
        self.node.doTick(0)
        return self.said()

    def lead(self) -> int:
        """Make n1 leader; the term."""
        heard = self.wait(3)
        while not self.node.is_leader:
            peer, message = heard.pop(0) if heard else ("", None)
            if isinstance(message, PreVote):
                heard += self.say(peer, PreVoteReply(message.term, message.proposed, True))
            elif isinstance(message, Vote):
                heard += self.say(peer, VoteReply(message.term, True))
            elif message is None:
                heard += self.wait(3)
        self.said()
        return self.node.term

    @property
    def log(self) -> list[tuple[int, int]]:
        journal = self.node.journal
        return [(row.index, row.term) for row in journal.read(1, journal.last_index, 1 << 30)]


# ---------------------------------------------------------------- hazards 1, 2, 2b: acks and truncation


def test_an_ack_of_an_earlier_term_does_not_count() -> None:
    bench = Bench()
    term = bench.lead()
    index, _ = bench.node.propose(b"x")
    bench.wait(0)
    bench.say("n2", Accepted(term - 1, index))
    assert bench.node.commit_index == 0
    assert bench.node.match_indices()["n2"] == 0
    bench.say("n2", Accepted(term, index))
    assert bench.node.commit_index == index


def test_an_old_append_drops_nothing_that_follows_it() -> None:
    bench = Bench()
    whole = entries(1, 1, 1, 1, 1)
    bench.say("n2", Append(1, 0, 0, 4, 0, whole))
    assert bench.node.commit_index == 4
    reply = bench.say("n2", Append(1, 0, 0, 1, 0, whole[:1]))
    assert len(bench.log) == 4
    assert bench.node.commit_index == 4
    assert reply == [("n2", Accepted(1, 4))]
    bench.say("n2", Append(1, 0, 0, 0, 0, ()))
    assert len(bench.log) == 4


def test_the_log_is_cut_at_the_conflict_and_only_there() -> None:
    bench = Bench()
    bench.say("n2", Append(1, 0, 0, 2, 0, entries(1, 1, 1, 1, 1, 1)))
    bench.say("n3", Append(2, 1, 1, 2, 0, entries(2, 1, 1, 2, text="f")))
    assert bench.log == [(1, 1), (2, 1), (3, 1), (4, 2)]
    assert bench.node.journal.read(2, 2, 1)[0].payload == b"e2"


def test_a_conflict_at_or_below_the_commit_index_stops_the_node() -> None:
    bench = Bench()
    bench.say("n2", Append(1, 0, 0, 3, 0, entries(1, 1, 1, 1)))
    said = bench.say("n3", Append(2, 1, 1, 3, 0, entries(2, 2)))
    assert said == []
    assert bench.node.role == "stopped"
    assert bench.node.fault is not None
    assert "committed" in bench.node.fault
    assert bench.log == [(1, 1), (2, 1), (3, 1)]


def test_a_conflicting_committed_prev_entry_stops_the_node() -> None:
    bench = Bench()
    bench.say("n2", Append(1, 0, 0, 2, 0, entries(1, 1, 1)))
    bench.say("n3", Append(3, 2, 2, 2, 0, ()))
    assert bench.node.role == "stopped"


def test_only_verified_entries_are_committed() -> None:
    """What follows the last verified entry may be somebody else's: the commit index stops there."""
    bench = Bench()
    bench.say("n2", Append(1, 0, 0, 0, 0, entries(1, 1, 1, 1)))
    bench.say("n3", Heartbeat(2, 3, 0, 1))
    assert bench.node.commit_index == 0
    bench.say("n3", Append(2, 1, 1, 3, 0, ()))
    assert bench.node.commit_index == 1
    bench.say("n3", Heartbeat(2, 3, 0, 2))
    assert bench.node.commit_index == 1
    bench.say("n3", Append(2, 1, 1, 3, 0, entries(2, 2, 2)))
    assert bench.node.commit_index == 3


def test_a_conflict_is_walked_back_a_term_at_a_time() -> None:
    bench = Bench()
    bench.say("n2", Append(3, 0, 0, 0, 0, entries(1, 1, 1, 2, 2, 2, 3, 3)))
    assert bench.say("n3", Append(5, 20, 4, 0, 0, ())) == [("n3", Rejected(5, 20, 8, 0))]
    assert bench.say("n3", Append(5, 7, 4, 0, 0, ())) == [("n3", Rejected(5, 7, 6, 3))]
    assert bench.say("n3", Append(5, 5, 4, 0, 0, ())) == [("n3", Rejected(5, 5, 3, 2))]
    assert bench.say("n3", Append(5, 2, 1, 0, 0, ())) == [("n3", Accepted(5, 2))]


def test_a_leader_obeys_the_rejection_of_its_last_probe_and_no_other() -> None:
    """Pipelined appends are all refused; only one refusal may move the leader (hazard 2b)."""
    bench = Bench()
    bench.say("n2", Append(1, 0, 0, 0, 0, entries(1, *[1] * 100)))
    bench.wait(5)
    term = bench.lead()
    probe = bench.node.replication.progress["n3"].next_index - 1
    assert probe == 100
    bench.say("n3", Rejected(term, 100, 51, 0), tick=False)
    bench.say("n3", Rejected(term, 100, 99, 0), tick=False)
    bench.say("n3", Rejected(term, 101, 100, 0), tick=False)
    said = bench.say("n3")
    appends = [message for peer, message in said if peer == "n3" and isinstance(message, Append)]
    assert [message.prev_index for message in appends] == [50]


def test_a_stale_rejection_never_rewinds_below_what_is_matched() -> None:
    bench = Bench()
    term = bench.lead()
    for _ in range(10):
        bench.node.propose(b"x")
    bench.wait(0)
    bench.say("n2", Accepted(term, 8))
    bench.say("n2", Rejected(term, 5, 2, 0))
    progress = bench.node.replication.progress["n2"]
    assert progress.match == 8
    assert not progress.probing
    bench.say("n2", Rejected(term, 9, 2, 0))
    assert progress.next_index == 9


@pytest.mark.parametrize("entry_bytes", [500, 6000])
def test_a_node_with_a_conflicting_tail_always_rejoins(entry_bytes: int) -> None:
    """Hazard 2b's recipe: pysyncobj's follower answers each pipelined append and never gets back."""
    net = Net(3, settings=RaftSettings(append_bytes=64 * 1024))
    old = net.leader().node_id
    others = [node_id for node_id in net.ids if node_id != old]
    net.commit(b"first")
    for node_id in others:
        net.crash(node_id)
    for _ in range(3):
        net.nodes[old].propose(bytes(entry_bytes))
    net.tick(old)
    net.crash(old)
    for node_id in others:
        net.start(node_id)
    for _ in range(20 if entry_bytes > 1000 else 200):
        net.commit(bytes(entry_bytes))
    net.restart(net.leader().node_id)
    net.leader()
    net.start(old)
    assert net.run(10, net.converged)


# ---------------------------------------------------------------- hazard 3: fsync before promises


def test_no_promise_leaves_before_its_fsync() -> None:
    bench = Bench()
    written: list[int] = []
    bench.disk.on_write = lambda batch: written.append(len(bench.out))
    said = bench.say("n2", Append(1, 0, 0, 0, 0, entries(1, 1)))
    assert written == [0]
    assert said == [("n2", Accepted(1, 1))]
    bench.wait(3)
    bench.said()
    written.clear()
    said = bench.say("n3", Vote(9, 1, 1, False))
    assert written == [0]
    assert said == [("n3", VoteReply(9, True))]


@pytest.mark.parametrize(
    "message", [Append(4, 0, 0, 0, 0, entries(1, 4)), Vote(4, 9, 9, True), Heartbeat(4, 0, 0, 1)]
)
def test_a_node_whose_disk_fails_promises_nothing_and_stops(message: Any) -> None:
    bench = Bench()
    bench.disk.fail = sqlite3.OperationalError("database or disk is full")
    assert bench.say("n2", message) == []
    assert bench.node.role == "stopped"
    assert "disk is full" in (bench.node.fault or "")
    assert bench.wait(10) == []


def test_a_leader_whose_disk_fails_hands_over() -> None:
    net = Net(3)
    leader = net.leader()
    net.commit(b"a")
    net.disks[leader.node_id].fail = OSError("disk I/O error")
    leader.propose(b"b")
    net.tick(leader.node_id)
    assert leader.role == "stopped"
    began = net.now
    other = net.leader()
    assert other.node_id != leader.node_id
    assert net.now - began < 0.5
    net.commit(b"c")


def test_a_leader_counts_itself_only_after_its_fsync() -> None:
    bench = Bench()
    term = bench.lead()
    bench.wait(0)
    bench.say("n2", Accepted(term, 1))
    index, _ = bench.node.propose(b"x")
    bench.disk.fail = OSError("disk I/O error")
    bench.say("n2", Accepted(term, index))
    assert bench.node.commit_index == 1


def test_a_vote_survives_a_restart() -> None:
    bench = Bench()
    assert bench.say("n2", Vote(5, 0, 0, False)) == [("n2", VoteReply(5, True))]
    again = Bench(bench.disk)
    assert again.say("n3", Vote(5, 0, 0, False)) == [("n3", VoteReply(5, False))]
    assert again.say("n2", Vote(5, 0, 0, False)) == [("n2", VoteReply(5, True))]


def test_own_vote_survives_a_restart_too() -> None:
    bench = Bench()
    bench.wait(0.2)
    bench.say("n2", PreVoteReply(0, 1, True))
    assert bench.node.term == 1
    again = Bench(bench.disk)
    assert again.say("n3", Vote(1, 0, 0, False)) == [("n3", VoteReply(1, False))]


# ---------------------------------------------------------------- commit rule


def test_an_entry_of_an_earlier_term_is_committed_only_through_an_own_one() -> None:
    bench = Bench()
    bench.say("n2", Append(1, 0, 0, 0, 0, entries(1, 1, 1)))
    bench.wait(5)
    term = bench.lead()
    bench.wait(0)
    bench.say("n2", Accepted(term, 2))
    assert bench.node.commit_index == 0
    bench.say("n2", Accepted(term, 3))
    assert bench.node.commit_index == 3


def test_a_vote_twice_is_one_vote() -> None:
    net = Net(5)
    for node_id in net.ids[1:]:
        net.crash(node_id)
    node = net.nodes["n1"]
    net.intercept = lambda *_: False
    for peer in node.peers.values():
        net.wires["n1"].connected(peer)
    net.tick("n1")
    net.now += 3
    net.tick("n1")
    for _ in range(5):
        net.wires["n1"].receive(node.peers["n2"], PreVoteReply(0, 1, True))
    net.tick("n1")
    assert node.term == 0
    net.wires["n1"].receive(node.peers["n3"], PreVoteReply(0, 1, True))
    net.tick("n1")
    assert node.term == 1
    for _ in range(5):
        net.wires["n1"].receive(node.peers["n2"], VoteReply(1, True))
        net.tick("n1")
    assert not node.is_leader


def test_a_shorter_log_gets_no_vote() -> None:
    bench = Bench()
    bench.say("n2", Append(2, 0, 0, 0, 0, entries(1, 1, 2)))
    bench.wait(5)
    assert bench.say("n3", Vote(7, 9, 1, False)) == [("n3", VoteReply(7, False))]
    assert bench.say("n3", Vote(7, 1, 2, False)) == [("n3", VoteReply(7, False))]
    assert bench.say("n3", Vote(7, 2, 2, False)) == [("n3", VoteReply(7, True))]


# ---------------------------------------------------------------- hazards 6, 7: who leads


def test_a_node_back_from_a_partition_does_not_depose_the_leader() -> None:
    net = Net(3)
    leader = net.leader()
    assert net.run(2, net.converged)
    term = leader.term
    away = next(node_id for node_id in net.ids if node_id != leader.node_id)
    net.isolate(away, notice=False)
    net.run(30)
    assert net.nodes[away].term == term
    net.heal()
    net.run(5)
    assert net.leader() is leader
    assert leader.term == term
    assert net.nodes[away].leader_id == leader.node_id


def test_one_cut_link_to_the_leader_changes_nothing_for_the_others() -> None:
    for seed in range(10):
        for notice in (True, False):
            net = Net(3, seed)
            leader = net.leader()
            assert net.run(2, net.converged)
            term = leader.term
            one, other = (node_id for node_id in net.ids if node_id != leader.node_id)
            net.cut(leader.node_id, one, notice=notice)
            net.run(20)
            assert leader.is_leader
            assert leader.term == term
            assert net.nodes[other].leader_id == leader.node_id
            net.commit(b"still")
            net.heal()
            assert net.run(5, net.converged)


def test_a_cut_off_leader_steps_down_within_one_election_timeout() -> None:
    net = Net(3)
    leader = net.leader()
    began = net.now
    net.isolate(leader.node_id, notice=False)
    assert net.run(2, lambda: not leader.is_leader)
    assert net.now - began <= net.settings.election_timeout_ms[1] / 1000
    with pytest.raises(NotLeader):
        leader.propose(b"x")


def test_a_killed_leader_is_replaced_at_once_and_a_black_hole_within_the_timeout() -> None:
    for seed in range(20):
        net = Net(3, seed)
        leader = net.leader()
        net.run(1)
        began = net.now
        net.crash(leader.node_id)
        net.leader()
        assert net.now - began < 0.8
    for seed in range(20):
        net = Net(3, seed)
        leader = net.leader()
        net.run(1)
        began = net.now
        net.isolate(leader.node_id, notice=False)
        assert net.run(
            5, lambda net=net, old=leader: any(n.is_leader and n is not old for n in net.nodes.values())
        )
        assert net.now - began < 3


def test_a_heard_leader_makes_voters_deaf_to_others() -> None:
    bench = Bench()
    bench.say("n2", Append(3, 0, 0, 0, 0, entries(1, 3)))
    assert bench.say("n3", PreVote(3, 4, 9, 9)) == [("n3", PreVoteReply(3, 4, False))]
    assert bench.say("n3", Vote(4, 9, 9, False)) == [("n3", VoteReply(3, False))]
    assert bench.node.term == 3
    assert bench.say("n3", Vote(4, 9, 9, True)) == [("n3", VoteReply(4, True))]


def test_a_pre_vote_changes_nothing() -> None:
    bench = Bench()
    bench.wait(0)
    writes = bench.disk.writes
    assert bench.say("n3", PreVote(3, 40, 9, 9)) == [("n3", PreVoteReply(0, 40, True))]
    assert bench.node.term == 0
    assert bench.disk.writes == writes


def test_a_message_of_an_old_leader_tells_it_the_new_term() -> None:
    bench = Bench()
    bench.say("n2", Append(3, 0, 0, 0, 0, entries(1, 3)))
    assert bench.say("n3", Heartbeat(2, 9, 0, 1)) == [("n3", Rejected(3, 0, 0, 0))]
    assert bench.node.leader_id == "n2"
    other = Bench()
    other.lead()
    other.say("n3", Rejected(9, 0, 0, 0))
    assert (other.node.role, other.node.term) == ("follower", 9)


# ---------------------------------------------------------------- read index


def test_a_read_index_needs_a_round_that_began_after_the_call() -> None:
    bench = Bench()
    term = bench.lead()
    bench.wait(0)
    bench.say("n2", Accepted(term, 1))
    answers: list[int | None] = []
    bench.wait(0.15)
    earlier = bench.node.reads.number
    bench.node.read_index(answers.append)
    bench.wait(0)
    bench.say("n2", HeartbeatReply(term, earlier))
    assert answers == []
    bench.say("n2", HeartbeatReply(term, earlier + 1))
    assert answers == [1]
    bench.node.read_index(answers.append)
    bench.node.read_index(answers.append)
    bench.say("n2", HeartbeatReply(term, earlier + 1))
    assert answers == [1]
    bench.say("n2", HeartbeatReply(term - 1, earlier + 2))
    assert answers == [1]
    bench.say("n3", HeartbeatReply(term, earlier + 2))
    assert answers == [1, 1, 1]


def test_a_read_waits_for_a_commit_in_the_own_term() -> None:
    bench = Bench()
    term = bench.lead()
    answers: list[int | None] = []
    bench.node.read_index(answers.append)
    bench.wait(0.15)
    for number in range(1, 4):
        bench.say("n2", HeartbeatReply(term, number))
    assert answers == []
    bench.say("n2", Accepted(term, 1))
    bench.say("n2", HeartbeatReply(term, bench.node.reads.number))
    assert answers == [1]


def test_reads_fail_with_the_leadership() -> None:
    bench = Bench()
    bench.lead()
    answers: list[int | None] = []
    bench.node.read_index(answers.append)
    bench.say("n2", Rejected(99, 0, 0, 0))
    assert answers == [None]
    bench.node.read_index(answers.append)
    assert answers == [None, None]


# ---------------------------------------------------------------- handing over, one member, compaction


def test_leadership_is_handed_over_fast_and_only_to_who_holds_everything() -> None:
    net = Net(3)
    leader = net.leader()
    for number in range(5):
        net.commit(b"%d" % number)
    began = net.now
    leader.transfer()
    with pytest.raises(NotLeader):
        leader.propose(b"x")
    net.tick(leader.node_id)
    assert net.run(2, lambda: not leader.is_leader)
    assert net.leader().node_id != leader.node_id
    assert net.now - began < 0.2
    net.commit(b"y")


def asked_to_hand_over(net: Net, leader: CorrectedNode, to: str | None) -> list[str | None]:
    answers: list[str | None] = []
    leader.transfer(to, answers.append)
    net.tick(leader.node_id)
    return answers


@pytest.mark.parametrize("choose", [min, max])
def test_leadership_goes_to_the_one_that_is_named(choose: Any) -> None:
    net = Net(5)
    leader = net.leader()
    net.commit(b"a")
    to = choose(name for name in net.ids if name != leader.node_id)
    answers = asked_to_hand_over(net, leader, to)
    assert net.run(2, lambda: not leader.is_leader)
    assert net.leader().node_id == to
    assert answers == [None]
    net.commit(b"b")


def test_a_hand_over_to_who_cannot_lead_is_refused_at_once_and_writes_go_on() -> None:
    net = Net(3)
    leader = net.leader()
    net.commit(b"a")
    a, b = (name for name in net.ids if name != leader.node_id)
    [unknown] = asked_to_hand_over(net, leader, "n9")
    assert unknown == f"n9 is no member of this cluster; its members are {', '.join(sorted(net.ids))}."
    assert asked_to_hand_over(net, leader, leader.node_id) == [f"{leader.node_id} leads already."]
    follower = net.nodes[a]
    assert asked_to_hand_over(net, follower, b) == [f"{a} does not lead."]
    net.crash(a)
    assert asked_to_hand_over(net, leader, a) == [f"{a} is not connected to {leader.node_id}."]
    net.commit(b"b")
    assert leader.is_leader


def test_who_lacks_too_much_is_refused_and_who_does_not_stand_in_time_too() -> None:
    net = Net(3)
    leader = net.leader()
    net.commit(b"a")
    a = next(name for name in net.ids if name != leader.node_id)
    progress = leader.replication.progress[a]
    assert net.run(2, lambda: progress.match == leader.journal.last_index)
    held, progress.match = progress.match, leader.journal.last_index - MAX_LAG - 1
    [lags] = asked_to_hand_over(net, leader, a)
    assert lags is not None
    assert "too far behind" in lags
    progress.match = held
    net.cut(leader.node_id, a, notice=False)  # the connection stays, what is said is lost
    answers = asked_to_hand_over(net, leader, a)
    assert answers == []
    with pytest.raises(NotLeader):
        leader.propose(b"x")
    assert asked_to_hand_over(net, leader, None) == []  # joins the one under way
    other = next(name for name in net.ids if name not in (leader.node_id, a))
    [busy] = asked_to_hand_over(net, leader, other)
    assert busy == f"it is being handed over to {a} already."
    assert net.run(2, lambda: bool(answers))
    assert answers == [f"{a} was asked to stand for election, and does not lead in time."]
    assert leader.is_leader
    net.commit(b"b")


def test_timeout_now_counts_only_from_the_leader_of_this_term() -> None:
    bench = Bench()
    bench.say("n2", Append(3, 0, 0, 0, 0, entries(1, 3)))
    for peer, term in (("n3", 3), ("n2", 2), ("n2", 4)):
        assert not [m for _, m in bench.say(peer, TimeoutNow(term)) if isinstance(m, Vote)]
    said = bench.say("n2", TimeoutNow(3))
    assert [m for _, m in said if isinstance(m, Vote)] == [Vote(4, 1, 3, True)] * 2


def test_a_node_with_a_local_fault_gives_leadership_away_and_stays_a_voter() -> None:
    net = Net(3)
    leader = net.leader()
    net.commit(b"a")
    leader.bar("the engine is broken")
    net.tick(leader.node_id)
    assert net.run(2, lambda: not leader.is_leader)
    net.run(1)
    others = [node_id for node_id in net.ids if node_id != leader.node_id]
    net.crash(next(node_id for node_id in others if not net.nodes[node_id].is_leader))
    net.commit(b"b")
    net.crash(net.leader().node_id)
    net.run(10)
    assert not leader.is_leader


def test_a_node_alone_in_its_cluster_works() -> None:
    net = Net(1)
    assert net.commit(b"a") == 2
    answers: list[int | None] = []
    net.nodes["n1"].read_index(answers.append)
    net.tick("n1")
    assert answers == [2]
    net.restart("n1")
    assert net.commit(b"b") == 4


def test_compaction_waits_for_the_applier_and_for_every_member() -> None:
    net = Net(3, settings=RaftSettings(journal_budget_bytes=10_000))
    leader = net.leader()
    away = next(node_id for node_id in net.ids if node_id != leader.node_id)
    for _ in range(30):
        net.commit(bytes(1000))
    net.run(1)
    assert all(node.journal.base_index == 0 for node in net.nodes.values())
    for node in net.nodes.values():
        node.set_applied(15)
    net.run(1)
    assert all(node.journal.base_index == 15 for node in net.nodes.values())
    net.crash(away)
    last = net.commit(b"x")
    for _ in range(30):
        net.commit(bytes(1000))
    for node in net.nodes.values():
        node.set_applied(node.commit_index)
    net.run(3)
    assert all(node.journal.base_index <= last for node in net.nodes.values())
    net.restart(net.leader().node_id)
    net.start(away)
    assert net.run(10, net.converged)
    for node in net.nodes.values():
        node.set_applied(node.commit_index)
    net.run(3)
    assert all(node.journal.bytes_held <= 10_000 for node in net.nodes.values())


def test_both_ends_know_what_a_follower_lacks_that_nobody_has_any_more() -> None:
    net = Net(3, settings=RaftSettings(journal_budget_bytes=10_000))
    leader = net.leader()
    for _ in range(30):
        net.commit(bytes(1000))
    for node in net.nodes.values():
        node.set_applied(20)
    net.run(1)
    assert net.leader().journal.base_index == 20
    lost = next(node_id for node_id in net.ids if node_id != leader.node_id)
    net.crash(lost)
    net.disks[lost] = Disk(lost)
    empty = net.start(lost)
    assert net.run(5, lambda: empty.following.lacks == Lack(1, 20)), "told what it lacks"
    assert net.leader().replication.unservable == {lost: Lack(1, 20)}
    assert net.run(2, lambda: empty.leader_commit() == net.leader().commit_index > 0), "how far it is behind"
    last = net.commit(b"more")
    net.run(2)
    assert (empty.leader_commit(), empty.following.lacks) == (last, Lack(1, 20)), "and stays so"
    net.restart(net.leader().node_id)
    assert net.run(20, lambda: net.leader().replication.unservable == {lost: Lack(1, 20)}), "a successor too"


def test_an_old_word_of_what_is_lacking_does_not_outlive_the_entries() -> None:
    net = Net(3)
    leader = net.leader()
    net.commit(b"a")
    net.run(1)
    follower = next(node for node in net.nodes.values() if node is not leader)
    follower.following.on_unservable(leader.node_id, Unservable(leader.term, 1, 1))
    assert follower.following.lacks is None, "it has had entry 1 verified since"
    follower.following.on_unservable(leader.node_id, Unservable(leader.term, 9, 8))
    assert follower.following.lacks == Lack(9, 8)
    net.commit(b"b")
    assert net.run(1, lambda: follower.following.lacks is None), "entries that fit end it"


def test_a_follower_whose_disk_was_replaced_gets_the_whole_log_again() -> None:
    net = Net(3)
    leader = net.leader()
    for number in range(20):
        net.commit(b"%d" % number)
    lost = next(node_id for node_id in net.ids if node_id != leader.node_id)
    net.crash(lost)
    net.disks[lost] = Disk(lost)
    net.start(lost)
    assert net.run(10, net.converged)
    assert net.leader() is leader


def test_pieces_of_entries_count_as_a_sign_of_the_leader_and_pings_do_not() -> None:
    bench = Bench()
    bench.say("n2", Append(3, 0, 0, 0, 0, entries(1, 3)))
    for _ in range(10):
        bench.net.now += 0.9
        bench.node.note_alive(bench.node.peers["n2"], True)
        bench.node.note_alive(bench.node.peers["n3"], True)
        assert bench.wait(0) == []
    for _ in range(10):
        bench.net.now += 0.9
        bench.node.note_alive(bench.node.peers["n2"], False)
        if bench.wait(0):
            break
    assert bench.node.role == "candidate"


# ---------------------------------------------------------------- random runs


def spikes(rng: random.Random) -> float:
    return rng.uniform(0.0005, 0.5) if rng.random() < 0.05 else rng.uniform(0.0005, 0.03)


def hostile_run(seed: int, node_type: type[CorrectedNode] = CorrectedNode, seconds: float = 12) -> Net:
    """Crashes, cuts, black holes, transfers and jitter under load; then calm, and everybody agrees."""
    rng = random.Random(seed)
    settings = RaftSettings(
        append_bytes=rng.choice([1024, 4096, 1 << 20]),
        inflight_bytes=rng.choice([4096, 1 << 20]),
        journal_budget_bytes=rng.choice([1 << 14, 1 << 28]),
    )
    net = Net(rng.choice([3, 3, 5]), seed, settings, rng.choice([None, spikes]), node_type)
    end = net.now + seconds
    while net.now < end:
        net.run(rng.uniform(0.001, 0.3))
        for node in list(net.nodes.values()):
            if node.is_leader and not node.hand_over.is_under_way:
                for _ in range(rng.randint(0, 6)):
                    node.propose(bytes(rng.randint(1, 3000)))
                net.tick(node.node_id)
            node.set_applied(node.commit_index if rng.random() < 0.5 else 0)
        chance = rng.random()
        if chance < 0.04 and net.nodes:
            net.crash(rng.choice(sorted(net.nodes)))
        elif chance < 0.10:
            for node_id in [node_id for node_id in net.ids if node_id not in net.nodes][:1]:
                net.start(node_id)
        elif chance < 0.13:
            net.cut(*rng.sample(net.ids, 2), notice=rng.random() < 0.5)
        elif chance < 0.15:
            net.isolate(rng.choice(net.ids), notice=rng.random() < 0.5)
        elif chance < 0.20:
            net.heal()
        elif chance < 0.205:
            for node_id in list(net.nodes):
                net.crash(node_id)
        elif chance < 0.22:
            for node in net.nodes.values():
                node.transfer()
    net.heal()
    for node_id in net.ids:
        if node_id not in net.nodes:
            net.start(node_id)
    net.run(5)
    assert not [node.fault for node in net.nodes.values() if node.halted]
    net.commit(b"final")
    assert net.run(20, net.converged), "not converged"
    return net


@pytest.mark.parametrize("seed", range(12))
def test_invariants_hold_in_hostile_runs(seed: int) -> None:
    hostile_run(seed)


def test_one_seed_is_one_run() -> None:
    first, second = hostile_run(3), hostile_run(3)
    assert first.now == second.now
    assert first.sent == second.sent


class TruncatesOnEveryAppend(Following):
    def store(self, prev_index: int, entries: tuple[WireEntry, ...]) -> None:
        journal = self.core.journal
        self.verified = min(self.verified, prev_index)
        if prev_index < journal.last_index:
            journal.truncate_from(prev_index + 1)
        super().store(prev_index, entries)


class AlwaysTruncates(CorrectedNode):
    """pysyncobj's hazard 2: whatever follows prev_index is dropped on every append."""

    following_type = TruncatesOnEveryAppend


class HoldsNothing(Outbox):
    def hold(self, peer: str, message: Any) -> None:
        self.send(peer, message)


class PromisesBeforeFsync(CorrectedNode):
    """pysyncobj's hazard 3: acks and votes leave before the flush, which a crash then forgets."""

    outbox_type = HoldsNothing

    def _tick(self) -> None:
        self._skipped = getattr(self, "_skipped", 0) + 1
        if self._skipped % 20 and not self.is_leader:
            flush, self.journal.flush = self.journal.flush, lambda: None  # type: ignore[method-assign]
            try:
                super()._tick()
            finally:
                self.journal.flush = flush  # type: ignore[method-assign]
        else:
            super()._tick()


@pytest.mark.parametrize("broken", [AlwaysTruncates, PromisesBeforeFsync])
def test_the_hostile_runs_find_a_hazard_that_is_switched_back_on(broken: type[CorrectedNode]) -> None:
    for seed in range(60):
        try:
            hostile_run(seed, broken)
        except AssertionError:
            return
    pytest.fail(f"{broken.__name__} survived 60 seeds")


def test_settings_explain_what_is_wrong() -> None:
    with pytest.raises(ValueError, match="three heartbeats"):
        RaftSettings(election_timeout_ms=(200, 400), heartbeat_ms=100)
    with pytest.raises(ValueError, match="larger than the first"):
        RaftSettings(election_timeout_ms=(1000, 1000))


def test_a_journal_that_cannot_be_read_stops_the_node() -> None:
    bench = Bench()
    term = bench.lead()
    for _ in range(200):
        bench.node.propose(bytes(1000))
    bench.wait(0)
    row = bench.disk.rows[3]
    bench.disk.rows[3] = type(row)(row.index, row.term, row.crc, b"flipped")
    bench.say("n2", Rejected(term, 0, 1, 0), tick=False)
    journal = bench.node.journal
    assert isinstance(journal, Journal)
    progress = bench.node.replication.progress["n2"]
    progress.restart(2)
    bench.wait(0)
    assert bench.node.role == "stopped"
    assert "index 3" in (bench.node.fault or "")
