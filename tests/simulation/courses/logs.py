"""Courses of the log: connections, elections and disks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.simulation.courses.staging import is_settled, leader_of, propose, quiet_cluster, until
from tests.simulation.invariants import Violation

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.simulation.cluster import Simulation


def old_acks(mutation: str | None = None) -> Violation | None:
    """Acks that are two terms old arrive at a node that leads again, on the connection they were sent on.

    Of five nodes a leader and one follower are cut off, with entries that only these two hold; the
    follower's acks hang in the network. The others elect a leader, which overwrites those entries on both
    and hands over to the first. That one leads again, with as many entries as before, which the follower
    has not got; and now the old acks come in.
    """
    simulation = quiet_cluster(mutation)
    network, ids = simulation.network, simulation.ids
    try:
        until(simulation, lambda: simulation.newest_leader() is not None, "a leader")
        first = simulation.newest_leader()
        assert first is not None
        until(simulation, lambda: is_settled(simulation, first), "all follow it")
        leader = simulation.processes[first]
        follower, *others = [node_id for node_id in ids if node_id != first]
        connection = leader.wire and leader.wire.ends[follower]
        term, base = leader.node.term, leader.journal.last_index
        holes = [(one, other) for one in (first, follower) for other in others]
        holes += [(other, one) for one, other in holes]
        for hole in holes:
            network.block(*hole)
        network.block(follower, first)
        for _ in range(5):
            propose(leader)
        held = simulation.processes[follower].journal
        until(simulation, lambda: held.durable_index == base + 5, "the follower has what nobody else has")

        until(simulation, lambda: simulation.newest_leader() in others, "the majority has a leader")
        second = simulation.newest_leader()
        assert second is not None
        for hole in holes:
            network.unblock(*hole)
        until(simulation, lambda: held.last_index == base + 1, "the follower's entries are overwritten")
        network.block(first, follower)
        until(simulation, lambda: leader.journal.last_index == base + 1, "the first leader's are")
        # A leader hands over to whoever holds most: that has to be the first.
        network.block(second, follower)
        rest = [node_id for node_id in others if node_id != second]
        for node_id in rest:
            network.block(second, node_id)
        propose(simulation.processes[second])
        acked = simulation.processes[second].node.replication.progress[first]
        until(simulation, lambda: acked.match == base + 2, "the first leader holds one more than the rest")
        simulation.transfer(second)
        for node_id in rest:
            network.unblock(second, node_id)
        until(simulation, lambda: leader.node.is_leader, "the first leads again")
        assert leader.node.term > term + 1
        for _ in range(5):
            propose(leader)
        until(simulation, lambda: leader.journal.last_index > base + 5, "it holds as many entries as before")
        assert held.last_index == base + 1
        assert leader.wire is not None
        assert leader.wire.ends[follower] is connection, "the old connection did not last"
        network.unblock(follower, first)
        simulation.scheduler.run_until(simulation.scheduler.now + 0.5)
        network.unblock(first, follower)
        network.unblock(second, follower)
        until(simulation, lambda: is_settled(simulation, first), "all agree")
    except Violation as violation:
        return violation
    return None


def lost_disk(mutation: str | None = None) -> Violation | None:
    """A node is away while the two others acknowledge entries; one of these comes back with an empty disk,
    while the other is gone. The node that was away and the empty one must not elect a leader.
    """
    simulation = quiet_cluster(mutation, nodes=3)
    processes = simulation.processes
    try:
        until(simulation, lambda: simulation.newest_leader() is not None, "a leader")
        leader = simulation.newest_leader()
        assert leader is not None
        until(simulation, lambda: is_settled(simulation, leader), "all follow it")
        wiped, away = [node_id for node_id in simulation.ids if node_id != leader]
        simulation.crash(away, power=False, why="away", down_s=1000)
        for _ in range(5):
            propose(processes[leader])
        last = processes[leader].journal.last_index
        until(simulation, lambda: processes[wiped].node.commit_index >= last, "the two have the entries")
        simulation.wipe_disk(wiped)
        assert simulation.disks[wiped].was_wiped
        simulation.crash(leader, power=False, why="gone", down_s=1000)
        simulation._start(away)
        simulation.scheduler.run_until(simulation.scheduler.now + 60)
        simulation._start(leader)
        until(simulation, lambda: simulation.newest_leader() is not None, "a leader again")
        again = simulation.newest_leader()
        assert again is not None
        until(simulation, lambda: is_settled(simulation, again), "all agree")
        until(simulation, lambda: simulation.disks[wiped].has_vote, "the wiped node has a vote again")
    except Violation as violation:
        return violation
    return None


def unsynced_tail(mutation: str | None = None) -> Violation | None:
    """A follower dies between the write of an entry and its sync, comes back, acknowledges the entry that it
    can read, and then its machine goes dark: what it has acknowledged must be there all the same.
    """
    simulation = quiet_cluster(mutation, nodes=3)
    processes = simulation.processes
    try:
        leader = leader_of(simulation)
        follower, away = [node_id for node_id in simulation.ids if node_id != leader]
        simulation.crash(away, power=False, why="away", down_s=1000)
        base = processes[leader].journal.last_index
        _die_unsynced(simulation, follower, "journal-unsynced", lambda: propose(processes[leader]))
        assert processes[leader].node.commit_index == base
        assert len(simulation.disks[follower].rows) == base + 1, "the entry is not readable"
        until(simulation, lambda: simulation.is_up(follower), "the follower is back")
        until(simulation, lambda: processes[leader].node.commit_index > base, "it acknowledges the entry")
        simulation.crash(follower, power=True, why="dark", down_s=1)
        simulation.crash(leader, power=True, why="dark", down_s=1)
        simulation._start(away)
        again = leader_of(simulation)
        assert processes[again].journal.last_index > base
    except Violation as violation:
        return violation
    return None


def unsynced_marker(mutation: str | None = None) -> Violation | None:
    """A node dies between the write of its marker of what is applied and the sync of it, comes back, says how
    far it has applied so that the log may be compacted up to there, and its machine goes dark.
    """
    simulation = quiet_cluster(mutation, nodes=3, journal_budget_bytes=1)
    processes = simulation.processes
    try:
        leader = leader_of(simulation)
        victim = next(node_id for node_id in simulation.ids if node_id != leader)
        _die_unsynced(simulation, victim, "store-unsynced", lambda: propose(processes[leader]))
        until(simulation, lambda: simulation.is_up(victim), "it is back")
        leader_of(simulation)
        simulation.crash(victim, power=True, why="dark", down_s=1)
        until(simulation, lambda: simulation.is_up(victim), "it is back again")
        leader_of(simulation)
    except Violation as violation:
        return violation
    return None


def _die_unsynced(simulation: Simulation, node_id: str, point: str, cause: Callable[[], None]) -> None:
    """The process dies at this point of its next write; its machine stays up."""
    disk = simulation.disks[node_id]
    disk.crash_point, disk.crash_takes_power = (point, 0), False
    cause()
    until(simulation, lambda: not simulation.is_up(node_id), "it dies")
    disk.crash_takes_power = None


def two_of_five(mutation: str | None = None) -> Violation | None:
    """A leader and one follower are cut off from three nodes, which elect a leader and commit entries.

    Until the old leader steps down its follower goes on answering it, which proves nothing.
    """
    simulation = quiet_cluster(mutation)
    network, processes = simulation.network, simulation.processes
    try:
        until(simulation, lambda: simulation.newest_leader() is not None, "a leader")
        first = simulation.newest_leader()
        assert first is not None
        until(simulation, lambda: is_settled(simulation, first), "all follow it")
        follower, *others = [node_id for node_id in simulation.ids if node_id != first]
        holes = [(one, other) for one in (first, follower) for other in others]
        holes += [(other, one) for one, other in holes]
        for hole in holes:
            network.block(*hole)
        until(simulation, lambda: simulation.newest_leader() in others, "the majority has a leader")
        second = simulation.newest_leader()
        assert second is not None
        assert processes[first].node.is_leader, "the old leader stepped down too early"
        committed = len(simulation.judge.committed)
        propose(processes[second])
        until(simulation, lambda: len(simulation.judge.committed) > committed, "it commits an entry")
        until(simulation, lambda: not processes[first].node.is_leader, "the old leader gives up")
        for hole in holes:
            network.unblock(*hole)
        until(simulation, lambda: is_settled(simulation, second), "all agree")
    except Violation as violation:
        return violation
    return None
