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
    from cluster.state.commands import Command
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


def begin(simulation: Simulation, leader: str, *commands: Command) -> None:
    """A collection, once everybody has it, and then one entry with these commands."""
    process = simulation.processes[leader]
    create = CreateCollection(TENANT, DATABASE, "c", "c", True, None, None, None)
    propose(process, [encode_proposal(Proposal("create", b"", create))])
    until(
        simulation,
        lambda: all("c" in one.engine.digests for one in simulation.processes.values()),
        "all have the collection",
    )
    proposals = [
        encode_proposal(Proposal(f"write {at}", b"", command)) for at, command in enumerate(commands)
    ]
    propose(process, proposals)


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
