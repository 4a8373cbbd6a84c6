"""The simulation finds what is known of unmodified pysyncobj, and only under the conditions that cause it."""

from __future__ import annotations

from tests.simulation.network import Weather
from tests.simulation.stock import StockCluster, lose_committed_entries, rejoin

LOSS = {"leader completeness", "committed never changes", "committed is durable here"}


def test_hazard_2_committed_entries_are_lost() -> None:
    found = {seed: lose_committed_entries(seed) for seed in range(4)}
    lost = {seed: violation.rule for seed, violation in found.items() if violation is not None}
    assert lost, "the simulation has lost its teeth: stock pysyncobj survived four hostile runs"
    assert set(lost.values()) <= LOSS


def test_hazard_2_needs_a_hostile_network() -> None:
    """On a calm one the library loses nothing, so it is not the adapter that breaks it."""
    cluster = StockCluster(1, batch_bytes=512, weather=Weather(0.001, 0.005))
    assert cluster.run(10, lambda: cluster.leader() is not None)
    for number in range(300):
        leader = cluster.leader()
        assert leader is not None
        cluster.put(leader, b"%d" % number)
        cluster.run(0.02)
    assert cluster.run(5, cluster.converged)
    assert len(cluster.acked) == 300


def test_hazard_2b_a_follower_never_rejoins() -> None:
    assert not rejoin(1)


def test_hazard_2b_needs_more_than_one_batch_of_backlog() -> None:
    assert rejoin(1, batch_bytes=1 << 20)
