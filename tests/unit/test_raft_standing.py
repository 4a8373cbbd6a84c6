"""Whose word counts: founding, lost disks, old copies; each rule also with the bug that breaks it."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import pytest

from cluster.errors import Fault
from cluster.raft.configuration import ChangeRefused, encode_configuration, founding
from cluster.raft.interface import Admit
from cluster.raft.journal import Journal
from cluster.raft.messages import Accepted
from cluster.raft.meta import Known, Meta, Standing
from cluster.raft.node import CorrectedNode
from cluster.raft.settings import RaftSettings
from tests.simulation.bugs import standing as bugs
from tests.simulation.parts import node_of
from tests.unit.raft_net import Disk, Net

if TYPE_CHECKING:
    from cluster.raft.standing import Standings


def founded(standings: type[Standings] | None = None) -> Net:
    """Three nodes that were founded, hold an entry each and are quiet."""
    node_type = CorrectedNode if standings is None else node_of(standings=standings)
    net = Net(3, standing=Standing.NEW, node_type=node_type)
    net.commit(b"first")
    assert net.run(5, net.converged)
    return net


def forgetful_quorum(net: Net) -> tuple[str, str, str]:
    """(away, wiped, leader): what the last two acknowledged is lost at `wiped`, and `leader` is gone."""
    leader = net.leader().node_id
    wiped, away = (node_id for node_id in net.ids if node_id != leader)
    net.crash(away)
    for number in range(5):
        net.commit(b"kept %d" % number)
    net.crash(wiped)
    net.crash(leader)
    net.disks[wiped] = Disk(wiped)
    net.start(away)
    net.start(wiped)
    return away, wiped, leader


def test_a_wiped_node_helps_nobody_to_lead() -> None:
    net = founded()
    _, wiped, leader = forgetful_quorum(net)
    net.run(30)
    assert not any(node.is_leader for node in net.nodes.values())
    net.start(leader)
    assert net.run(10, net.converged)
    assert net.run(10, lambda: net.nodes[wiped].journal.standing is Standing.VOTER)
    # In the term in which it was admitted it may have voted before it forgot.
    assert net.nodes[wiped].journal.vote == net.leader().node_id
    net.commit(b"after")
    assert net.run(5, net.converged)
    # What it holds and votes counts again: with it alone the others go on.
    net.crash(net.leader().node_id)
    net.commit(b"with its vote")


def test_the_net_sees_the_loss_where_a_wiped_node_votes() -> None:
    net = founded(bugs.WipedNodeVotes)
    forgetful_quorum(net)
    with pytest.raises(AssertionError, match=r"a leader (misses a|has another) committed entry"):
        net.run(30)


def acks_of_a_wiped_node(net: Net) -> bool:
    """Whether a leader commits with nothing but the acks of a wiped node beside its own."""
    leader = net.leader()
    wiped, away = (node_id for node_id in net.ids if node_id != leader.node_id)
    net.crash(away)
    net.crash(wiped)
    net.disks[wiped] = Disk(wiped)
    net.start(wiped)
    assert net.run(5, lambda: leader.is_connected(wiped))
    index, _ = leader.propose(b"x")
    net.tick(leader.node_id)
    net.run(20)
    return net.nodes[wiped].journal.durable_index >= index and index in net.committed


def test_acks_of_a_wiped_node_make_no_quorum() -> None:
    assert not acks_of_a_wiped_node(founded())
    assert acks_of_a_wiped_node(founded(bugs.WipedNodeCounts))


def admitted_without_the_log(net: Net) -> bool:
    leader = net.leader()
    wiped = next(node_id for node_id in net.ids if node_id != leader.node_id)
    net.crash(wiped)
    net.disks[wiped] = Disk(wiped)
    seen: list[int] = []
    node = net.start(wiped)
    assert net.run(
        20, lambda: node.journal.standing is Standing.VOTER and not seen.append(node.journal.durable_index)
    )
    return seen[0] < leader.reads.first_own_index + 1


def test_a_wiped_node_is_admitted_once_it_holds_everything() -> None:
    assert not admitted_without_the_log(founded())
    assert admitted_without_the_log(founded(bugs.AdmittedAtOnce))


def asking_first(standings: type[Standings] | None = None) -> tuple[Net, str]:
    """Three nodes where a wiped one is let in by the operator only; that is one of them, and back."""
    node_type = CorrectedNode if standings is None else node_of(standings=standings)
    settings = RaftSettings(auto_replace=False)
    net = Net(3, standing=Standing.NEW, node_type=node_type, settings=settings)
    net.commit(b"first")
    assert net.run(5, net.converged)
    wiped = next(node_id for node_id in net.ids if node_id != net.leader().node_id)
    wipe(net, wiped)
    return net, wiped


def wipe(net: Net, node_id: str) -> None:
    """A fifth life and more: each has an incarnation of its own."""
    net.crash(node_id)
    net.disks[node_id] = Disk(node_id)
    net.start(node_id)


def admit(net: Net, node_id: str) -> None:
    index, _ = net.leader().change(Admit(node_id), {})
    assert net.run(10, lambda: net.nodes[node_id].journal.standing is Standing.VOTER)
    assert net.nodes[node_id].journal.durable_index >= index


def test_without_auto_replace_a_wiped_node_waits_for_the_operator() -> None:
    net, wiped = asking_first()
    assert net.run(10, net.converged)
    net.run(20)
    node = net.nodes[wiped]
    assert node.journal.standing is Standing.NEW
    assert f"members admit {wiped}" in (node.standings.hint() or "")
    assert net.leader().standings.without_vote() == {wiped: node.journal.incarnation}
    with pytest.raises(ChangeRefused, match="does not wait"):
        net.leader().change(Admit(net.leader().node_id), {})
    admit(net, wiped)
    assert net.run(5, lambda: net.leader().standings.without_vote() == {})
    assert net.leader().configuration.member(wiped) is not None
    assert net.leader().configuration.member(wiped).incarnation == node.journal.incarnation  # type: ignore[union-attr]
    net.commit(b"with it")
    # Lost once more it is a stranger once more, though it is a member that the configuration binds.
    wipe(net, wiped)
    net.run(20)
    assert net.nodes[wiped].journal.standing is Standing.NEW
    admit(net, wiped)


def test_an_admission_outlives_the_leader_that_made_it() -> None:
    net, wiped = asking_first()
    assert net.run(10, net.converged)
    leader = net.leader().node_id
    index, _ = net.leader().change(Admit(wiped), {})
    third = next(node_id for node_id in net.ids if node_id not in (leader, wiped))
    net.crash(wiped)
    assert net.run(10, lambda: index in net.committed)
    net.crash(leader)
    net.start(leader)
    net.start(wiped)
    assert net.run(20, lambda: net.nodes[wiped].journal.standing is Standing.VOTER)
    assert third in net.nodes


def test_without_auto_replace_an_old_copy_waits_for_the_operator() -> None:
    settings = RaftSettings(auto_replace=False)
    net = Net(3, standing=Standing.NEW, settings=settings)
    net.commit(b"first")
    assert net.run(5, net.converged)
    node_id = next(it for it in net.ids if it != net.leader().node_id)
    old = copy.deepcopy(net.disks[node_id])
    for number in range(5):
        net.commit(b"kept %d" % number)
    assert net.run(5, net.converged)
    net.crash(node_id)
    net.disks[node_id] = old
    net.start(node_id)
    net.run(30)
    assert net.nodes[node_id].journal.standing is Standing.FORGETFUL
    admit(net, node_id)


def test_without_auto_replace_who_is_founded_or_added_needs_no_word() -> None:
    net = Net(3, standing=Standing.NEW, settings=RaftSettings(auto_replace=False))
    net.commit(b"first")
    assert net.run(10, net.converged)
    assert {node.journal.standing for node in net.nodes.values()} == {Standing.VOTER}


def test_who_is_needed_is_elected_though_a_node_without_a_vote_holds_more() -> None:
    """Of two, the leader loses power before it has written an entry that the other, once wiped, holds."""
    net = Net(2, standing=Standing.NEW, settings=RaftSettings(auto_replace=False))
    net.commit(b"first")
    assert net.run(5, net.converged)
    leader = net.leader()
    [wiped] = [node_id for node_id in net.ids if node_id != leader.node_id]
    wipe(net, wiped)
    assert net.run(10, net.converged)
    before = copy.deepcopy(net.disks[leader.node_id])
    net.intercept = lambda source, target, message: not isinstance(message, Accepted)
    index, _ = leader.propose(b"lost with the power")
    net.tick(leader.node_id)
    assert net.run(1, lambda: net.nodes[wiped].journal.durable_index >= index)
    net.crash(leader.node_id)
    net.intercept = None
    net.disks[leader.node_id] = before
    net.start(leader.node_id)
    assert net.leader(30).node_id == leader.node_id
    net.commit(b"after")
    assert net.run(5, net.converged)


def founding_beside_a_wiped_node(net: Net) -> Standing:
    """One founder was wiped and the other is there: the standing that the wiped one gives itself."""
    leader = net.leader().node_id
    wiped, away = (node_id for node_id in net.ids if node_id != leader)
    for node_id in net.ids:
        net.crash(node_id)
    net.disks[wiped] = Disk(wiped)
    net.disks[away] = Disk(away)
    for node_id in net.ids:
        net.start(node_id)
    net.run(10)
    return net.nodes[wiped].journal.standing


def test_an_empty_node_founds_nothing_beside_one_that_is_not() -> None:
    assert founding_beside_a_wiped_node(founded()) is Standing.NEW
    assert founding_beside_a_wiped_node(founded(bugs.FoundedBySome)) is Standing.VOTER


def test_new_nodes_found_a_cluster_only_together() -> None:
    net = Net(3, standing=Standing.NEW)
    net.crash("n2")
    net.run(10)
    assert not any(node.is_leader for node in net.nodes.values())
    assert net.nodes["n1"].standings.hint() == "founding waits for n2"
    net.start("n2")
    net.commit(b"first")
    assert all(node.standings.hint() is None for node in net.nodes.values())


@pytest.mark.parametrize("loses", [False, True])
def test_a_founder_whose_word_never_came_through_is_taken_in(loses: bool) -> None:
    """It died between the founding of the others and its own, with what it had written or without."""
    net = Net(3, standing=Standing.NEW)
    net.intercept = lambda _, target, __: target != "n3"
    net.run(1, lambda: net.nodes["n1"].journal.standing is Standing.VOTER)
    net.intercept = None
    net.crash("n3")
    if loses:
        net.disks["n3"] = Disk("n3")
    net.start("n3")
    net.commit(b"first")
    assert net.run(20, lambda: net.nodes["n3"].journal.standing is Standing.VOTER)


def test_an_old_copy_has_no_vote() -> None:
    net = founded()
    leader = net.leader()
    copied, other = (node_id for node_id in net.ids if node_id != leader.node_id)
    old = copy.copy(net.disks[copied])
    old.rows = dict(old.rows)
    net.commit(b"kept")
    net.run(3)
    net.crash(other)
    net.crash(copied)
    net.disks[copied] = old
    node = net.start(copied)
    assert net.run(5, lambda: node.journal.standing is Standing.FORGETFUL)
    assert not node.may_vote()
    net.run(5)
    net.start(other)
    assert net.run(20, lambda: node.journal.standing is Standing.VOTER)
    assert net.run(5, net.converged)


def test_what_is_known_of_a_peer_survives_a_restart() -> None:
    net = founded()
    leader = net.leader()
    index = net.commit(b"x")
    net.run(3)
    net.crash(leader.node_id)
    again = net.start(leader.node_id)
    assert {known.index for known in again.journal.known.values()} == {index}


def test_a_journal_of_format_1_that_was_used_has_a_vote() -> None:
    import zlib

    import msgpack

    def old(term: int) -> bytes:
        body: bytes = msgpack.packb([1, "c", "n1", term, None, 0, 0, 0, 0, 0, 1])
        return zlib.crc32(body).to_bytes(4, "big") + body

    founders = encode_configuration(founding(["n1", "n2"]))
    new = Meta("c", "n1", configuration=founders, incarnation="now")
    for term, standing in ((3, Standing.VOTER), (0, Standing.NEW)):
        meta, is_changed = Meta.decode(old(term), new)
        assert (meta.standing, meta.configuration, meta.incarnation, is_changed) == (
            standing,
            founders,
            "now",
            True,
        )


def test_a_journal_of_format_2_keeps_its_founders_and_its_standing() -> None:
    import zlib

    import msgpack

    fields = [2, "c", "n1", 4, "n2", 7, 0, 0, 0, 0, 9, ["n1", "n2"], "life", 1, [["n2", "other", 4, 7]]]
    body: bytes = msgpack.packb(fields)
    disk = Disk()
    disk.meta = zlib.crc32(body).to_bytes(4, "big") + body
    journal = Journal(disk, "c", "n1", members=["n1", "n2"], incarnation="now")
    assert journal.configuration == founding(["n1", "n2"])
    assert (journal.term, journal.vote, journal.incarnation, journal.standing) == (4, "n2", "life", 1)
    assert journal.known == {"n2": Known("other", 4, 7)}
    journal.flush()
    assert Journal(disk, "c", "n1").configuration == founding(["n1", "n2"])


@pytest.mark.parametrize(
    ("configured", "words"),
    [
        (["n1"], "n2, n3 missing"),
        (["n1", "n2"], "n3 missing"),
        (["n1", "n2", "n3", "n4"], "n4 too many"),
        (["n1", "n2", "n9"], "n3 missing and n9 too many"),
    ],
)
def test_other_members_are_refused_by_name(configured: list[str], words: str) -> None:
    disk = Disk()
    Journal(disk, "c", "n1", members=["n3", "n1", "n2"]).flush()
    held = disk.meta
    with pytest.raises(Fault, match=words):
        Journal(disk, "c", "n1", members=configured)
    assert disk.meta == held
    Journal(disk, "c", "n1", members=["n1", "n2", "n3"])
