"""What one seed means: size and settings of the cluster, its weather, its clients, and how hostile it is."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace

from cluster.propose.grouping import GroupLimits
from cluster.raft.settings import RaftSettings
from cluster.state.machine import Limits
from tests.simulation.network import Weather
from tests.simulation.poison import PoisonPlan, poison_plan

FAULTS = (
    "kill",
    "power",
    "crash-point",
    "crash-majority",
    "crash-all",
    "restart",
    "reset",
    "black-hole",
    "one-way",
    "partition",
    "isolate-leader",
    "isolate-leader-one-way",
    "flap",
    "late-acks",
    "deaf-leader",
    "sleeping-leader",
    "ambush",
    "old-term",
    "spikes",
    "pause",
    "pause-leader",
    "slow-disk",
    "full-disk",
    "lost-disk",
    "wiped-disk",
    "transfer",
)
PROFILES: dict[str, tuple[str, ...]] = {
    "everything": FAULTS,
    "network": (
        "reset",
        "black-hole",
        "one-way",
        "partition",
        "isolate-leader",
        "isolate-leader-one-way",
        "flap",
        "late-acks",
        "deaf-leader",
        "ambush",
        "spikes",
    ),
    "crashes": (
        "kill",
        "power",
        "crash-point",
        "crash-point",
        "crash-majority",
        "crash-all",
        "restart",
        "reset",
    ),
    "leaders": (
        "isolate-leader",
        "isolate-leader-one-way",
        "deaf-leader",
        "deaf-leader",
        "sleeping-leader",
        "pause-leader",
        "transfer",
        "crash-point",
        "late-acks",
        "ambush",
        "old-term",
        "old-term",
    ),
    "disks": ("slow-disk", "full-disk", "lost-disk", "wiped-disk", "crash-point", "power", "crash-all"),
    # One follower's links only: the leader must stay (see Judge.on_term).
    "minority": (),
    # Never drawn: for `test_staleness` and whoever asks for it.
    "slow": (
        "slow-link",
        "slow-link",
        "slow-link",
        "pause",
        "pause",
        "pause-leader",
        "sleeping-leader",
        "isolate-leader",
        "one-way",
        "black-hole",
        "partition",
        "reset",
        "kill",
        "restart",
        "transfer",
    ),
}


@dataclass(frozen=True)
class Plan:
    """Drawn from the seed alone."""

    seed: int
    nodes: int
    profile: str
    active_s: float
    settings: RaftSettings
    limits: Limits
    group_limits: GroupLimits
    cache_bytes: int
    weather: Weather
    clock_rates: tuple[float, ...]
    clock_offsets: tuple[float, ...]
    engine_low_s: float
    engine_high_s: float
    fsync_high_s: float
    clients: int
    think_s: float
    calm_s: float
    """Mean time between two faults."""
    poison: PoisonPlan | None
    snapshots: bool
    """Whether the log is kept so briefly that snapshots are needed (see `tests.simulation.filling`)."""
    probe_bytes: int
    """In place of the node's own constant, so that few bytes are many messages."""
    batch_bytes: int = 1 << 24
    """What the applier takes from the log at once; an entry at least."""
    upgrade: bool = False
    """Whether all nodes begin with an older build (see `tests.simulation.builds`)."""
    spares: int = 0
    """Nodes that are no founders; with any, an operator changes the members all the time."""

    @property
    def dead_after_s(self) -> float:
        return self.settings.dead_after_ms / 1000

    @property
    def write_timeout_s(self) -> float:
        return max(0.5, 2 * self.settings.election_timeout_ms[1] / 1000)

    @property
    def read_timeout_s(self) -> float:
        return max(0.3, self.settings.election_timeout_ms[1] / 1000)

    @property
    def patience_s(self) -> float:
        """After everything is healed the nodes must agree within this time."""
        return 10 * self.settings.election_timeout_ms[1] / 1000 + 5

    def engine_delay_s(self, rng: random.Random) -> float:
        return rng.uniform(self.engine_low_s, self.engine_high_s)


def make_plan(
    seed: int,
    nodes: int | None = None,
    seconds: float | None = None,
    profile: str | None = None,
    *,
    changes: bool = False,
    snapshots: bool = False,
    upgrade: bool = False,
) -> Plan:
    """The plan of a seed; the arguments override what the seed would choose.

    With `changes` members come and go, from a cluster of one to five founders. With `snapshots` the log is
    kept briefly, and more is lost: nodes need snapshots. With `upgrade` nodes of an older build are replaced
    one by one. All of these are other runs than those of the plain seed.
    """
    if upgrade:
        snapshots = snapshots or random.Random(f"upgrade {seed}").random() < 0.3
        plan = _plan(seed, nodes, seconds, profile, snapshots=snapshots)
        return replace(plan, upgrade=True, profile=plan.profile.replace("minority", "everything"))
    if changes:
        return _with_changes(seed, nodes, seconds, profile)
    return _plan(seed, nodes, seconds, profile, snapshots=snapshots)


