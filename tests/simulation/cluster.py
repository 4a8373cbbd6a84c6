"""One run: a cluster of real nodes under a seed's plan, first in trouble, then healed, judged throughout."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cluster.errors import Unavailable
from cluster.raft import replication
from cluster.raft.messages import Append
from cluster.state.commands import NEWEST_LEVEL
from tests.simulation.builds import Builds
from tests.simulation.clients import Balancer, Client
from tests.simulation.clock import NodeClock, Scheduler
from tests.simulation.disk import Disk
from tests.simulation.faults import FaultPlanner
from tests.simulation.filling import LostNodes, finish
from tests.simulation.invariants import Judge, Violation
from tests.simulation.members import Operator, held_on
from tests.simulation.network import Network
from tests.simulation.parts import Parts
from tests.simulation.poison import Poison
from tests.simulation.process import Process
from tests.simulation.trace import Trace
from tests.simulation.watcher import Watcher

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.simulation.plan import Plan


@dataclass(frozen=True, slots=True)
class Result:
    """What a run without a violation did."""

    seed: int
    simulated_s: float
    steps: int
    messages: int
    commits: int
    writes: int
    reads: int
    terms: int
    crashes: int
    installs: int
    trace_hash: str
    bounded_reads: int
    """Reads with a staleness bound that were answered."""
    changes: int = 0
    """Of the members, committed."""
    refused_changes: int = 0
    level: int = 1
    """The command level in force at the end."""
    verified: int = 0
    """How many commands of the newest kind were committed."""


class Simulation:
    """Build one from a plan and `run` it; everything random comes from the plan's seed."""

    def __init__(self, plan: Plan, parts: Parts | None = None, *, hashing: bool = False) -> None:
        self.plan = plan
        self.parts = parts or Parts()
        self.trace = Trace(hashing=hashing)
        self.scheduler = Scheduler()
        self._rng = random.Random(f"run {plan.seed}")
        self.ids = [f"n{number}" for number in range(1, plan.nodes + plan.spares + 1)]
        self.founders = self.ids[: plan.nodes]
        self.wanted = set(self.founders)
        """Whose processes shall run: founders, and who was added at some time."""
        self.disks = {name: Disk(name) for name in self.ids}
        self.clocks = {
            name: NodeClock(self.scheduler, offset, rate)
            for name, offset, rate in zip(self.ids, plan.clock_offsets, plan.clock_rates, strict=True)
        }
        self.network = Network(
            self.scheduler,
            random.Random(f"network {plan.seed}"),
            self.trace,
            plan.dead_after_s,
            is_bulk=lambda message: type(message) is Append and bool(message.entries),
        )
        self.network.weather = self.usual_weather = plan.weather
        self.builds = Builds(self, random.Random(f"builds {plan.seed}"))
        self.network.levels_of = lambda name: self.processes[name].level.levels()
        self.network.are_fitting = self.builds.are_fitting
        self.processes: dict[str, Process] = {}
        self.judge = Judge(self)
        self.balancer = Balancer()
        self.wants_traffic = True
        self.slow_until_s = 0.0
        self.crashes = 0
        self.snapshots = 0
        self.installs = 0
        self.refused: list[str] = []
        self._is_healed = False
        fsync_rng = random.Random(f"fsync {plan.seed}")
        self.usual_slowness_s = lambda: fsync_rng.uniform(0, plan.fsync_high_s)
        for disk in self.disks.values():
            disk.slowness_s = self.usual_slowness_s
        self.faults = FaultPlanner(self, random.Random(f"faults {plan.seed}"))
        self.clients = [
            Client(self, number, random.Random(f"client {number} {plan.seed}"))
            for number in range(plan.clients)
        ]
        self.operator = Operator(self, random.Random(f"operator {plan.seed}"))
        self.poison = Poison(plan.poison, self.ids, random.Random(f"poison {plan.seed}"))
        self.watcher = Watcher(self, random.Random(f"watcher {plan.seed}"))
        self.helper = Client(self, 99, random.Random(f"client 99 {plan.seed}"))
        self.helper.is_helper = True

    def run(self) -> Result:
        """Raises Violation."""
        held, replication.PROBE_BYTES = replication.PROBE_BYTES, self.plan.probe_bytes
        try:
            return self._run()
        finally:
            replication.PROBE_BYTES = held

    def _run(self) -> Result:
        for name in self.founders:
            self._start(name)
        for client in self.clients:
            client.start()
        self.watcher.start()
        self.faults.start()
        self.operator.start()
        self.builds.start()
        if self.plan.snapshots:
            LostNodes(self, random.Random(f"lost {self.plan.seed}")).start()
        self.scheduler.run_until(self.plan.active_s)
        self._heal()
        self._converge()
        self._check_upgraded()
        self._check_service()
        for key in self.refused:
            self.judge.on_write_refused(key)
        return Result(
            self.plan.seed,
            self.scheduler.now,
            self.scheduler.steps,
            self.network.messages,
            len(self.judge.committed),
            self.judge.writes,
            self.judge.reads,
            len(self.judge.leaders),
            self.crashes,
            self.installs,
            self.trace.digest(),
            self.judge.bounded_reads,
            self.operator.made,
            self.operator.refused,
            self.judge.model.level,
            self.judge.model.verified,
        )

    # ------------------------------------------------------------------ the end of a run

    def _heal(self) -> None:
        """Everything works again, but for lost disks: from here on time is bounded."""
        self.trace.add(self.scheduler.now, "faults", "heal")
        self.judge.end_steady()
        self.faults.heal()
        self.operator.stop()
        self.builds.finish()
        self.poison.heal()
        self._is_healed = True
        self.wants_traffic = False
        self.network.weather = type(self.usual_weather)(self.usual_weather.low_s, self.usual_weather.high_s)
        for name in self.ids:
            disk = self.disks[name]
            disk.crash_point = None
            disk.is_full = False
            process = self.processes.get(name)
            if process is not None and process.is_running:
                process.resume()
                if process.has_broken or process.is_draining:
                    self.crash(name, power=False, why="operator", down_s=0.1)
            elif not disk.is_lost and name in self.wanted:
                self._start(name)

    def _living(self) -> list[Process]:
        """Members that are up; one that was removed may go on, to no avail."""
        names = self._members()
        return [self.processes[name] for name in self.ids if name in names and self.is_up(name)]

    def _members(self) -> set[str]:
        return set(self.judge.configuration.ids)

    def _converged(self) -> bool:
        living = self._living()
        expected = sum(not self.disks[name].is_lost for name in self._members())
        last = len(self.judge.committed)
        return len(living) == expected and all(
            process.node.commit_index == last
            and process.journal.last_index == last
            and process.applier.applied_index == last
            for process in living
        )

    def _converge(self) -> None:
        def done() -> bool:
            return not any(client.is_busy for client in self.clients) and self._converged()

        # What the slowest engine still has to do takes its own time: up to four calls an entry.
        disks = [self.disks[name] for name in self._members()]
        least = min(disk.marker.index for disk in disks if not disk.is_lost)
        last = max(disk.last_index for disk in self.disks.values())
        patience_s = self.plan.patience_s + (last - least + 20) * 4 * self.plan.engine_high_s
        if self.plan.snapshots:
            patience_s *= 3  # a node may be filled twice, and begin anew each time
        if self.plan.poison is not None:
            patience_s += 60  # every poison write that waits in the logs is another deliberation
        deadline = self.scheduler.now + patience_s
        if not self._run_slowly(deadline, done):
            raise Violation("liveness", f"not all equal {patience_s:.1f} s after the heal: {self._places()}")
        self.judge.check_equal(self._living())

    def _check_upgraded(self) -> None:
        """All are of the new build now: the level rises by itself, if no member is gone for good."""
        lost = any(self.disks[name].is_lost for name in self._members())
        if not self.plan.upgrade or lost:
            return

        def done() -> bool:
            return self._converged() and all(one.machine.level == NEWEST_LEVEL for one in self._living())

        if not self._run_slowly(self.scheduler.now + self.plan.patience_s, done):
            raise Violation("liveness", f"the level is {self.judge.model.level} after the upgrade")

    def _run_slowly(self, deadline: float, done: Callable[[], bool]) -> bool:
        """Like `run_until`, looking at `done` only now and then."""
        while self.scheduler.now < deadline:
            if done():
                return True
            self.scheduler.run_until(min(deadline, self.scheduler.now + 0.05))
        return done()

    def _check_service(self) -> None:
        """A new client is served within one election: its write, and then reads everywhere that show it."""
        self.wants_traffic = True
        client = self.helper
        before = self.judge.writes
        client.write_once()
        self.wants_traffic = False
        deadline = self.scheduler.now + self.plan.patience_s
        if not self._run_slowly(deadline, lambda: self.judge.writes > before and self._converged()):
            raise Violation("liveness", f"no write is answered after the heal: {self._places()}")
        for process in self._living():
            reads = self.judge.reads
            client.read_once(process.node_id)
            if not self._run_slowly(
                self.scheduler.now + self.plan.patience_s, lambda reads=reads: self.judge.reads > reads
            ):
                raise Violation("liveness", f"{process.node_id} serves no linearizable read after the heal")

    def _places(self) -> str:
        parts = [f"{len(self.judge.committed)} committed"]
        for name in self.ids:
            process = self.processes.get(name)
            if process is None or not process.is_running:
                parts.append(f"{name} down")
            else:
                node = process.node
                parts.append(
                    f"{name} {node.role} of term {node.term}, log {process.journal.first_index}.."
                    f"{process.journal.last_index}, commit {node.commit_index}, applied "
                    f"{process.applier.applied_index}"
                )
        busy = [client.number for client in self.clients if client.is_busy]
        return "; ".join(parts) + (f"; clients {busy} still wait" if busy else "")

    # ------------------------------------------------------------------ processes

    def is_up(self, name: str) -> bool:
        process = self.processes.get(name)
        return process is not None and process.is_running

    def newest_leader(self) -> str | None:
        up = [self.processes[name] for name in self.ids if self.is_up(name)]
        leaders = [process for process in up if process.node.is_leader]
        return max(leaders, key=lambda process: process.node.term).node_id if leaders else None

    def on_new_leader(self, name: str) -> None:
        self.faults.on_new_leader(name)
        self.helper.read_soon(name)

    def _start(self, name: str) -> None:
        if self.is_up(name) or self.disks[name].is_lost:
            return
        if not finish(self.disks[name], self.parts):
            # Killed while it installed a snapshot: what starts next goes on with it.
            self.trace.add(self.scheduler.now, name, "dies", "installing")
            self.scheduler.after(0.05, lambda: self._start(name))
            return
        self.wanted.add(name)
        self.trace.add(self.scheduler.now, name, "starts")
        self.processes[name] = Process(self, name, random.Random(self._rng.random()))

    def crash(self, name: str, *, power: bool, why: str, down_s: float | None = None) -> None:
        """The process ends at once and comes back after a while; with `power` its machine went dark."""
        process = self.processes[name]
        if not process.is_running:
            return
        self.crashes += 1
        self.trace.add(self.scheduler.now, name, "power" if power else "crash", why)
        self._end(process, silent=power)
        if power:
            self.disks[name].lose_power()
        delay_s = (
            self._rng.choice((0.05, 0.5, 2.0)) * self._rng.uniform(0.5, 1.5) if down_s is None else down_s
        )
        self.scheduler.after(0.2 if self._is_healed else delay_s, lambda: self._start(name))

    def _end(self, process: Process, *, silent: bool) -> None:
        process.is_running = False
        self.network.leave(process, silent=silent)
        process.wire = None
        process.end_requests()

    def stop(self, name: str) -> None:
        """A clean restart: SIGTERM, leadership handed over, then a new process."""
        if self.is_up(name) and not self.processes[name].is_draining:
            self.processes[name].drain()

    def stopped(self, process: Process) -> None:
        """A draining process has finished."""
        self.trace.add(self.scheduler.now, process.node_id, "stopped")
        self._end(process, silent=False)
        self.scheduler.after(self._rng.uniform(0.05, 0.5), lambda: self._start(process.node_id))

    def broke(self, process: Process) -> None:
        """A node has a fault: an operator sees to it after a while and starts it again."""
        delay_s = 0.2 if self._is_healed else self._rng.uniform(0.3, 2.0)

        def replace() -> None:
            if self.processes.get(process.node_id) is process and process.is_running:
                self.crash(process.node_id, power=False, why="operator", down_s=0.05)

        self.scheduler.after(delay_s, replace)

    def pause(self, name: str, seconds: float) -> None:
        if self.is_up(name):
            self.processes[name].pause(seconds)

    def transfer(self, name: str, to: str | None = None) -> None:
        if self.is_up(name):
            process = self.processes[name]
            process.enqueue(lambda: self._transfer(process, to))

    def _transfer(self, process: Process, to: str | None) -> None:
        future = process.raft.transfer_leadership(to)
        term = process.node.term

        def over() -> None:
            if process.is_running:
                self.judge.on_handed_over(process, to, term, future.exception())

        # Not from within the callback, where a violation would go nowhere, amid a turn of the raft loop.
        future.add_done_callback(lambda _: self.scheduler.after(0.0, over))

    def lose_disk(self, name: str) -> None:
        """For good; never more than leaves a majority, and not before the cluster is founded."""
        if self._may_lose(name):
            if self.is_up(name):
                self.crash(name, power=True, why="its disk is lost")
            self.disks[name].is_lost = True

    def wipe_disk(self, name: str) -> None:
        """The node comes back with an empty disk, if it can be filled: from the log, or with a snapshot."""
        is_bounded = self.plan.settings.journal_budget_bytes < 1 << 28
        if is_bounded and not self.plan.snapshots:
            return
        if not (self._may_lose(name) or self._is_pair(name)):
            return
        if self.is_up(name):
            self.crash(name, power=True, why="its disk is wiped")
        self.disks[name].wipe()
        self.judge.on_wiped(name)

    def _is_pair(self, name: str) -> bool:
        """Of two voters one may forget everything, as long as both agree that they are two."""
        held = [held_on(self.disks[founder]) for founder in self.ids if self.disks[founder].has_vote]
        sets = {voters for it in held for voters in (*it.electorates, it.committed.voters) if name in voters}
        if not self.plan.spares or len(sets) != 1:
            return False
        [voters] = sets
        return len(voters) == 2 and all(self.disks[voter].has_vote for voter in voters)

    def is_log_whole(self) -> bool:
        """Whether nobody has compacted anything, nor will before a new node is known: it gets everything."""
        if any(disk.meta is not None and disk.meta.base_index for disk in self.disks.values()):
            return False
        budget = self.plan.settings.journal_budget_bytes
        return all(process.journal.bytes_held < budget / 2 for process in self.processes.values())

    def bring_up(self, name: str, *, empty: bool) -> None:
        """The machine of a node that shall be added: as it was left, or with an empty disk.

        An empty one in the place of a disk that holds promises is a lost disk: only if that may be.
        """
        if empty and not self.is_up(name) and name not in self._named():
            self.disks[name].wipe()
            self.judge.on_wiped(name)
        self._start(name)

    def _named(self) -> set[str]:
        """Members by any configuration that some node still goes by."""
        held = [held_on(disk) for disk in self.disks.values() if not disk.is_lost]
        known = [some for it in held for some in (it.now, it.former, it.committed) if some]
        return {name for configuration in known for name in configuration.ids}

    def _may_lose_member(self, name: str) -> bool:
        """With what is left every majority that may be asked for can still come about."""
        if self.disks[name].is_excused:
            return False
        held = [held_on(disk) for disk in self.disks.values() if not disk.is_lost]
        wanted = {voters for it in held for voters in it.electorates} | set(self.operator.asked)
        for voters in {voters for voters in wanted if name in voters}:
            disks = [self.disks[voter] for voter in voters]
            if not all(disk.has_vote or disk.is_excused for disk in disks):
                return False
            if sum(disk.is_excused for disk in disks) >= (len(voters) - 1) // 2:
                return False
        return True

    def _may_lose(self, name: str) -> bool:
        if self.plan.spares:
            return self._may_lose_member(name)
        disks = self.disks.values()
        if self.disks[name].is_excused or not all(disk.has_vote or disk.is_excused for disk in disks):
            return False
        return sum(disk.is_excused for disk in disks) < (len(self.ids) - 1) // 2

    # ------------------------------------------------------------------ requests

    def request(self, name: str, serve: Callable[[Process, Any], None], reply: Any) -> None:
        """A client's request to a node and the answer back; either may be lost, and nobody is told."""
        weather, rng = self.network.weather, self._rng
        if rng.random() < weather.loss_chance:
            return

        def back(value: Any, error: Any) -> None:
            if rng.random() >= weather.loss_chance:
                self.scheduler.after(weather.delay_s(rng), lambda: reply(value, error))

        def arrive() -> None:
            process = self.processes.get(name)
            if process is None or not process.is_running:
                back(None, Unavailable("connection refused"))
            else:
                process.take_request(serve, back)

        self.scheduler.after(weather.delay_s(rng), arrive)

    def ask_leader(self, process: Process, leader: str, reply: Any) -> None:
        """`Peers.read_index`."""
        self.ask(process, leader, lambda node, answer: node.read_index(answer), reply)

    def ask(self, process: Process, leader: str, serve: Callable[[Process, Any], None], reply: Any) -> None:
        """A request between nodes, over the same cables as the log."""
        is_answered = False

        def once(index: int | None, error: Any) -> None:
            nonlocal is_answered
            if not is_answered:
                is_answered = True
                process.enqueue(lambda: reply(index, error))

        def back(index: int | None, error: Any) -> None:
            if self.network.passes(leader, process.node_id):
                delay_s = self.network.weather.delay_s(self._rng)
                self.scheduler.after(delay_s, lambda: once(index, error))

        def arrive() -> None:
            other = self.processes.get(leader)
            if other is None or not other.is_running:
                back(None, Unavailable("connection refused"))
            elif self.network.passes(process.node_id, leader):
                other.take_request(serve, back)

        self.scheduler.after(
            self.plan.read_timeout_s, lambda: once(None, Unavailable("the leader did not answer"))
        )
        self.scheduler.after(self.network.weather.delay_s(self._rng), arrive)
