"""What a node is put together from, made before it and closed after it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future

    from cluster.apply.applier import Applier
    from cluster.chroma.interface import Engine, Judge, Tending
    from cluster.chroma.oracle import Oracle
    from cluster.embedding.embedder import Embedder
    from cluster.levels import Levels
    from cluster.peers import Peers
    from cluster.propose.proposer import Proposer
    from cluster.raft.interface import Position, Raft
    from cluster.service.verification import Verifying
    from cluster.snapshot.donating import Donor
    from cluster.snapshot.filling import Filling
    from cluster.state.commands import RefuseEntry
    from wire.door import Door
    from wire.prover import Prover


@dataclass(frozen=True, slots=True)
class Parts:
    """`engine` and `tending` are this node's Chroma, to be read and to be looked after."""

    raft: Raft
    applier: Applier
    engine: Engine
    tending: Tending
    scratch: Judge
    oracle: Oracle
    embedder: Embedder
    door: Door
    prover: Prover
    peers: Peers
    proposer: Proposer
    propose_agreement: Callable[[RefuseEntry], Future[Position]]
    """Past the line of waiting writes."""
    levels: Callable[[], Levels]
    """What this node says of command levels."""
    propose_level: Callable[[int], Future[Position]]
    """Past the line of waiting writes, too."""
    verifying: Verifying
    donor: Donor
    filling: Filling
    hold_log: Callable[[str, int, float], None]
    """Keep the log for a member, from an index on, for so many seconds."""
