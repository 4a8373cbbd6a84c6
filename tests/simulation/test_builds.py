"""A rolling upgrade under writes and faults: the level rises with the last old node, not before."""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context

import pytest

from cluster.state.commands import NEWEST_LEVEL
from tests.simulation.builds import OLD
from tests.simulation.cluster import Result, Simulation
from tests.simulation.courses.staging import leader_of, quiet_cluster, until
from tests.simulation.run import Failure, run_seed

SEEDS = 30


@pytest.mark.timeout(600)
def test_no_seed_of_an_upgrade_breaks_a_promise() -> None:
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        results = list(pool.map(partial(run_seed, upgrade=True), range(SEEDS), chunksize=5))
    failures = [result.text for result in results if isinstance(result, Failure)]
    assert not failures, "\n\n".join(failures)
    done = [result for result in results if isinstance(result, Result)]
    # A run in which nothing happens proves nothing.
    assert sum(result.level == NEWEST_LEVEL for result in done) > SEEDS // 2
    assert sum(result.verified for result in done) > SEEDS
    assert sum(result.crashes for result in done) > SEEDS


def test_the_same_seed_is_the_same_run_with_an_upgrade() -> None:
    one, other = (run_seed(3, upgrade=True, hashing=True) for _ in range(2))
    assert isinstance(one, Result)
    assert one == other


def levels(simulation: Simulation) -> set[int]:
    return {process.machine.level for process in simulation.processes.values() if process.is_running}


def test_a_member_that_is_away_holds_the_level_and_comes_back_with_the_old_build() -> None:
    simulation = quiet_cluster(None, nodes=3, upgrade=True)
    leader = leader_of(simulation)
    away, other = [name for name in simulation.founders if name != leader]
    simulation.crash(away, power=False, why="course", down_s=1000)
    for name in (other, leader):
        simulation.builds.replace(name)
        leader_of(simulation)
    simulation.scheduler.run_until(simulation.scheduler.now + 5)
    assert levels(simulation) == {OLD}
    simulation._start(away)  # of the old build: it may, for nothing has changed
    leader_of(simulation)
    assert levels(simulation) == {OLD}
    simulation.builds.replace(away)
    until(simulation, lambda: levels(simulation) == {NEWEST_LEVEL}, "the level rises")


def test_an_old_build_is_not_let_in_again_once_the_level_is_above_it() -> None:
    simulation = quiet_cluster(None, nodes=3, upgrade=True)
    leader_of(simulation)
    simulation.builds.finish()
    until(simulation, lambda: levels(simulation) == {NEWEST_LEVEL}, "the level rises")
    leader = leader_of(simulation)
    name = next(name for name in simulation.founders if name != leader)
    simulation.crash(name, power=False, why="course", down_s=1000)
    simulation.disks[name].wipe()  # else it would not start: its own state is of the level
    simulation.judge.on_wiped(name)
    simulation.builds.newest[name] = OLD
    simulation._start(name)
    simulation.scheduler.run_until(simulation.scheduler.now + 5)
    process = simulation.processes[name]
    assert process.is_running
    assert process.wire is not None
    assert not process.wire.ends
    simulation.builds.replace(name, politely=False)
    until(simulation, lambda: levels(simulation) == {NEWEST_LEVEL}, "it is let in")
