"""Members that come and go: what a disk says who they are, and the operator who changes them."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, NamedTuple

from cluster.errors import ClusterError
from cluster.raft.configuration import decode_configuration, electorates, is_configuration
from cluster.raft.interface import Add, Admit, Configuration, Promote, Remove
from cluster.raft.quorum import majority

if TYPE_CHECKING:
    import random

    from cluster.raft.interface import Change
    from tests.simulation.cluster import Simulation
    from tests.simulation.disk import Disk


class Held(NamedTuple):
    """The configurations on a disk: in force, the one before it while that is not committed, committed."""

    now: Configuration
    former: Configuration | None
    committed: Configuration

    @property
    def electorates(self) -> tuple[frozenset[str], ...]:
        return electorates(self.now, self.former)


def held_on(disk: Disk) -> Held:
    """By what is durable there: what the node will go by when it starts."""
    meta = disk.meta
    if meta is None:
        return Held(Configuration(), None, Configuration())
    found = [(0, decode_configuration(meta.configuration))]
    rows = disk.durable_rows
    changes = [at for at in sorted(rows) if is_configuration(rows[at].payload)]
    found += [(at, decode_configuration(rows[at].payload)) for at in changes]
    committed = [configuration for at, configuration in found if at <= meta.commit_index]
    former = found[-2][1] if found[-1][0] > meta.commit_index else None
    return Held(found[-1][1], former, committed[-1])


class Operator:
    """Asks whoever leads for one change after the other, some of them wrong or at a bad moment."""

    def __init__(self, simulation: Simulation, rng: random.Random) -> None:
        self._simulation = simulation
        self._rng = rng
        self._is_over = False
        self.made = 0
        self.refused = 0
        self.asked: deque[frozenset[str]] = deque(maxlen=4)
        """The voters that there will be if the changes asked for last are made."""

    def start(self) -> None:
        if self._simulation.plan.spares:
            self._later()

    def stop(self) -> None:
        """Ask for nothing any more but what nodes wait for."""
        self._is_over = True

    def _later(self) -> None:
        delay_s = self._rng.choice((0.05, 0.3, 1.0)) * self._rng.uniform(0.5, 1.5)
        self._simulation.scheduler.after(delay_s, self._act)

    def _act(self) -> None:
        leader = self._simulation.newest_leader()
        if leader is not None:
            change = self._admission(leader)
            if change is None and not self._is_over:
                # Twice, for what is drawn may make no sense at this moment.
                change = self._draw(leader) or self._draw(leader)
            if change is not None:
                self.ask(leader, change)
        self._later()

    def _admission(self, leader: str) -> Admit | None:
        """Without `auto_replace` nobody else lets a node in again; also after all else is over."""
        if self._simulation.plan.settings.auto_replace or not (self._is_over or self._rng.random() < 0.3):
            return None
        waiting = self._simulation.processes[leader].raft.status().without_vote
        return Admit(self._rng.choice(waiting)) if waiting else None

    def _draw(self, leader: str) -> Change | None:
        simulation, rng = self._simulation, self._rng
        now = simulation.processes[leader].journal.configuration
        learners = [member.id for member in now.members if not member.is_voter]
        lost = {name for name, disk in simulation.disks.items() if disk.is_lost}
        outside = [name for name in simulation.ids if name not in now.ids and name not in lost]
        kind = rng.choice(("add", "add", "promote", "promote", "remove", "remove-leader"))
        if kind == "add" and outside and simulation.is_log_whole():
            name = rng.choice(outside)
            simulation.bring_up(name, empty=rng.random() < 0.5)
            return Add(name, f"{name}:1")
        if kind == "promote" and learners:
            return Promote(rng.choice(learners))
        if kind == "remove" and len(now.members) > 2:
            return self._removal(now, rng.choice(now.ids))
        if kind == "remove-leader" and len(now.voters) > 2:
            return self._removal(now, leader)
        return None

    def _removal(self, now: Configuration, name: str) -> Change | None:
        """Not one that leaves too few: a voter whose disk is gone, of which the leader does not know yet."""
        left = now.voters - {name}
        gone = sum(self._simulation.disks[voter].is_excused for voter in left)
        if len(left) - gone >= majority(len(left)):
            return Remove(name)
        # Such an operator takes out a node whose disk is gone, if there is one.
        dead = [member for member in now.ids if self._simulation.disks[member].is_lost]
        return Remove(dead[0]) if dead else None

    def ask(self, leader: str, change: Change) -> None:
        """What an operator's command does: asked of the leader, told how it went, or not."""
        process = self._simulation.processes[leader]
        voters = process.journal.configuration.voters
        if isinstance(change, Remove):
            self.asked.append(voters - {change.id})
        elif isinstance(change, Promote):
            self.asked.append(voters | {change.id})
        self._simulation.trace.add(self._simulation.scheduler.now, leader, "is asked", change)

        def done(future: object) -> None:
            error = future.exception()  # type: ignore[attr-defined]
            if error is not None and not isinstance(error, ClusterError):
                raise error
            self.made += error is None
            self.refused += error is not None

        def go() -> None:
            process.raft.change_members(change).add_done_callback(done)

        process.enqueue(go)
