"""A log that goes on from a snapshot, and how long it is kept before one is needed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from cluster.errors import Fault
from cluster.raft.interface import Lack
from cluster.raft.journal import Journal
from cluster.raft.meta import Standing
from cluster.raft.settings import RaftSettings
from tests.unit.raft_net import Disk, Net

if TYPE_CHECKING:
    from pathlib import Path

    from cluster.raft.node import CorrectedNode

ENTRY = bytes(1000)


def journal_of(*terms: int, commit: int = 0, disk: Disk | None = None) -> Journal:
    journal = Journal(disk or Disk(), "c", "n1", incarnation="life", standing=Standing.VOTER)
    for term in terms:
        journal.append(term, b"x")
    journal.set_term(max(terms, default=0), "n2")
    journal.set_commit(commit)
    journal.flush()
    return journal


def shape(journal: Journal) -> tuple[int, int, int, list[int]]:
    terms = [journal.term_at(index) for index in range(journal.base_index, journal.last_index + 1)]
    return journal.base_index, journal.last_index, journal.commit_index, terms


@pytest.mark.parametrize(
    ("terms", "commit", "index", "term", "shaped"),
    [
        ((), 0, 7, 3, (7, 7, 7, [3])),
        ((1, 1, 2), 1, 7, 3, (7, 7, 7, [3])),  # too short
        ((1, 1, 2, 2), 1, 3, 2, (0, 4, 3, [0, 1, 1, 2, 2])),  # it has that entry: what follows stays
        ((1, 1, 2, 2), 1, 3, 3, (3, 3, 3, [3])),  # another entry: what follows is another log's
        ((1, 1, 2), 1, 3, 2, (0, 3, 3, [0, 1, 1, 2])),
    ],
)
def test_the_rule_of_install_snapshot(
    terms: tuple[int, ...], commit: int, index: int, term: int, shaped: tuple[object, ...]
) -> None:
    disk = Disk()
    journal = journal_of(*terms, commit=commit, disk=disk)
    promised = (max(terms, default=0), journal.vote, journal.incarnation, journal.standing)
    assert journal.reset_to(index, term) == (shaped[0] == index)
    assert shape(journal) == shaped
    journal.append(9, b"next")
    journal.flush()
    again = Journal(disk, "c", "n1")
    assert again.last_index == journal.last_index
    assert again.term_at(index) == term
    kept = (again.term, again.vote, again.incarnation, again.standing)
    assert kept == promised if promised[0] >= term else kept == (term, None, "life", Standing.VOTER)


def test_a_committed_entry_is_never_dropped() -> None:
    journal = journal_of(1, 1, 2, commit=3)
    before = shape(journal)
    with pytest.raises(Fault, match="contradict"):
        journal.reset_to(3, 5)
    assert shape(journal) == before
    assert journal.reset_to(2, 1) is False, "an earlier state of the same log: it is applied again from there"
    assert shape(journal) == before
    journal.compact(2, 0)
    with pytest.raises(Fault, match="begins after 2"):
        journal.reset_to(1, 1)


def test_a_reset_is_durable_at_once_and_as_a_whole(tmp_path: Path) -> None:
    path = tmp_path / "raft.sqlite"
    journal = Journal.open(path, "c", "n1", cache_bytes=100)
    for _ in range(50):
        journal.append(1, ENTRY)
    journal.flush()
    journal.append(1, b"not flushed")
    journal.reset_to(90, 4)
    journal.flush()
    assert journal.bytes_held == 0
    journal.close()
    again = Journal.open(path, "c", "n1")
    assert shape(again) == (90, 90, 90, [4])
    assert again.term == 4
    with pytest.raises(LookupError):
        again.read(90, 90, 100)
    again.append(4, b"on")
    again.flush()
    assert [row.payload for row in again.read(91, 91, 100)] == [b"on"]
    again.close()


# ---------------------------------------------------------------------- retention


def lagging(retention: int) -> tuple[Net, str]:
    """A cluster in which one node is away while the others commit and apply 60 KB."""
    net = Net(3, settings=RaftSettings(journal_budget_bytes=5_000, log_retention_bytes=retention))
    leader = net.leader()
    away = next(node_id for node_id in net.ids if node_id != leader.node_id)
    net.commit(b"all have this")
    net.run(1)
    net.crash(away)
    for _ in range(60):
        net.commit(ENTRY)
    net.run(1)
    return net, away


def apply_all(net: Net) -> None:
    for node in net.nodes.values():
        node.set_applied(node.commit_index)
    net.run(2)


def test_the_log_is_bounded_by_bytes_whoever_is_away() -> None:
    net, away = lagging(20_000)
    assert all(node.journal.bytes_held >= 60_000 for node in net.nodes.values()), "nothing is applied yet"
    apply_all(net)
    assert [node.journal.bytes_held <= 20_000 for node in net.nodes.values()] == [True, True]
    again = net.start(away)
    base = net.leader().journal.base_index
    assert net.run(5, lambda: again.following.lacks == Lack(3, base)), "it needs a snapshot"


def test_what_is_not_applied_is_kept() -> None:
    net, _ = lagging(20_000)
    for node in net.nodes.values():
        node.set_applied(30)
    net.run(2)
    assert {node.journal.base_index for node in net.nodes.values()} == {30}


def test_a_log_smaller_than_a_snapshot_is_kept() -> None:
    net, away = lagging(20_000)
    for node in net.nodes.values():
        node.retention.snapshot_bytes = 80_000
    apply_all(net)
    net.start(away)
    assert net.run(10, net.converged), "it is filled from the log"


def test_a_fetch_holds_the_log_for_a_while_and_within_bounds() -> None:
    net, _ = lagging(40_000)
    for node in net.nodes.values():
        node.retention.hold("away", 10, 5.0)
    apply_all(net)
    assert {node.journal.base_index for node in net.nodes.values()} == {10}, "61 KB of twice 40"
    for _ in range(30):
        net.commit(ENTRY)
    apply_all(net)
    assert all(node.journal.bytes_held <= 40_000 for node in net.nodes.values()), "beyond twice the bound"
    held = net.leader().journal.base_index
    net.leader().retention.hold("away", held, 3.0)
    for _ in range(30):
        net.commit(ENTRY)
    apply_all(net)
    assert net.leader().journal.base_index == held
    net.run(5)
    assert net.leader().journal.base_index > held, "who does not ask again is not waited for"


def slow(node: CorrectedNode) -> bool:
    return node.is_full(leading=node.is_leader)


def test_who_cannot_apply_takes_no_more_and_is_not_waited_for() -> None:
    net, _ = lagging(25_000)
    leader = net.leader()
    assert slow(leader), "60 KB that are not applied: more than twice the bound"
    follower = next(node for node in net.nodes.values() if node is not leader)
    assert not slow(follower), "followers go on a little longer"
    for node in net.nodes.values():
        object.__setattr__(node.settings, "pending_bytes", 0)
    for _ in range(20):
        net.propose(ENTRY)
    net.run(1)
    held = follower.journal.last_index
    assert slow(follower)
    net.propose(ENTRY)
    net.run(3)
    assert follower.journal.last_index == held, "it stores nothing more"
    assert net.leader() is leader, "and still follows"
    apply_all(net)
    assert not slow(leader)
    assert net.run(30, lambda: follower.journal.last_index == leader.journal.last_index)