def _with_changes(seed: int, nodes: int | None, seconds: float | None, profile: str | None) -> Plan:
    rng = random.Random(f"changes {seed}")
    founders = nodes or rng.choices((1, 2, 3, 4, 5), (1, 3, 6, 3, 2))[0]
    spares = rng.choice((1, 2, 3))
    plan = _plan(seed, founders + spares, seconds, profile)
    profile = plan.profile if plan.profile != "minority" else "everything"
    settings = plan.settings
    if rng.random() < 0.8:
        # Else a new member may need what is compacted away, and there is nobody to add.
        settings = replace(settings, append_bytes=1024, journal_budget_bytes=1 << 28)
        object.__setattr__(settings, "append_bytes", plan.settings.append_bytes)
    # Not drawn, so that the other draws stay what they were.
    object.__setattr__(settings, "auto_replace", seed % 3 != 2)
    return replace(plan, nodes=founders, spares=spares, profile=profile, settings=settings, poison=None)


def _plan(
    seed: int,
    nodes: int | None,
    seconds: float | None,
    profile: str | None,
    *,
    snapshots: bool = False,
) -> Plan:
    rng = random.Random(f"plan {seed}")
    chosen = rng.choices((3, 5, 7), (8, 2, 1))[0]
    drawn = rng.choices(tuple(PROFILES), (6, 4, 4, 5, 2, 2, 0))[0]
    profile = profile or drawn
    low = rng.choice((150, 300, 300, 600, 1000))
    settings = RaftSettings(
        election_timeout_ms=(low, low * 2),
        heartbeat_ms=max(1, low // rng.choice((3, 4, 10))),
        early_election_ms=rng.choice(((20, 150), (5, 40), (20, 150))),
        inflight_bytes=rng.choice((1024, 4096, 65536)),
        journal_budget_bytes=rng.choice((1500, 6000, 20_000, 1 << 28)),
    )
    # Smaller than an operator may choose: so that few bytes are many messages.
    object.__setattr__(settings, "append_bytes", rng.choice((100, 1024, 65536)))
    if snapshots:
        own = random.Random(f"snapshots {seed}")
        object.__setattr__(settings, "journal_budget_bytes", own.choice((500, 1500, 6000)))
        object.__setattr__(settings, "log_retention_bytes", own.choice((800, 2000, 5000)))
    weather = Weather(0.0003, 0.002)
    if profile != "minority":
        kind = rng.random()
        if kind < 0.15:
            weather = Weather(0.005, 0.03, 0.02, 0.3)
        elif kind < 0.4:
            weather = Weather(0.0003, 0.01, 0.05, low / 2000)
        weather.loss_chance = rng.choice((0.0, 0.01, 0.05))
    size = nodes or chosen
    drift = rng.choice((0.0, 1e-4, 0.01))
    # One clock may be fast and the other slow.
    object.__setattr__(settings, "max_drift", 2.1 * drift)
    return Plan(
        seed=seed,
        nodes=size,
        profile=profile,
        active_s=rng.uniform(5, 12) if seconds is None else seconds,
        settings=settings,
        limits=Limits(
            window_ms=15 * 60 * 1000,
            max_requests=50_000,
            max_records=rng.choice((3, 8, 5461)),
        ),
        group_limits=GroupLimits(
            entry_bytes=rng.choice((300, 600, 4096, 1 << 22)),
            in_flight=rng.choice((1, 1, 2, 16)),
            queue_bytes=20_000,
        ),
        cache_bytes=rng.choice((1024, 8192, 1 << 20)),
        weather=weather,
        clock_rates=tuple(1 + rng.uniform(-drift, drift) for _ in range(size)),
        clock_offsets=tuple(rng.uniform(0, 50_000) for _ in range(size)),
        engine_low_s=0.0001,
        engine_high_s=rng.choice((0.002, 0.02, 0.1)),
        fsync_high_s=rng.choice((0.0, 0.0005, 0.005)),
        clients=rng.choice((2, 3, 5, 12, 20)),
        think_s=rng.choice((0.02, 0.1, 0.2)),
        calm_s=rng.choice((0.3, 0.8, 2.0)),
        poison=poison_plan(random.Random(f"poison plan {seed}")) if profile != "minority" else None,
        snapshots=snapshots,
        probe_bytes=rng.choice((200, 1024, 65536)),
    )
