"""What goes wrong, when: faults drawn one after the other from the seed's profile, each with its own end."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.simulation.network import Weather
from tests.simulation.plan import PROFILES

if TYPE_CHECKING:
    import random
    from collections.abc import Callable

    from tests.simulation.cluster import Simulation

CRASH_POINTS = (
    "journal-before",
    "journal-torn",
    "journal-unsynced",
    "journal-unsynced",
    "journal-after",
    "journal-before",
    "journal-after",
    "send",
    "send",
    "engine-before",
    "engine-part",
    "engine-after",
    "store-before",
    "store-torn",
    "store-unsynced",
    "store-after",
    "amid-an-entry",
    "amid-an-entry",
)


class FaultPlanner:
    """Draws faults until told to stop; `heal` ends all that last."""

    def __init__(self, simulation: Simulation, rng: random.Random) -> None:
        self._simulation = simulation
        self._scheduler = simulation.scheduler
        self._rng = rng
        self._lasting: dict[int, Callable[[], None]] = {}
        self._count = 0
        self._is_over = False
        self._ambushes = 0
        self._hunted = 0
        self.counts: dict[str, int] = {}

    def start(self) -> None:
        plan = self._simulation.plan
        if plan.profile == "minority":
            self._scheduler.after(3 * plan.settings.election_timeout_ms[1] / 1000, self._trouble_one)
        else:
            self._next()

    def heal(self) -> None:
        self._is_over = True
        for number in sorted(self._lasting):
            self._end(number)

    # ------------------------------------------------------------------ drawing

    def _next(self) -> None:
        self._scheduler.after(self._rng.expovariate(1 / self._simulation.plan.calm_s), self._strike)

    def _strike(self) -> None:
        if self._is_over:
            return
        name = self._rng.choice(PROFILES[self._simulation.plan.profile])
        self.counts[name] = self.counts.get(name, 0) + 1
        self._simulation.trace.add(self._scheduler.now, "fault", name)
        getattr(self, "_" + name.replace("-", "_"))()
        self._next()

    def _duration_s(self) -> float:
        """Mostly around an election timeout, sometimes far longer."""
        timeout_s = self._simulation.plan.settings.election_timeout_ms[1] / 1000
        return self._rng.choice((0.2, 1.0, 1.0, 3.0)) * self._rng.uniform(0.2, 1.5) * timeout_s + 0.01

    def _last(self, end: Callable[[], None], seconds: float | None = None) -> None:
        self._count += 1
        number = self._count
        self._lasting[number] = end
        self._scheduler.after(self._duration_s() if seconds is None else seconds, lambda: self._end(number))

    def _end(self, number: int) -> None:
        end = self._lasting.pop(number, None)
        if end is not None:
            end()

    def _slow_until(self, seconds: float) -> None:
        """Until then messages or disks are slower than a leader can know: it may believe longer."""
        simulation = self._simulation
        simulation.slow_until_s = max(simulation.slow_until_s, self._scheduler.now + seconds)

    def _one(self) -> str:
        return self._rng.choice(self._simulation.ids)

    def _two(self) -> tuple[str, str]:
        one, other = self._rng.sample(self._simulation.ids, 2)
        return one, other

    def _leader(self) -> str:
        return self._simulation.newest_leader() or self._one()

    # ------------------------------------------------------------------ processes

    def _crash(self, node_id: str, *, power: bool, down_s: float | None = None) -> None:
        if self._simulation.is_up(node_id):
            self._simulation.crash(node_id, power=power, why="fault", down_s=down_s)

    def _kill(self) -> None:
        self._crash(self._pick(), power=False)

    def _power(self) -> None:
        self._crash(self._pick(), power=True)

    def _pick(self) -> str:
        return self._leader() if self._rng.random() < 0.5 else self._one()

    def _crash_point(self) -> None:
        node_id = self._leader() if self._rng.random() < 0.6 else self._one()
        point = self._rng.choice(CRASH_POINTS)
        passes = 0 if point == "amid-an-entry" else self._rng.randrange(4)
        self._simulation.disks[node_id].crash_point = (point, passes)

    def _crash_majority(self) -> None:
        ids = self._simulation.ids
        chosen = self._rng.sample(ids, len(ids) // 2 + 1)
        power = self._rng.random() < 0.5
        for node_id in chosen:
            self._crash(node_id, power=power)

    def _crash_all(self) -> None:
        power = self._rng.random() < 0.5
        down_s = self._rng.uniform(0.01, 0.5)
        for node_id in self._simulation.ids:
            self._crash(node_id, power=power, down_s=down_s + self._rng.uniform(0, 0.3))

    def _restart(self) -> None:
        self._simulation.stop(self._pick())

    def _pause(self) -> None:
        self._simulation.pause(self._one(), self._duration_s())

    def _pause_leader(self) -> None:
        self._simulation.pause(self._leader(), self._duration_s())

    def _transfer(self) -> None:
        to = self._rng.choice((None, None, "nobody", *self._simulation.ids))
        self._simulation.transfer(self._leader(), to)

    # ------------------------------------------------------------------ network

    def _reset(self) -> None:
        self._simulation.network.reset(*self._two())

    def _hole(self, pairs: list[tuple[str, str]], seconds: float | None = None) -> None:
        network = self._simulation.network
        for source, target in pairs:
            network.block(source, target)

        def end() -> None:
            self._slow_until(0.5)  # what was under way comes late
            for source, target in pairs:
                network.unblock(source, target)

        self._last(end, seconds)

    def _black_hole(self) -> None:
        one, other = self._two()
        self._hole([(one, other), (other, one)])

    def _one_way(self) -> None:
        self._hole([self._two()])

    def _split(self, some: list[str], others: list[str], seconds: float | None = None) -> None:
        network = self._simulation.network
        pairs = [(one, other) for one in some for other in others]
        if self._rng.random() < 0.5:
            self._hole([*pairs, *((other, one) for one, other in pairs)], seconds)
            return
        for one, other in pairs:
            network.refuse(one, other)

        def end() -> None:
            for one, other in pairs:
                network.allow(one, other)

        self._last(end, seconds)

    def _partition(self) -> None:
        ids = list(self._simulation.ids)
        self._rng.shuffle(ids)
        at = self._rng.randrange(1, len(ids))
        self._split(ids[:at], ids[at:])

    def _isolate_leader(self) -> None:
        leader = self._leader()
        self._split([leader], [node_id for node_id in self._simulation.ids if node_id != leader])

    def _isolate_leader_one_way(self) -> None:
        leader = self._leader()
        others = [node_id for node_id in self._simulation.ids if node_id != leader]
        inward = self._rng.random() < 0.5
        self._hole([(other, leader) if inward else (leader, other) for other in others])

    def _flap(self) -> None:
        node_id = self._one()
        others = [other for other in self._simulation.ids if other != node_id]
        for turn in range(self._rng.randrange(3, 10)):
            self._scheduler.after(
                turn * self._rng.uniform(0.1, 0.6), lambda: self._flap_once(node_id, others)
            )

    def _flap_once(self, node_id: str, others: list[str]) -> None:
        if self._is_over:
            return
        if self._rng.random() < 0.3:
            for other in others:
                self._simulation.network.reset(node_id, other)
        else:
            pairs = [(node_id, other) for other in others] + [(other, node_id) for other in others]
            self._hole(pairs, self._rng.uniform(0.02, 0.3))

    def _lag(self, source: str, target: str, seconds: float, lag_s: float) -> None:
        network = self._simulation.network
        network.lag(source, target, lag_s)
        self._slow_until(seconds + lag_s)
        self._last(lambda: network.end_lag(source, target), seconds)

    def _slow_link(self) -> None:
        """What one node says to another takes longer and longer, to some seconds; sometimes both ways."""
        one, other = self._two()
        for source, target in ((one, other), (other, one))[: self._rng.choice((1, 1, 2))]:
            most_s = self._rng.uniform(0.1, 3.0)
            self._lag(source, target, most_s + self._duration_s(), most_s)

    def _late_acks(self) -> None:
        """What a follower answers comes late; meanwhile its leader is deposed, and perhaps leads again."""
        simulation = self._simulation
        timeout_s = simulation.plan.settings.election_timeout_ms[1] / 1000
        leader = self._leader()
        others = [node_id for node_id in simulation.ids if node_id != leader]
        follower = self._rng.choice(others)
        rest = [node_id for node_id in others if node_id != follower]
        hole_s = self._rng.uniform(0.7, 1.5) * timeout_s
        self._lag(follower, leader, hole_s, self._rng.uniform(1, 6) * timeout_s)
        some = [leader, follower] if len(rest) > 1 else [leader]
        away = rest if len(rest) > 1 else others
        pairs = [(one, other) for one in some for other in away]
        self._hole(pairs + [(other, one) for one, other in pairs], hole_s)

        def starve() -> None:
            """The follower hears the new leader, but not for long."""
            if not self._is_over and self._rng.random() < 0.5:
                self._hole([(other, follower) for other in rest], self._rng.uniform(0.2, 1.0) * timeout_s)

        self._scheduler.after(hole_s + self._rng.uniform(0.0, 0.4), starve)
        self._scheduler.after(hole_s + self._rng.uniform(0.1, 1) * timeout_s, self._depose)

    def _deaf_leader(self) -> None:
        """Nobody hears the leader any more, but what the others said before keeps coming in."""
        leader = self._leader()
        timeout_s = self._simulation.plan.settings.election_timeout_ms[1] / 1000
        others = [node_id for node_id in self._simulation.ids if node_id != leader]
        heard_s = self._rng.uniform(0.3, 1.5) * timeout_s
        for other in others:
            self._lag(other, leader, 3 * heard_s + timeout_s, 6 * timeout_s)
        self._scheduler.after(
            heard_s,
            lambda: None if self._is_over else self._hole([(leader, other) for other in others], 2 * heard_s),
        )

    def _sleeping_leader(self) -> None:
        """The leader stands still, is replaced, and wakes up where no word of that reaches it."""
        leader = self._leader()
        timeout_s = self._simulation.plan.settings.election_timeout_ms[1] / 1000
        others = [node_id for node_id in self._simulation.ids if node_id != leader]
        asleep_s = self._rng.uniform(1, 2.5) * timeout_s
        self._simulation.pause(leader, asleep_s)
        self._split([leader], others, asleep_s + self._rng.uniform(0.2, 1) * timeout_s)

    def _depose(self) -> None:
        if not self._is_over:
            timeout_s = self._simulation.plan.settings.election_timeout_ms[1] / 1000
            self._simulation.pause(self._leader(), timeout_s)

    def _ambush(self) -> None:
        """The next leaders meet trouble at the moment at which they lead: their first entry goes nowhere."""
        self._ambushes = self._rng.randrange(1, 5)
        self._scheduler.after(0.01, self._depose)

    def _old_term(self) -> None:
        """A leader alone with its last entries, a second that dies with its first, and the first again."""
        leader = self._leader()
        others = [node_id for node_id in self._simulation.ids if node_id != leader]
        pairs = [(leader, other) for other in others] + [(other, leader) for other in others]
        timeout_s = self._simulation.plan.settings.election_timeout_ms[1] / 1000
        self._hole(pairs, 4 * timeout_s)
        self._hunted = self._count  # ends with the second leader

    def on_new_leader(self, leader: str) -> None:
        if self._hunted and not self._is_over:
            number, self._hunted = self._hunted, 0
            timeout_s = self._simulation.plan.settings.election_timeout_ms[1] / 1000
            down_s = self._rng.uniform(1, 4) * timeout_s

            def strike() -> None:
                self._crash(leader, power=True, down_s=down_s)
                self._end(number)

            self._scheduler.after(0.0, strike)
            return
        if not self._ambushes or self._is_over:
            return
        self._ambushes -= 1
        others = [node_id for node_id in self._simulation.ids if node_id != leader]
        self._rng.shuffle(others)
        kept = others[: self._rng.randrange(0, len(others))] if self._rng.random() < 0.5 else []
        cut = [other for other in others if other not in kept]
        if self._rng.random() < 0.4:
            self._scheduler.after(
                self._rng.uniform(0.0, 0.005), lambda: self._crash(leader, power=self._rng.random() < 0.7)
            )
        else:
            self._scheduler.after(0.0, lambda: self._split([leader], cut))

    def _spikes(self) -> None:
        network = self._simulation.network
        timeout_s = self._simulation.plan.settings.election_timeout_ms[1] / 1000
        usual = self._simulation.usual_weather
        network.weather = Weather(
            usual.low_s, usual.high_s, self._rng.uniform(0.05, 0.4), timeout_s, usual.loss_chance
        )

        def end() -> None:
            network.weather = self._simulation.usual_weather

        seconds = self._duration_s()
        self._slow_until(seconds + timeout_s)
        self._last(end, seconds)

    # ------------------------------------------------------------------ disks

    def _slow_disk(self) -> None:
        disk = self._simulation.disks[self._pick()]
        worst_s = (
            self._simulation.plan.settings.election_timeout_ms[1] / 1000 * self._rng.choice((0.1, 0.5, 2))
        )
        disk.slowness_s = lambda: self._rng.uniform(0, worst_s)

        def end() -> None:
            disk.slowness_s = self._simulation.usual_slowness_s

        seconds = self._duration_s()
        self._slow_until(seconds + 3 * worst_s)
        self._last(end, seconds)

    def _full_disk(self) -> None:
        disk = self._simulation.disks[self._pick()]
        disk.is_full = True

        def end() -> None:
            disk.is_full = False

        self._last(end)

    def _lost_disk(self) -> None:
        self._simulation.lose_disk(self._pick())

    def _wiped_disk(self) -> None:
        self._simulation.wipe_disk(self._pick())

    # ------------------------------------------------------------------ one follower in trouble

    def _trouble_one(self) -> None:
        """Everything that can happen to one follower's links, again and again; nobody else suffers."""
        leader = self._simulation.newest_leader()
        if self._is_over or leader is None:
            return
        ids = self._simulation.ids
        victim = self._rng.choice([node_id for node_id in ids if node_id != leader])
        self._simulation.judge.expect_leader(leader)
        self._trouble(victim, [other for other in ids if other != victim])

    def _trouble(self, victim: str, others: list[str]) -> None:
        if self._is_over:
            return
        kind = self._rng.randrange(5)
        some = self._rng.sample(others, self._rng.randrange(1, len(others) + 1))
        out = [(victim, other) for other in some]
        back = [(other, victim) for other in some]
        if kind == 0:
            self._hole(out + back)
        elif kind == 1:
            self._hole(out)
        elif kind == 2:
            self._hole(back)
        elif kind == 3:
            self._split([victim], some)
        else:
            for other in some:
                self._simulation.network.reset(victim, other)
        self._scheduler.after(self._duration_s(), lambda: self._trouble(victim, others))
