"""Courses of a poisoned entry: writes on which engines fail, and what the cluster makes of them."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from cluster.state.commands import CreateCollection, Proposal, WriteRecords, encode_proposal
from tests.simulation.clients import DATABASE, TENANT
from tests.simulation.courses.staging import leader_of, propose, quiet_cluster, until
from tests.simulation.invariants import Violation
from tests.simulation.poison import PoisonPlan

if TYPE_CHECKING:
    from tests.simulation.cluster import Simulation

FOREVER = PoisonPlan("all", 0.0, 500.0)
"""None is drawn: a course says itself what is poison. A member that is away is waited for half a second."""


def poison_beside_a_good_write(mutation: str | None = None) -> Violation | None:
    """Two writes that stand side by side in the log are one engine call, and the second is poison."""
    simulation = quiet_cluster(mutation, nodes=3, poison=FOREVER)
    try:
        leader = leader_of(simulation)
        simulation.poison.add("poison", "raises", dict.fromkeys(simulation.ids, float("inf")))
        begin(simulation, leader, write("good", "fine"), write("bad", "poison"))
        until(simulation, lambda: is_over(simulation), "the write is refused", 60)
        assert [(point[1], "bad") for point in simulation.judge.model.refused] == [(1, "bad")]
        simulation.judge.check_equal(list(simulation.processes.values()))
    except Violation as violation:
        return violation
    return None


def fault_that_passes(mutation: str | None = None) -> Violation | None:
    """Three nodes are stuck. The leader proposes that the write is refused, and at this moment a follower can
    no longer hear it, and its engine works again: it must not try the write, for the others refuse it.
    """
    simulation = quiet_cluster(mutation, nodes=3, poison=FOREVER)
    try:
        leader = leader_of(simulation)
        follower = next(node_id for node_id in simulation.ids if node_id != leader)
        ends = dict.fromkeys(simulation.ids, float("inf"))
        simulation.poison.add("poison", "raises", ends)
        begin(simulation, leader, write("bad", "poison"))
        journal = simulation.processes[leader].journal
        impasse = simulation.processes[leader].applier.impasse
        until(
            simulation,
            lambda: impasse.at is not None and journal.last_index > impasse.at.point.entry,
            "the leader proposes",
        )
        simulation.network.block(leader, follower)
        simulation.poison.add("poison", "raises", {**ends, follower: simulation.scheduler.now})
        simulation.scheduler.run_until(simulation.scheduler.now + 1.5)
        simulation.network.unblock(leader, follower)
        until(simulation, lambda: is_over(simulation), "the write is refused everywhere", 60)
        simulation.judge.check_equal(list(simulation.processes.values()))
    except Violation as violation:
        return violation
    return None


def late_member(mutation: str | None = None) -> Violation | None:
    """A write is refused while a member is away whose engine would have done it, and does when it is back: it
    must have seen the agreement, which is committed further on, before it tries the write.
    """
    simulation = quiet_cluster(mutation, nodes=3, poison=FOREVER, batch_bytes=1)
    try:
        leader = leader_of(simulation)
        away, other = [node_id for node_id in simulation.ids if node_id != leader]
        simulation.poison.add("poison", "raises", dict.fromkeys((leader, other), float("inf")))
        create(simulation, leader)
        simulation.crash(away, power=False, why="away", down_s=5)
        enter(simulation, leader, write("bad", "poison"))
        until(simulation, lambda: is_over(simulation), "the two others refuse the write", 60)
        assert not simulation.is_up(away)
        until(simulation, lambda: simulation.is_up(away), "the member is back")
        until(simulation, lambda: is_over(simulation), "it has refused the write too", 60)
        simulation.judge.check_equal(list(simulation.processes.values()))
    except Violation as violation:
        return violation
    return None


def begin(simulation: Simulation, leader: str, *commands: WriteRecords) -> None:
    """A collection, and then one entry with these commands."""
    create(simulation, leader)
    enter(simulation, leader, *commands)


def create(simulation: Simulation, leader: str) -> None:
    """A collection, until everybody has it."""
    command = CreateCollection(TENANT, DATABASE, "c", "c", True, None, None, None)
    propose(simulation.processes[leader], [encode_proposal(Proposal("create", b"", command))])
    until(
        simulation,
        lambda: all("c" in one.engine.digests for one in simulation.processes.values()),
        "all have the collection",
    )


def enter(simulation: Simulation, leader: str, *commands: WriteRecords) -> None:
    """One entry with these commands."""
    proposals = [encode_proposal(Proposal(f"write {command.ids}", b"", command)) for command in commands]
    propose(simulation.processes[leader], proposals)


def write(record_id: str, document: str) -> WriteRecords:
    """An upsert of one record into the one collection of a course."""
    return WriteRecords(
        "upsert", "c", (record_id,), 2, (struct.pack("<2f", 0.5, 0.5),), ({"n": 1},), (document,), None
    )


def is_over(simulation: Simulation) -> bool:
    """A write is refused, and everybody has applied all that is committed."""
    judge = simulation.judge
    return bool(judge.model.refused) and all(
        process.applier.applied_index == len(judge.committed)
        for process in simulation.processes.values()
        if process.is_running
    )
