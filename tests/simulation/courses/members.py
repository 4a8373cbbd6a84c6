"""Courses of membership: changes at the worst moment."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cluster.raft.interface import Add, Promote, Remove
from tests.simulation.courses.staging import is_settled, leader_of, propose, quiet_cluster, until
from tests.simulation.invariants import Violation

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from cluster.raft.interface import Change
    from tests.simulation.cluster import Simulation


def at_commit(mutation: str | None) -> Violation | None:
    """Two nodes are added to three. One founder has both changes, but restarts before it has noted on its
    disk that any of it is committed; another has the first only. These two are cut off from the rest.
    """

    def course(simulation: Simulation) -> None:
        first = leader_of(simulation)
        second, third = [name for name in simulation.founders if name != first]
        for spare in ("n4", "n5"):
            _add_learner(simulation, first, spare)
        simulation.crash(third, power=False, why="course", down_s=1000)
        _change(simulation, first, Promote("n4"))
        _cut(simulation, [first], [second])
        _ask(simulation, first, Promote("n5"))
        simulation._start(third)
        last = simulation.processes[first].journal.last_index
        until(simulation, lambda: simulation.disks[third].last_index == last, "the third has both")
        # Its ack is on the way; that the first of the two is committed it knows, but has not written down.
        _cut(simulation, [second, third], ["n4", "n5"])
        simulation.network.block(first, third)
        simulation.crash(third, power=False, why="course", down_s=0.1)
        simulation.scheduler.run_until(simulation.scheduler.now + 0.05)
        simulation.network.block(third, first)
        propose(simulation.processes[first])
        simulation.scheduler.run_until(simulation.scheduler.now + 30)
        _join(simulation, [first], [second, third])
        _join(simulation, [second, third], ["n4", "n5"])
        _end(simulation)

    return _run(mutation, 3, 2, course)


def two_at_once(mutation: str | None) -> Violation | None:
    """A leader is asked for two changes while nobody answers it."""

    def course(simulation: Simulation) -> None:
        leader = leader_of(simulation)
        others = [name for name in simulation.founders if name != leader]
        _cut(simulation, [leader], others)
        _ask(simulation, leader, Remove(others[0]))
        _ask(simulation, leader, Remove(others[1]))
        simulation.scheduler.run_until(simulation.scheduler.now + 0.1)
        _join(simulation, [leader], others)
        _end(simulation)

    return _run(mutation, 5, 0, course)


def before_own_commit(mutation: str | None) -> Violation | None:
    """The error of the published rule: of four nodes a leader adds a fifth, with nobody but that one. Of the
    other three a leader removes the first, with one other. Then the first, the fifth and the one left over
    are three of five.
    """

    def course(simulation: Simulation) -> None:
        first = leader_of(simulation)
        _add_learner(simulation, first, "n5")
        others = [name for name in simulation.founders if name != first]
        _cut(simulation, [first, "n5"], others)
        _ask(simulation, first, Promote("n5"))
        until(simulation, lambda: simulation.newest_leader() in others, "the others have a leader", 30)
        second = simulation.newest_leader()
        assert second is not None
        third, left = [name for name in others if name != second]
        _cut(simulation, [second, third], [left])
        _ask(simulation, second, Remove(first))
        simulation.scheduler.run_until(simulation.scheduler.now + 0.2)
        _cut(simulation, [second], [third])
        _join(simulation, [first, "n5"], [left])
        simulation.scheduler.run_until(simulation.scheduler.now + 30)
        _join(simulation, [second], [third])
        _join(simulation, [second, third], [left])
        _join(simulation, [first, "n5"], [second, third])
        _end(simulation)

    return _run(mutation, 4, 1, course)


def promoted_too_early(mutation: str | None) -> Violation | None:
    """A learner that was away all the time shall become a voter."""

    def course(simulation: Simulation) -> None:
        leader = leader_of(simulation)
        _add_learner(simulation, leader, "n4")
        simulation.crash("n4", power=False, why="course", down_s=5)
        for _ in range(20):
            propose(simulation.processes[leader])
        simulation.scheduler.run_until(simulation.scheduler.now + 1)
        _ask(simulation, leader, Promote("n4"))
        _end(simulation)

    return _run(mutation, 3, 1, course)


def learners_alone(mutation: str | None) -> Violation | None:
    """A leader is left alone with two learners."""

    def course(simulation: Simulation) -> None:
        leader = leader_of(simulation)
        others = [name for name in simulation.founders if name != leader]
        for spare in ("n4", "n5"):
            _add_learner(simulation, leader, spare)
        _cut(simulation, [leader, "n4", "n5"], others)
        propose(simulation.processes[leader])
        simulation.scheduler.run_until(simulation.scheduler.now + 1)
        _join(simulation, [leader, "n4", "n5"], others)
        _end(simulation)

    return _run(mutation, 3, 2, course)


def removed_while_away(mutation: str | None) -> Violation | None:
    """A node is removed while it is down, and comes back; also one that is removed while it is there."""

    def course(simulation: Simulation) -> None:
        leader = leader_of(simulation)
        away, there = [name for name in simulation.founders if name != leader][:2]
        simulation.crash(away, power=False, why="course", down_s=1000)
        _change(simulation, leader, Remove(away))
        _change(simulation, leader, Remove(there))
        simulation.judge.expect_leader(leader)
        simulation._start(away)
        simulation.scheduler.run_until(simulation.scheduler.now + 30)
        for name in (away, there):
            assert simulation.processes[name].node.standings.is_out(), f"{name} does not know"
        simulation.judge.end_steady()
        _end(simulation)

    return _run(mutation, 5, 0, course)


def cut_off_change(mutation: str | None) -> Violation | None:
    """A leader that nobody hears removes a node; the others overwrite that entry."""

    def course(simulation: Simulation) -> None:
        first = leader_of(simulation)
        others = [name for name in simulation.founders if name != first]
        _cut(simulation, [first], others)
        _ask(simulation, first, Remove(others[0]))
        until(simulation, lambda: simulation.newest_leader() in others, "the others have a leader", 30)
        second = simulation.newest_leader()
        assert second is not None
        for _ in range(3):
            propose(simulation.processes[second])
        _join(simulation, [first], others)
        _end(simulation)

    return _run(mutation, 3, 0, course)


def compacted_change(mutation: str | None) -> Violation | None:
    """A change is compacted away, and the nodes are started again."""

    def course(simulation: Simulation) -> None:
        leader = leader_of(simulation)
        gone = next(name for name in simulation.founders if name != leader)
        _change(simulation, leader, Remove(gone))
        for _ in range(200):
            propose(simulation.processes[leader])
        journal = simulation.processes[leader].journal
        at = simulation.judge.configurations[-1][0]
        until(simulation, lambda: journal.base_index > at, "the change is compacted away")
        simulation.crash(leader, power=False, why="course", down_s=0.1)
        simulation.scheduler.run_until(simulation.scheduler.now + 5)
        _end(simulation)

    return _run(mutation, 4, 0, course, budget=300)


def wiped_of_two(mutation: str | None = None) -> Violation | None:
    """Of two nodes, one forgets everything, first the one that follows and then the one that leads: each time
    the other one, which has all that was ever committed, fills it and admits it.
    """

    def course(simulation: Simulation) -> None:
        for role in ("follower", "leader"):
            leader = leader_of(simulation)
            [other] = [name for name in simulation.founders if name != leader]
            for _ in range(3):
                propose(simulation.processes[leader])
            until(simulation, lambda leader=leader: is_settled(simulation, leader), "both have everything")
            wiped = leader if role == "leader" else other
            simulation.crash(wiped, power=True, why="course", down_s=0.5)
            simulation.disks[wiped].wipe()
            simulation.judge.on_wiped(wiped)
            until(simulation, lambda wiped=wiped: simulation.disks[wiped].has_vote, "it has a vote again", 60)
        _end(simulation)

    return _run(mutation, 2, 0, course)


def leader_removes_itself(mutation: str | None = None) -> Violation | None:
    """A leader that is removed leads until that is committed, then another does at once, down to one node."""

    def course(simulation: Simulation) -> None:
        for _ in range(2):
            leader = leader_of_members(simulation)
            _change(simulation, leader, Remove(leader))
            until(
                simulation,
                lambda leader=leader: simulation.newest_leader() not in (None, leader),
                "another leads",
                0.1,
            )
        _end(simulation)

    return _run(mutation, 3, 0, course)


def no_vote_to_lend(mutation: str | None = None) -> Violation | None:
    """Of two voters one goes; it has taken the word of a learner that lost its disk and has no vote. Had that
    learner become a voter, the one that is left would have nobody to be elected by.
    """

    def course(simulation: Simulation) -> None:
        leader = leader_of(simulation)
        _add_learner(simulation, leader, "n3")
        simulation.crash("n3", power=True, why="course", down_s=0.5)
        simulation.disks["n3"].wipe()
        simulation.judge.on_wiped("n3")
        leads = simulation.processes[leader]
        until(simulation, lambda: leads.raft.status().without_vote == ("n3",), "the learner is back")
        until(simulation, simulation._converged, "it has everything but a vote")
        assert not simulation.disks["n3"].has_vote
        _ask(simulation, leader, Promote("n3"))
        simulation.scheduler.run_until(simulation.scheduler.now + 1)
        [other] = [name for name in simulation.founders if name != leader]
        _ask(simulation, leader, Remove(leader))
        disk, last = simulation.disks[other], leads.journal.last_index + 1
        until(
            simulation, lambda: disk.last_index >= last, "the other has the change, and no word of its commit"
        )
        simulation.network.block(leader, other)
        simulation.scheduler.run_until(simulation.scheduler.now + 1)
        simulation.network.unblock(leader, other)
        _end(simulation)

    return _run(mutation, 2, 1, course, auto_replace=False)


def leader_of_members(simulation: Simulation) -> str:
    """The leader, once the members have all of its log."""
    until(
        simulation,
        lambda: simulation.newest_leader() is not None and simulation._converged(),
        "all agree",
        30,
    )
    leader = simulation.newest_leader()
    assert leader is not None
    return leader


def _run(
    mutation: str | None,
    founders: int,
    spares: int,
    course: Callable[[Simulation], None],
    *,
    budget: int = 1 << 28,
    auto_replace: bool = True,
) -> Violation | None:
    simulation = quiet_cluster(
        mutation, founders, spares=spares, journal_budget_bytes=budget, auto_replace=auto_replace
    )
    try:
        course(simulation)
    except Violation as violation:
        return violation
    return None


def _end(simulation: Simulation) -> None:
    until(
        simulation,
        lambda: simulation.newest_leader() is not None and simulation._converged(),
        "all agree",
        60,
    )


def _ask(simulation: Simulation, leader: str, change: Change) -> None:
    simulation.operator.ask(leader, change)


def _change(simulation: Simulation, leader: str, change: Change) -> None:
    made = simulation.operator.made
    _ask(simulation, leader, change)
    until(simulation, lambda: simulation.operator.made > made, f"{change} is committed")


def _add_learner(simulation: Simulation, leader: str, name: str) -> None:
    simulation._start(name)
    _change(simulation, leader, Add(name, f"{name}:1"))
    until(
        simulation, lambda: simulation.disks[name].has_vote and simulation._converged(), f"{name} is admitted"
    )


def _cut(simulation: Simulation, some: Iterable[str], others: Iterable[str]) -> None:
    others = list(others)
    for one in some:
        for other in others:
            simulation.network.block(one, other)
            simulation.network.block(other, one)


def _join(simulation: Simulation, some: Iterable[str], others: Iterable[str]) -> None:
    others = list(others)
    for one in some:
        for other in others:
            simulation.network.unblock(one, other)
            simulation.network.unblock(other, one)
