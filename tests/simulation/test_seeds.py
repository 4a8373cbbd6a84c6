"""A thousand hostile runs of the real node, one after the other in two processes; more with `make soak`."""

from __future__ import annotations

import itertools
import os
import time

import pytest

from tests.simulation.cluster import Result
from tests.simulation.run import Failure, run_many, run_seed

BATCHES = 5
SEEDS_A_BATCH = 200
SEEDS_BEYOND = 1_000_000
"""Where the soak begins: other seeds than those of the default suite."""


@pytest.mark.timeout(1200)  # seconds of CPU; on a machine that others use, minutes
@pytest.mark.parametrize("batch", range(BATCHES))
def test_no_seed_breaks_a_promise(batch: int) -> None:
    first = batch * SEEDS_A_BATCH
    results = list(run_many(range(first, first + SEEDS_A_BATCH)))
    failures = [result.text for result in results if isinstance(result, Failure)]
    assert not failures, "\n\n".join(failures)
    done = [result for result in results if isinstance(result, Result)]
    assert len(done) == SEEDS_A_BATCH
    # A run in which nothing happens proves nothing.
    assert sum(result.crashes for result in done) > SEEDS_A_BATCH
    assert sum(result.terms for result in done) > 2 * SEEDS_A_BATCH
    assert sum(result.commits for result in done) > 20 * SEEDS_A_BATCH
    assert sum(result.reads for result in done) > 10 * SEEDS_A_BATCH


@pytest.mark.parametrize("nodes", [3, 5, 7])
def test_every_size_of_cluster(nodes: int) -> None:
    for seed in range(2):
        result = run_seed(seed, nodes=nodes)
        assert isinstance(result, Result), result.text


@pytest.mark.timeout(1200)
def test_no_seed_breaks_a_promise_with_snapshots() -> None:
    """The log is kept so briefly that nodes which were away, or lost their disk, are filled."""
    results = list(run_many(range(200, 350), snapshots=True))
    failures = [result.text for result in results if isinstance(result, Failure)]
    assert not failures, "\n\n".join(failures)
    assert sum(result.installs for result in results if isinstance(result, Result)) > 100


@pytest.mark.parametrize("seed", [397, 654])
def test_poison_that_spoils_a_merged_call(seed: int) -> None:
    """An engine dies after it did a merged call, which is then taken apart: reads meanwhile showed writes
    whose index they did not tell."""
    result = run_seed(seed)
    assert isinstance(result, Result), result.text


@pytest.mark.soak
@pytest.mark.timeout(0)
def test_soak() -> None:
    """As many seeds as fit in SOAK_MINUTES (10), in SOAK_JOBS processes (2).

    SOAK_SEED is the first, to go on where a soak ended. A line a minute says how far it is.
    """
    minutes = float(os.environ.get("SOAK_MINUTES", "10"))
    first = int(os.environ.get("SOAK_SEED", SEEDS_BEYOND + int(time.time()) // 60 * 10_000))
    began = time.monotonic()
    deadline = began + minutes * 60
    seeds = itertools.takewhile(lambda _: time.monotonic() < deadline, itertools.count(first))
    count = 0
    simulated_s = 0.0
    failures: list[str] = []
    next_line = began

    def report() -> None:
        print(
            f"soak: {count} seeds from {first}, {len(failures)} failures, {simulated_s / 3600:.1f} simulated "
            f"hours, after {(time.monotonic() - began) / 60:.1f} minutes",
            flush=True,
        )

    for result in run_many(seeds, int(os.environ.get("SOAK_JOBS", "2"))):
        count += 1
        if isinstance(result, Failure):
            failures.append(result.text)
            print(result.text, flush=True)
        else:
            simulated_s += result.simulated_s
        if time.monotonic() >= next_line:
            next_line = time.monotonic() + 60
            report()
    report()
    assert not failures, "\n\n".join(failures[:5])
