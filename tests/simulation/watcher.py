"""Reads with a staleness bound at every node: what the judge compares with the truth."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cluster.reads import Guarantee, Level

if TYPE_CHECKING:
    import random

    from tests.simulation.cluster import Simulation


class Watcher:
    """It asks nodes directly, remembers nothing, and draws from a random source of its own."""

    def __init__(self, simulation: Simulation, rng: random.Random) -> None:
        self._simulation = simulation
        self._rng = rng

    def start(self) -> None:
        self._rest()

    def engine_delay_s(self) -> float:
        """Reads take as long as calls."""
        return self._simulation.plan.engine_delay_s(self._rng)

    def _rest(self) -> None:
        heartbeat_s = self._simulation.plan.settings.heartbeat_s
        self._simulation.scheduler.after(self._rng.expovariate(1 / max(0.1, heartbeat_s)), self._read)

    def _read(self) -> None:
        simulation, rng = self._simulation, self._rng
        if not simulation.wants_traffic:
            return
        # Some that only a leader meets, some that a follower over a slow link meets.
        bound_ms = simulation.plan.settings.heartbeat_ms * rng.choice((1, 2, 3, 5, 20))
        level = rng.choice((Level.EVENTUAL, Level.EVENTUAL, Level.SESSION, Level.LINEARIZABLE))
        guarantee = Guarantee(level, 0, float(bound_ms))
        collection_id = rng.choice(sorted(simulation.balancer.collections.values()) or ["none"])
        name = rng.choice(simulation.ids)
        if simulation.is_up(name):
            simulation.processes[name].take_request(
                lambda process, reply: process.read(guarantee, collection_id, reply), _ignore
            )
        self._rest()


def _ignore(value: object, error: object) -> None:
    """The judge has seen it."""
