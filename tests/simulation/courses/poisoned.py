"""Courses of a poisoned entry: writes on which engines fail, and what the cluster makes of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.simulation.courses.staging import begin, create, enter, leader_of, quiet_cluster, until, write
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


def good_between_bad(mutation: str | None = None) -> Violation | None:
    """Two refused writes, a good one, a third refused one: the collection goes on to take writes."""
    simulation = quiet_cluster(mutation, nodes=3, poison=FOREVER)
    try:
        leader = leader_of(simulation)
        names = ("bad 1", "bad 2", "good", "bad 3", "last")
        for name in names:
            if name.startswith("bad"):
                simulation.poison.add(name, "raises", dict.fromkeys(simulation.ids, float("inf")))
        create(simulation, leader)
        for name in names:
            enter(simulation, leader, write(name, name))
        until(simulation, lambda: is_over(simulation, 3), "three are refused", 60)
        simulation.judge.check_equal(list(simulation.processes.values()))
    except Violation as violation:
        return violation
    return None


def is_over(simulation: Simulation, refused: int = 1) -> bool:
    """So many writes are refused, and everybody has applied all that is committed."""
    judge = simulation.judge
    return len(judge.model.refused) == refused and all(
        process.applier.applied_index == len(judge.committed)
        for process in simulation.processes.values()
        if process.is_running
    )
