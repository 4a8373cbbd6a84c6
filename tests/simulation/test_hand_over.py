"""Of three nodes two are stuck on their own account: the well one comes to lead, wherever leadership was."""

from __future__ import annotations

import struct
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from cluster.raft.settings import RaftSettings
from cluster.state.commands import CreateCollection, Proposal, WriteRecords, encode_group, encode_proposal
from tests.simulation.cluster import Simulation
from tests.simulation.network import Weather
from tests.simulation.plan import make_plan
from tests.simulation.poison import PoisonPlan

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.simulation.parts import Parts

DOCUMENT = "poison.1"


def until(simulation: Simulation, done: Callable[[], bool], what: str) -> None:
    if not simulation.scheduler.run_until(simulation.scheduler.now + 60, done):
        raise AssertionError(f"not within 60 simulated seconds: {what}")


def quiet_cluster(parts: Parts | None = None) -> Simulation:
    """Three nodes without clients or faults, on some of which engines may fail."""
    plan = replace(
        make_plan(1, nodes=3),
        settings=RaftSettings(election_timeout_ms=(200, 400), heartbeat_ms=50),
        weather=Weather(0.0003, 0.002),
        clock_rates=(1.0,) * 3,
        fsync_high_s=0.0005,
        engine_low_s=0.005,
        engine_high_s=0.01,
        clients=0,
        poison=PoisonPlan("some", 0.0, float("inf")),
    )
    simulation = Simulation(plan, parts)
    for node_id in simulation.ids:
        simulation._start(node_id)
    return simulation


@pytest.mark.parametrize("well", [0, 1])
def test_the_well_one_comes_to_lead(well: int) -> None:
    """It is the follower that a hand-over to anybody would not choose (names break ties), and the other."""
    simulation = quiet_cluster()
    until(simulation, lambda: simulation.newest_leader() is not None, "a leader")
    leader = simulation.newest_leader()
    assert leader is not None
    followers = sorted(name for name in simulation.ids if name != leader)
    healthy, sick = followers[well], followers[1 - well]
    simulation.poison.add(DOCUMENT, "raises", dict.fromkeys((leader, sick), float("inf")))
    process = simulation.processes[leader]
    write = WriteRecords("add", "c", ("a",), 1, (struct.pack("<f", 1.0),), None, (DOCUMENT,), None)
    create = CreateCollection("default_tenant", "default_database", "name", "c", False, None, None, None)
    encoded = [encode_proposal(Proposal(f"r{at}", b"", one)) for at, one in enumerate((create, write))]
    process.enqueue(lambda: process.raft.propose(encode_group(process.wall_ms(), encoded)) and None)
    until(simulation, lambda: simulation.newest_leader() == healthy, f"{healthy} leads")
    simulation.scheduler.run_until(simulation.scheduler.now + 20)
    assert simulation.newest_leader() == healthy, "leadership stays there"
    for name in (leader, sick):
        assert simulation.processes[name].applier.impasse.is_local
    simulation.poison.heal()
    until(
        simulation, lambda: all(p.applier.impasse.at is None for p in simulation.processes.values()), "cure"
    )
