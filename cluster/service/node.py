"""One node as its HTTP handlers see it: its parts under one name, and nothing of its own."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from cluster.proof import is_proof
from cluster.service.containing import Containing
from cluster.service.guard import Guard
from cluster.service.health import Health
from cluster.service.leader import Leader
from cluster.service.membership import Membership, OtherMembers
from cluster.service.reads import Reads
from cluster.service.room import Room
from cluster.service.sickness import Sickness
from cluster.service.status import StatusReport
from cluster.service.stewardship import Stewardship
from cluster.service.vectors import VectorMaking
from cluster.service.versions import Versions
from cluster.service.vitals import Vitals
from cluster.service.waiting import Waiting
from cluster.service.writes import Writes

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future

    from cluster.apply.applier import Applier
    from cluster.chroma.interface import Engine, Judge, Tending
    from cluster.chroma.oracle import Oracle
    from cluster.config import NodeSettings
    from cluster.embedding.embedder import Embedder
    from cluster.peers import Peers
    from cluster.propose.proposer import Proposer
    from cluster.raft.interface import Position, Raft
    from cluster.snapshot.donating import Donor
    from cluster.snapshot.filling import Filling
    from cluster.state.catalog import Catalog
    from cluster.state.commands import RefuseEntry


class NodeService:
    """Implements `Service` and `PeerService` of `cluster.api.interface`; lives on the node's event loop.

    After a fault nothing is served but the status.
    """

    def __init__(
        self,
        settings: NodeSettings,
        *,
        raft: Raft,
        applier: Applier,
        engine: Engine,
        tending: Tending,
        scratch: Judge,
        oracle: Oracle,
        embedder: Embedder,
        peers: Peers,
        proposer: Proposer,
        propose_agreement: Callable[[RefuseEntry], Future[Position]],
        donor: Donor,
        filling: Filling,
        hold_log: Callable[[str, int, float], None],
    ) -> None:
        self.donor = donor
        self.hold_log = hold_log
        self.refill = filling.refill
        self.keep_filled = filling.run
        self.keep_tidy = donor.keep_tidy
        self._filling = filling
        self.node_id = settings.node_id
        self.allow_reset = settings.allow_reset
        self.max_request_bytes = settings.max_request_bytes
        self.scratch = scratch
        self.oracle = oracle
        self._applier = applier

        self._compose(settings, raft, applier, engine, tending, embedder, peers, proposer, propose_agreement)

    def _compose(
        self,
        settings: NodeSettings,
        raft: Raft,
        applier: Applier,
        engine: Engine,
        tending: Tending,
        embedder: Embedder,
        peers: Peers,
        proposer: Proposer,
        propose_agreement: Callable[[RefuseEntry], Future[Position]],
    ) -> None:
        health = Health(settings.node_id, raft, tending, applier.impasse, self._filling.progress)
        leader = Leader(settings, raft)
        waiting = Waiting(settings, raft, applier, peers, leader, health)
        others = OtherMembers(settings, raft)
        room = Room(settings.node_id, settings.data_dir, settings.disk_reserve_bytes, raft, peers, others)
        writes = Writes(applier, proposer, leader, health, room, settings.write_timeout_ms)
        reads = Reads(engine, applier, waiting, health, settings.read_threads)
        vectors = VectorMaking(embedder, applier, peers, leader, health, waiting, reads)
        containing = Containing(settings, raft, applier, peers, others, propose_agreement)
        sickness = Sickness(tending, reads)
        vitals = Vitals(settings, raft, applier, leader, health, peers)
        report = StatusReport(
            settings,
            raft,
            applier,
            leader,
            health,
            reads,
            tending,
            sickness,
            vitals,
            room,
            self._filling,
        )
        stewardship = Stewardship(raft, tending, peers, others)
        membership = Membership(settings, raft, leader, peers)
        secret = settings.secret_bytes

        self.is_leader = leader.is_here
        self.leader_id = leader.id
        self.leader_url = leader.url
        self.write = writes.write
        self.observe = reads.observe
        self.read = reads.read
        self.look_up = reads.look_up
        self.read_back = reads.read_back
        self.read_index = waiting.read_index
        self.embed = vectors.embed
        self.embed_here = vectors.embed_here
        self.keep_warm = vectors.keep_warm
        self.members = membership.listing
        self.change_members = membership.change
        self.progress = containing.progress
        self.keep_containing = containing.run
        self.status = report.status
        self.count_documents = report.count_documents
        self.guard = Guard(settings.node_id, peers, others.values())
        self.check_collection = sickness.check
        self.is_from_member = partial(is_proof, secret)
        versions = Versions(leader, health, peers, mixed=settings.allow_mixed_versions)
        self.compare_versions = versions.watch
        self.lead_only_when_well = stewardship.watch
        self.keep_watch = vitals.watch
        self.keep_line = vitals.watch_line
        self.keep_room = room.watch
        self.leader_trouble = vitals.leader_trouble
        self.fail = health.fail
        self.stop_serving = health.stop_serving

        self._health = health
        self._closing = (reads.close, vectors.close)

    @property
    def catalog(self) -> Catalog:
        """Tenants, databases and collections as applied here; to look at, never to change."""
        return self._applier.catalog

    @property
    def reason(self) -> str | None:
        """Why this node does not serve, or None."""
        return self._health.reason or self._health.lack

    @property
    def failed(self) -> bool:
        """Whether there was a fault."""
        return self._health.broken

    def close(self) -> None:
        """Wait for reads under way and stop the worker threads."""
        for close in self._closing:
            close()
