"""Which classes a simulated node is made of: the real ones, unless a mutation puts another in one's place."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cluster import levels, reads
from cluster.apply.deliberation import Deliberation
from cluster.propose.proposer import Proposer
from cluster.raft.election import Election
from cluster.raft.following import Following
from cluster.raft.hand_over import HandOver
from cluster.raft.journal import Journal
from cluster.raft.node import CorrectedNode
from cluster.raft.outbox import Outbox
from cluster.raft.read_rounds import ReadRounds
from cluster.raft.replication import Replication
from cluster.raft.retention import Retention
from cluster.raft.standing import Standings
from cluster.raft.transport import TcpTransport
from cluster.state.commands import level_of
from cluster.state.machine import Machine
from tests.simulation.disk import SimulatedStorage, SimulatedStore
from tests.simulation.filling import Installer, take
from tests.simulation.stepped import SteppedApplier, SteppedRaft

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from cluster.levels import Levels
    from cluster.state.commands import Command
    from cluster.state.machine import Limits
    from tests.simulation.disk import Snapshot
    from tests.simulation.process import Process


@dataclass(frozen=True)
class Parts:
    """The seams at which `tests.simulation.mutations` switches one bug on."""

    node: type[CorrectedNode] = CorrectedNode
    journal: type[Journal] = Journal
    storage: type[SimulatedStorage] = SimulatedStorage
    store: type[SimulatedStore] = SimulatedStore
    raft: type[SteppedRaft] = SteppedRaft
    applier: type[SteppedApplier] = SteppedApplier
    proposer: type[Proposer] = Proposer
    load_machine: Callable[[list[tuple[str, bytes]], Limits], Machine] = Machine.load
    deliberation: type[Deliberation] = Deliberation
    check_after: Callable[[reads.Guarantee, float, str], None] = reads.check_age
    """What judges the age of what a read has read."""
    transport: type[TcpTransport] = TcpTransport
    """Of the runs of the transport alone (`tests.simulation.links`)."""
    next_level: Callable[[int, Iterable[str], Mapping[str, Levels]], int | None] = levels.next_level
    level_of: Callable[[Command], int] = level_of
    installer: type[Installer] = Installer
    taker: Callable[[Process, str], Snapshot | None] = take
    wanted_index: Callable[[reads.Guarantee, int | None, int], int] = reads.wanted_index


def node_of(
    *,
    outbox: type[Outbox] = Outbox,
    election: type[Election] = Election,
    following: type[Following] = Following,
    replication: type[Replication] = Replication,
    reads: type[ReadRounds] = ReadRounds,
    hand_over: type[HandOver] = HandOver,
    standings: type[Standings] = Standings,
    retention: type[Retention] = Retention,
) -> type[CorrectedNode]:
    """A node with these in the place of its real parts."""

    class Node(CorrectedNode):
        outbox_type = outbox
        election_type = election
        following_type = following
        replication_type = replication
        reads_type = reads
        hand_over_type = hand_over
        standings_type = standings
        retention_type = retention

    return Node
