"""Courses of events that random faults all but never meet, step by step, on the same simulated cluster."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from cluster.raft.settings import RaftSettings
from cluster.state.commands import encode_group
from tests.simulation.cluster import Simulation
from tests.simulation.invariants import Violation
from tests.simulation.mutations import parts_of
from tests.simulation.network import Weather
from tests.simulation.plan import make_plan

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.simulation.process import Process


def old_acks(mutation: str | None = None) -> Violation | None:
    """Acks that are two terms old arrive at a node that leads again, on the connection they were sent on.

    Of five nodes a leader and one follower are cut off, with entries that only these two hold; the
    follower's acks hang in the network. The others elect a leader, which overwrites those entries on both
    and hands over to the first. That one leads again, with as many entries as before, which the follower
    has not got; and now the old acks come in.
    """
    simulation = _quiet_cluster(mutation)
    network, ids = simulation.network, simulation.ids
    try:
        _until(simulation, lambda: simulation.newest_leader() is not None, "a leader")
        first = simulation.newest_leader()
        assert first is not None
        _until(simulation, lambda: _is_settled(simulation, first), "all follow it")
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
            _propose(leader)
        held = simulation.processes[follower].journal
        _until(simulation, lambda: held.durable_index == base + 5, "the follower has what nobody else has")

        _until(simulation, lambda: simulation.newest_leader() in others, "the majority has a leader")
        second = simulation.newest_leader()
        assert second is not None
        for hole in holes:
            network.unblock(*hole)
        _until(simulation, lambda: held.last_index == base + 1, "the follower's entries are overwritten")
        network.block(first, follower)
        _until(simulation, lambda: leader.journal.last_index == base + 1, "the first leader's are")
        # A leader hands over to whoever holds most: that has to be the first.
        network.block(second, follower)
        rest = [node_id for node_id in others if node_id != second]
        for node_id in rest:
            network.block(second, node_id)
        _propose(simulation.processes[second])
        acked = simulation.processes[second].node.replication.progress[first]
        _until(simulation, lambda: acked.match == base + 2, "the first leader holds one more than the rest")
        simulation.transfer(second)
        for node_id in rest:
            network.unblock(second, node_id)
        _until(simulation, lambda: leader.node.is_leader, "the first leads again")
        assert leader.node.term > term + 1
        for _ in range(5):
            _propose(leader)
        _until(simulation, lambda: leader.journal.last_index > base + 5, "it holds as many entries as before")
        assert held.last_index == base + 1
        assert leader.wire is not None
        assert leader.wire.ends[follower] is connection, "the old connection did not last"
        network.unblock(follower, first)
        simulation.scheduler.run_until(simulation.scheduler.now + 0.5)
        network.unblock(first, follower)
        network.unblock(second, follower)
        _until(simulation, lambda: _is_settled(simulation, first), "all agree")
    except Violation as violation:
        return violation
    return None


def lost_disk(mutation: str | None = None) -> Violation | None:
    """A node is away while the two others acknowledge entries; one of these comes back with an empty disk,
    while the other is gone. The node that was away and the empty one must not elect a leader.
    """
    simulation = _quiet_cluster(mutation, nodes=3)
    processes = simulation.processes
    try:
        _until(simulation, lambda: simulation.newest_leader() is not None, "a leader")
        leader = simulation.newest_leader()
        assert leader is not None
        _until(simulation, lambda: _is_settled(simulation, leader), "all follow it")
        wiped, away = [node_id for node_id in simulation.ids if node_id != leader]
        simulation.crash(away, power=False, why="away", down_s=1000)
        for _ in range(5):
            _propose(processes[leader])
        last = processes[leader].journal.last_index
        _until(simulation, lambda: processes[wiped].node.commit_index >= last, "the two have the entries")
        simulation.wipe_disk(wiped)
        assert simulation.disks[wiped].was_wiped
        simulation.crash(leader, power=False, why="gone", down_s=1000)
        simulation._start(away)
        simulation.scheduler.run_until(simulation.scheduler.now + 60)
        simulation._start(leader)
        _until(simulation, lambda: simulation.newest_leader() is not None, "a leader again")
        again = simulation.newest_leader()
        assert again is not None
        _until(simulation, lambda: _is_settled(simulation, again), "all agree")
        _until(simulation, lambda: simulation.disks[wiped].has_vote, "the wiped node has a vote again")
    except Violation as violation:
        return violation
    return None


def two_of_five(mutation: str | None = None) -> Violation | None:
    """A leader and one follower are cut off from three nodes, which elect a leader and commit entries.

    Until the old leader steps down its follower goes on answering it, which proves nothing.
    """
    simulation = _quiet_cluster(mutation)
    network, processes = simulation.network, simulation.processes
    try:
        _until(simulation, lambda: simulation.newest_leader() is not None, "a leader")
        first = simulation.newest_leader()
        assert first is not None
        _until(simulation, lambda: _is_settled(simulation, first), "all follow it")
        follower, *others = [node_id for node_id in simulation.ids if node_id != first]
        holes = [(one, other) for one in (first, follower) for other in others]
        holes += [(other, one) for one, other in holes]
        for hole in holes:
            network.block(*hole)
        _until(simulation, lambda: simulation.newest_leader() in others, "the majority has a leader")
        second = simulation.newest_leader()
        assert second is not None
        assert processes[first].node.is_leader, "the old leader stepped down too early"
        committed = len(simulation.judge.committed)
        _propose(processes[second])
        _until(simulation, lambda: len(simulation.judge.committed) > committed, "it commits an entry")
        _until(simulation, lambda: not processes[first].node.is_leader, "the old leader gives up")
        for hole in holes:
            network.unblock(*hole)
        _until(simulation, lambda: _is_settled(simulation, second), "all agree")
    except Violation as violation:
        return violation
    return None


COURSES: dict[str, Callable[[str | None], Violation | None]] = {
    "acks-carry-no-term": old_acks,
    "wiped-node-votes": lost_disk,
    "best-follower-proves": two_of_five,
}
"""By the bug that a course must show. Without the bug it runs to its end."""


def _quiet_cluster(mutation: str | None, nodes: int = 5) -> Simulation:
    """Nodes without clients or faults; a leader that hears nothing stays for two seconds."""
    plan = replace(
        make_plan(1, nodes=nodes),
        settings=RaftSettings(election_timeout_ms=(200, 4000), heartbeat_ms=50),
        weather=Weather(0.0003, 0.002),
        clock_rates=(1.0,) * nodes,
        fsync_high_s=0.0005,
        clients=0,
    )
    simulation = Simulation(plan, parts_of(mutation))
    for node_id in simulation.ids:
        simulation._start(node_id)
    return simulation


def _propose(process: Process) -> None:
    process.enqueue(lambda: process.raft.propose(encode_group(process.wall_ms(), [])) and None)


def _is_settled(simulation: Simulation, leader: str) -> bool:
    last = simulation.processes[leader].journal.last_index
    return last > 0 and all(
        process.node.commit_index == last == process.journal.durable_index
        and process.node.leader_id == leader
        and process.wire is not None
        and len(process.wire.ends) == len(simulation.ids) - 1
        for process in simulation.processes.values()
    )


def _until(simulation: Simulation, done: Callable[[], bool], what: str) -> None:
    if not simulation.scheduler.run_until(simulation.scheduler.now + 10, done):
        raise AssertionError(f"the course does not come about: not within 10 simulated seconds: {what}")
