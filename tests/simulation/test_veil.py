"""An engine does a merged call and dies: what readers of that node are shown until its writes are settled."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any

import pytest

from cluster.reads import Guarantee, Level
from cluster.state.commands import CreateCollection, Proposal, WriteRecords, encode_group, encode_proposal
from tests.simulation.invariants import Violation
from tests.simulation.parts import Parts
from tests.simulation.poison import Dose
from tests.simulation.stepped import SteppedApplier
from tests.simulation.test_hand_over import quiet_cluster, until

if TYPE_CHECKING:
    from cluster.errors import ClusterError

POISON = "poison.1"


class ShowWhatFailed(SteppedApplier):
    """Reads go on after a call that failed."""

    @property
    def hidden(self) -> str | None:
        return self._machine.half_written


def add(name: str, document: str) -> WriteRecords:
    return WriteRecords("add", "c", (name,), 1, (struct.pack("<f", 1.0),), None, (document,), None)


def read_beside_a_death(parts: Parts) -> int:
    """How many reads were answered while three writes were applied, the second of which ends the engine."""
    simulation = quiet_cluster(parts)
    until(simulation, lambda: simulation.newest_leader() is not None, "a leader")
    leader = simulation.newest_leader()
    assert leader is not None
    process = simulation.processes[leader]
    simulation.poison._doses[POISON] = Dose("dies-after", {leader: float("inf")})
    create = CreateCollection("default_tenant", "default_database", "name", "c", False, None, None, None)

    def propose(*commands: Any) -> None:
        last = process.journal.last_index + 1
        encoded = [encode_proposal(Proposal(f"{last}-{at}", b"", one)) for at, one in enumerate(commands)]
        process.enqueue(lambda: process.raft.propose(encode_group(process.wall_ms(), encoded)) and None)
        simulation.scheduler.run_until(simulation.scheduler.now + 0.001)
        until(simulation, lambda: process.applier.applied_index >= last, "it is applied")

    answered = 0

    def answer(value: Any, error: ClusterError | None) -> None:
        nonlocal answered
        if error is None:
            (digest, position), token, applied = value
            simulation.judge.on_read_answer("a read", "c", 0, digest, position, applied, token)
            answered += 1

    def keep_reading() -> None:
        process.enqueue(lambda: process.read(Guarantee(Level.EVENTUAL, 0, None), "c", answer))
        simulation.scheduler.after(0.001, keep_reading)

    propose(create)
    propose(add("before", "x"))
    keep_reading()
    propose(add("a", "x"), add("b", POISON), add("c", "x"))
    assert process.applier.impasse.at is None
    simulation.scheduler.run_until(simulation.scheduler.now + 0.1)
    return answered


def test_no_read_shows_what_a_failed_call_left() -> None:
    assert read_beside_a_death(Parts()) > 10


def test_without_the_veil_one_does() -> None:
    with pytest.raises(Violation, match="reads show the log"):
        read_beside_a_death(Parts(applier=ShowWhatFailed))
