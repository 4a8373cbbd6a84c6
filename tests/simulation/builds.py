"""Nodes of an older build that are replaced one by one: what each says and does about command levels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from cluster.levels import FIRST_LEVEL, Levels, quarrel
from cluster.state.commands import NEWEST_LEVEL, Verify, encode_group, encode_proposal, encode_raise
from cluster.state.commands import Proposal as LogProposal

if TYPE_CHECKING:
    import random
    from concurrent.futures import Future

    from cluster.raft.interface import Position
    from tests.simulation.cluster import Simulation
    from tests.simulation.process import Process

#: A build from before the newest kind of command.
OLD: Final = NEWEST_LEVEL - 1


class Builds:
    """Which levels the build of each node understands; with `plan.upgrade` they are replaced."""

    def __init__(self, simulation: Simulation, rng: random.Random) -> None:
        self._simulation = simulation
        self._rng = rng
        newest = OLD if simulation.plan.upgrade else NEWEST_LEVEL
        self.newest = dict.fromkeys(simulation.ids, newest)

    def start(self) -> None:
        if self._simulation.plan.upgrade:
            self._later()

    def _later(self) -> None:
        delay_s = self._rng.choice((0.1, 0.5, 1.5)) * self._rng.uniform(0.5, 1.5)
        self._simulation.scheduler.after(delay_s, self._replace_one)

    def _replace_one(self) -> None:
        old = [name for name, newest in self.newest.items() if newest == OLD]
        if not old:
            return
        self.replace(self._rng.choice(old), politely=self._rng.random() < 0.7)
        self._later()

    def replace(self, name: str, *, politely: bool = True) -> None:
        """The next process of this node is one of the new build."""
        simulation = self._simulation
        self.newest[name] = NEWEST_LEVEL
        simulation.trace.add(simulation.scheduler.now, name, "gets the new build")
        if politely:
            simulation.stop(name)
        elif simulation.is_up(name):
            simulation.crash(name, power=False, why="upgrade", down_s=0.1)

    def finish(self) -> None:
        """Who is left gets the new build."""
        for name, newest in self.newest.items():
            if newest == OLD:
                self.replace(name, politely=False)

    def are_fitting(self, one: str, other: str) -> bool:
        """What the handshake decides (`cluster.raft.handshake`)."""
        processes = self._simulation.processes
        return quarrel(processes[one].level.levels(), other, processes[other].level.levels()) is None


class LevelKeeper:
    """What `cluster.service.leveling` does in one process, and the proposals of the new kind."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self._simulation = process.simulation
        self.newest = self._simulation.builds.newest[process.node_id]
        self._proposed: tuple[int, int, Future[Position]] | None = None
        self._rounds = 0

    def levels(self) -> Levels:
        return Levels(FIRST_LEVEL, self.newest, self._process.machine.level)

    def start(self) -> None:
        if self._process.is_running:
            self._process.enqueue(self._look)
            self._simulation.scheduler.after(0.1, self.start)

    def _look(self) -> None:
        process = self._process
        status = process.raft.status()
        if process.has_broken or process.is_draining or status.role != "leader":
            return
        self._raise_level()
        verify = Verify(f"{process.node_id} {process.started_s} {self._rounds}", None)
        understands = self.newest >= NEWEST_LEVEL
        if not understands or not self._simulation.wants_traffic or process.rng.random() > 0.1:
            return
        if self._simulation.parts.level_of(verify) <= process.machine.level:
            self._rounds += 1
            encoded = encode_proposal(LogProposal(f"r:{verify.round_id}", b"", verify))
            process.raft.propose(encode_group(process.wall_ms(), [encoded])).add_done_callback(_heard)

    def _raise_level(self) -> None:
        process, status = self._process, self._process.raft.status()
        said = {**status.levels, process.node_id: self.levels()}
        level = self._simulation.parts.next_level(process.machine.level, status.configuration.ids, said)
        if level is None or not status.configuration_committed:
            return
        if self._proposed is not None:
            term, before, future = self._proposed
            failed = future.done() and future.exception() is not None
            if (term, before) == (status.term, level) and not failed:
                return
        payload = encode_raise(process.wall_ms(), level)
        self._proposed = (status.term, level, process.raft.propose(payload, past_limits=True))


def _heard(future: Future[Position]) -> None:
    future.exception()
