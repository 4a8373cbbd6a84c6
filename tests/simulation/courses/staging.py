"""What every course is made of: a cluster without clients and faults, and waiting for what is to happen."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from cluster.raft.settings import RaftSettings
from cluster.state.commands import encode_group
from tests.simulation.cluster import Simulation
from tests.simulation.mutations import parts_of
from tests.simulation.network import Weather
from tests.simulation.plan import make_plan

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.simulation.poison import PoisonPlan
    from tests.simulation.process import Process


def quiet_cluster(
    mutation: str | None,
    nodes: int = 5,
    *,
    poison: PoisonPlan | None = None,
    journal_budget_bytes: int = 1 << 28,
    batch_bytes: int = 1 << 24,
) -> Simulation:
    """Nodes without clients or faults; a leader that hears nothing stays for two seconds."""
    plan = make_plan(1, nodes=nodes)
    plan = replace(
        plan,
        settings=RaftSettings(
            election_timeout_ms=(200, 4000), heartbeat_ms=50, journal_budget_bytes=journal_budget_bytes
        ),
        limits=replace(plan.limits, max_records=5461),
        weather=Weather(0.0003, 0.002),
        clock_rates=(1.0,) * nodes,
        fsync_high_s=0.0005,
        engine_high_s=0.002,
        clients=0,
        poison=poison,
        batch_bytes=batch_bytes,
    )
    simulation = Simulation(plan, parts_of(mutation))
    for node_id in simulation.ids:
        simulation._start(node_id)
    return simulation


def leader_of(simulation: Simulation) -> str:
    """The leader that all who are up follow, once they have everything."""
    until(simulation, lambda: simulation.newest_leader() is not None, "a leader")

    def settled() -> bool:
        leader = simulation.newest_leader()
        return leader is not None and is_settled(simulation, leader)

    until(simulation, settled, "all follow the leader")
    leader = simulation.newest_leader()
    assert leader is not None
    return leader


def propose(process: Process, proposals: list[bytes] | None = None) -> None:
    """An entry with these proposals (none: an empty one)."""
    process.enqueue(lambda: process.raft.propose(encode_group(process.wall_ms(), proposals or [])) and None)


def is_settled(simulation: Simulation, leader: str) -> bool:
    """Whether all who are up follow `leader` and have all of its log."""
    last = simulation.processes[leader].journal.last_index
    living = [process for process in simulation.processes.values() if process.is_running]
    return last > 0 and all(
        process.node.commit_index == last == process.journal.durable_index
        and process.node.leader_id == leader
        and process.wire is not None
        and len(process.wire.ends) == len(living) - 1
        for process in living
    )


def until(simulation: Simulation, done: Callable[[], bool], what: str, seconds: float = 10) -> None:
    """Let the simulation go on until `done`; a course that does not come about is an error of the test."""
    if not simulation.scheduler.run_until(simulation.scheduler.now + seconds, done):
        raise AssertionError(
            f"the course does not come about: not within {seconds} simulated seconds: {what}"
        )
