"""What every course is made of: a cluster without clients and faults, and waiting for what is to happen."""

from __future__ import annotations

import struct
from dataclasses import replace
from typing import TYPE_CHECKING

from cluster.raft.settings import RaftSettings
from cluster.state.commands import CreateCollection, Proposal, WriteRecords, encode_group, encode_proposal
from tests.simulation.clients import DATABASE, TENANT
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
    spares: int = 0,
    poison: PoisonPlan | None = None,
    journal_budget_bytes: int = 1 << 28,
    batch_bytes: int = 1 << 24,
    auto_replace: bool = True,
    upgrade: bool = False,
) -> Simulation:
    """Nodes without clients or faults; a leader that hears nothing stays for two seconds."""
    plan = make_plan(1, nodes=nodes)
    plan = replace(
        plan,
        settings=RaftSettings(
            election_timeout_ms=(200, 4000),
            heartbeat_ms=50,
            journal_budget_bytes=journal_budget_bytes,
            catch_up_entries=10,
            auto_replace=auto_replace,
        ),
        spares=spares,
        limits=replace(plan.limits, max_records=5461),
        weather=Weather(0.0003, 0.002),
        clock_rates=(1.0,) * (nodes + spares),
        clock_offsets=tuple(range(nodes + spares)),
        fsync_high_s=0.0005,
        engine_high_s=0.002,
        clients=0,
        poison=poison,
        batch_bytes=batch_bytes,
        upgrade=upgrade,
    )
    simulation = Simulation(plan, parts_of(mutation))
    for node_id in simulation.founders:
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
