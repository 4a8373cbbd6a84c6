"""Which classes a simulated node is made of: the real ones, unless a mutation puts another in one's place."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cluster import reads
from cluster.propose.proposer import Proposer
from cluster.raft.journal import Journal
from cluster.raft.node import CorrectedNode
from cluster.state.machine import Machine
from tests.simulation.disk import SimulatedStorage
from tests.simulation.stepped import SteppedApplier, SteppedRaft

if TYPE_CHECKING:
    from collections.abc import Callable

    from cluster.state.machine import Limits


@dataclass(frozen=True)
class Parts:
    """The seams at which `tests.simulation.mutations` switches one bug on."""

    node: type[CorrectedNode] = CorrectedNode
    journal: type[Journal] = Journal
    storage: type[SimulatedStorage] = SimulatedStorage
    raft: type[SteppedRaft] = SteppedRaft
    applier: type[SteppedApplier] = SteppedApplier
    proposer: type[Proposer] = Proposer
    load_machine: Callable[[list[tuple[str, bytes]], Limits], Machine] = Machine.load
    wanted_index: Callable[[reads.Guarantee, int | None, int], int] = reads.wanted_index
