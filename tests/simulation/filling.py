"""Snapshots between simulated nodes: taken, fetched part by part, installed by the next start.

The rules are those of `cluster.snapshot`; the log's part in it (`Journal.reset_to`, `Retention`, what a
follower lacks) and the applier's (`is_between_entries`) is the real one.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

from cluster.apply.store import Marker
from cluster.errors import Unavailable
from tests.simulation.disk import Crash, Incoming, Snapshot
from tests.simulation.stepped import CLUSTER_ID

if TYPE_CHECKING:
    import random

    from cluster.errors import ClusterError
    from cluster.raft.journal import Journal
    from tests.simulation.cluster import Simulation
    from tests.simulation.disk import Disk
    from tests.simulation.parts import Parts
    from tests.simulation.process import Process

STATE = "state"
INSTALL_POINTS = ("install-decided", "install-log", "install-state", "install-collections", "install-done")
_LOOK_S = 0.1
_HOLD_S = 2.0


def take(process: Process, name: str) -> Snapshot | None:
    """A snapshot of a node as it is now, None: it is not between two entries."""
    if not process.is_at_rest:
        return None
    return copied(process, name)


def copied(process: Process, name: str) -> Snapshot:
    """All of a node's state, whatever it is doing."""
    disk, index = process.disk, process.applier.applied_index
    parts: list[tuple[str, dict[str, Any]]] = [(STATE, dict(disk.pairs))]
    parts += [(key, copy.copy(records)) for key, records in sorted(disk.collections.items())]
    return Snapshot(
        name,
        index,
        process.raft.term_at(index),
        process.journal.configuration_at(index),
        disk.marker.position,
        tuple(parts),
        dict(disk.halfway),
        process.applier.ahead,
    )


class Installer:
    """Each step may be repeated; who dies in between goes on at the next start."""

    def __init__(self, disk: Disk, parts: Parts) -> None:
        self.disk = disk
        self.parts = parts
        assert disk.incoming is not None
        self.snapshot = disk.incoming.snapshot
        self.fetched = dict(disk.incoming.parts)

    def run(self) -> None:
        disk = self.disk
        journal = self.open_journal()
        if self.snapshot.index >= journal.base_index:
            disk.crash_at("install-decided")
            journal.reset_to(self.snapshot.index, self.snapshot.term, self.snapshot.configuration)
            journal.flush()
            disk.crash_at("install-log")
            self.place_state()
            disk.crash_at("install-state")
            self.place_collections()
            disk.crash_at("install-collections")
        disk.decided = False
        disk.crash_at("install-done")
        disk.incoming = None

    def open_journal(self) -> Journal:
        return self.parts.journal(self.parts.storage(self.disk), CLUSTER_ID, self.disk.name)

    def place_state(self) -> None:
        self.disk.pairs = dict(self.fetched[STATE])
        self.disk.marker = Marker(self.snapshot.index, self.snapshot.position)
        self.disk.state_synced()

    def place_collections(self) -> None:
        kept = {name: dict(records) for name, records in self.fetched.items() if name != STATE}
        self.disk.collections = kept
        self.disk.halfway = dict(self.snapshot.halfway)
        self.disk.ahead = self.snapshot.ahead
        self.disk.snapshots = {}


def finish(disk: Disk, parts: Parts) -> bool:
    """Install what was decided, before a node starts; False: it was killed meanwhile."""
    if not disk.decided:
        return True
    disk.stall = lambda seconds: None
    was_full, disk.is_full = disk.is_full, False
    try:
        parts.installer(disk, parts).run()
    except Crash:
        disk.crash_point = None
        return False
    finally:
        disk.is_full = was_full
    return True


class Filler:
    """One process's side of it: what it fetches, and what it gives."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self._simulation = process.simulation
        self._until_s = 0.0
        """A round is under way; after this it is given up."""
        self._taken = 0

    def start(self) -> None:
        if self._process.is_running:
            self._process.enqueue(self._look)
            self._simulation.scheduler.after(_LOOK_S, self.start)

    # ------------------------------------------------------------------ giving

    def give(self, wanted: str | None, above: int, answer: Any) -> None:
        """The one of this name if it is kept, or one of `above` at least."""
        process, disk = self._process, self._process.disk
        found = disk.snapshots.get(wanted or "")
        if found is None and wanted is None:
            found = next(iter(disk.snapshots.values()), None)
            if found is None or found.index < above or process.rng.random() < 0.3:
                self._taken += 1
                name = f"{process.node_id}-{process.started_s}-{self._taken}"
                found = self._simulation.parts.taker(process, name)
        if found is None or found.index < above:
            answer(None, Unavailable("no snapshot"))
            return
        disk.snapshots = {found.name: found}
        self._simulation.snapshots += 1
        answer(found, None)

    def part(self, name: str, number: int, answer: Any) -> None:
        found = self._process.disk.snapshots.get(name)
        if found is None:
            answer(None, Unavailable("it is not kept"))
        else:
            answer(found.parts[number], None)

    # ------------------------------------------------------------------ fetching

    def _lacks(self) -> int | None:
        lacks = self._process.raft.status().lacks
        return None if lacks is None else lacks.compacted

    def _look(self) -> None:
        now, above = self._simulation.scheduler.now, self._lacks()
        if above is None or now < self._until_s or self._process.disk.decided or self._process.is_draining:
            return
        self._until_s = now + 2 * self._simulation.plan.read_timeout_s
        begun = self._process.disk.incoming
        if begun is not None and begun.snapshot.index >= above and self._process.rng.random() < 0.7:
            donor, wanted = begun.donor, begun.snapshot.name
        else:
            others = [name for name in self._simulation.ids if name != self._process.node_id]
            donor, wanted = self._process.rng.choice(others), None
        self._simulation.ask(
            self._process,
            donor,
            lambda node, answer: node.filler.give(wanted, above, answer),
            lambda found, error: self._on_offer(donor, found, error),
        )

    def _on_offer(self, donor: str, found: Snapshot | None, error: ClusterError | None) -> None:
        disk = self._process.disk
        if error is not None or found is None:
            self._until_s = 0.0
            if disk.incoming is not None and disk.incoming.donor == donor:
                disk.incoming = None
            return
        if disk.incoming is None or disk.incoming.snapshot.name != found.name:
            disk.incoming = Incoming(donor, found)
        self._fetch(donor, found)

    def _fetch(self, donor: str, found: Snapshot) -> None:
        disk = self._process.disk
        if disk.incoming is None or disk.incoming.snapshot is not found or disk.decided:
            return
        above = self._lacks()
        if above is None or above > found.index:
            disk.incoming, self._until_s = None, 0.0
            return
        disk.crash_at("fetch")
        self._until_s = self._simulation.scheduler.now + 2 * self._simulation.plan.read_timeout_s
        self._hold(found.index)
        if len(disk.incoming.parts) == len(found.parts):
            self._decide()
            return
        number = len(disk.incoming.parts)
        self._simulation.ask(
            self._process,
            donor,
            lambda node, answer: node.filler.part(found.name, number, answer),
            lambda part, error: self._on_part(donor, found, number, part, error),
        )

    def _on_part(self, donor: str, found: Snapshot, number: int, part: Any, error: Any) -> None:
        incoming = self._process.disk.incoming
        if error is not None:
            self._until_s = 0.0
        elif incoming is not None and incoming.snapshot is found and len(incoming.parts) == number:
            incoming.parts.append(part)
            self._fetch(donor, found)

    def _hold(self, index: int) -> None:
        process, simulation = self._process, self._simulation
        process.raft.hold_log(process.node_id, index, _HOLD_S)
        for other in simulation.ids:
            if other != process.node_id:
                simulation.ask(
                    process,
                    other,
                    lambda node, answer: node.raft.hold_log(process.node_id, index, _HOLD_S),
                    lambda done, error: None,
                )

    def _decide(self) -> None:
        """It is whole and durable: the node begins anew, politely or not."""
        process, simulation = self._process, self._simulation
        process.disk.decided = True
        simulation.installs += 1
        simulation.trace.add(simulation.scheduler.now, process.node_id, "decides to install")
        if process.rng.random() < 0.7:
            process.drain()
        else:
            power = process.rng.random() < 0.5
            simulation.scheduler.after(
                0.0, lambda: simulation.crash(process.node_id, power=power, why="begins anew", down_s=0.05)
            )


class LostNodes:
    """What the other faults do too seldom: nodes that are away for long, or come back with nothing."""

    def __init__(self, simulation: Simulation, rng: random.Random) -> None:
        self._simulation = simulation
        self._rng = rng

    def start(self) -> None:
        self._simulation.scheduler.after(self._rng.expovariate(1.0), self._strike)

    def _strike(self) -> None:
        simulation, rng = self._simulation, self._rng
        if not simulation.wants_traffic:
            return
        name = rng.choice(simulation.ids)
        kind = rng.random()
        if kind < 0.3:
            simulation.wipe_disk(name)
        elif kind < 0.6 and simulation.plan.profile != "minority":
            down_s = rng.uniform(0.5, 4)
            if simulation.is_up(name):
                simulation.crash(name, power=rng.random() < 0.5, why="away", down_s=down_s)
        else:
            # Whoever fetches, gives or installs next dies at it.
            point = rng.choice(("fetch", *INSTALL_POINTS))
            simulation.disks[name].crash_point = (point, rng.randrange(2))
        self.start()
