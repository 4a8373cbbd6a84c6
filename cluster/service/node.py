"""One node as its HTTP handlers see it: its parts under one name, and nothing of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cluster.service.containing import Containing
from cluster.service.guard import Guard
from cluster.service.health import Health
from cluster.service.leader import Leader
from cluster.service.leveling import Leveling
from cluster.service.membership import Membership, OtherMembers
from cluster.service.reads import Reads
from cluster.service.repair import Repair
from cluster.service.room import Room
from cluster.service.sickness import Sickness
from cluster.service.status import StatusReport
from cluster.service.stewardship import Stewardship
from cluster.service.vectors import VectorMaking
from cluster.service.verification import Verification
from cluster.service.versions import Versions
from cluster.service.vitals import Vitals
from cluster.service.waiting import Waiting
from cluster.service.writes import Writes

if TYPE_CHECKING:
    from cluster.config import NodeSettings
    from cluster.service.parts import Parts
    from cluster.state.catalog import Catalog


class NodeService:
    """Implements `Service` and `PeerService` of `cluster.api.interface`; lives on the node's event loop.

    After a fault nothing is served but the status.
    """

    def __init__(self, settings: NodeSettings, parts: Parts) -> None:
        self.donor = parts.donor
        self._hold_log = parts.hold_log
        self.refill = parts.filling.refill
        self.keep_filled = parts.filling.run
        self.keep_tidy = parts.donor.keep_tidy
        self._filling = parts.filling
        self.node_id = settings.node_id
        self.allow_reset = settings.allow_reset
        self.admits_strangers = settings.admits_strangers
        self.max_request_bytes = settings.max_request_bytes
        self.scratch = parts.scratch
        self.oracle = parts.oracle
        self.door = parts.door
        self.prover = parts.prover
        self._applier = parts.applier
        self._compose(settings, parts)

    def _compose(self, settings: NodeSettings, parts: Parts) -> None:
        raft, applier, tending, peers = parts.raft, parts.applier, parts.tending, parts.peers
        health = Health(settings.node_id, raft, tending, applier.impasse, parts.filling.progress)
        leader = Leader(settings, raft)
        waiting = Waiting(settings, raft, applier, peers, leader, health)
        others = OtherMembers(settings, raft)
        room = Room(settings.node_id, settings.data_dir, settings.disk_reserve_bytes, raft, peers, others)
        leveling = Leveling(settings, raft, parts.levels, parts.propose_level)
        writes = Writes(applier, parts.proposer, leader, health, room, leveling, settings.write_timeout_ms)
        alarms = parts.verifying.alarms
        reads = Reads(parts.engine, applier, waiting, health, settings.read_threads, alarms)
        vectors = VectorMaking(parts.embedder, applier, peers, leader, health, waiting, reads)
        containing = Containing(settings, raft, applier, peers, others, parts.propose_agreement)
        sickness = Sickness(tending, reads)
        vitals = Vitals(settings, raft, applier, leader, health, peers, alarms)
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
            alarms,
            self._filling,
            leveling,
        )
        stewardship = Stewardship(raft, tending, peers, others, alarms)
        verification = Verification(
            settings, applier, leader, peers, others, writes, leveling, parts.verifying
        )
        vitals.doubts = lambda: verification.doubts
        repair = Repair(others, peers, alarms, self.refill, automatic=settings.auto_repair)
        verification.on_differs = repair.on_differs
        membership = Membership(settings, raft, leader, peers)

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
        versions = Versions(leader, health, peers, mixed=settings.allow_mixed_versions)
        self.compare_versions = versions.watch
        self.keep_level = leveling.watch
        self.lead_only_when_well = stewardship.watch
        self.keep_watch = vitals.watch
        self.keep_line = vitals.watch_line
        self.keep_room = room.watch
        self.leader_trouble = vitals.leader_trouble
        self.verify = verification.verify
        self.digests = verification.digests
        self.take_verdict = verification.take_verdict
        self.keep_verifying = verification.run
        self.repair = repair.repair
        self.trust = repair.trust
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

    def hold_log(self, who: str, index: int, seconds: float) -> None:
        """As `cluster.api.interface.PeerService.hold_log`."""
        self._hold_log(who, index, seconds)

    def close(self) -> None:
        """Wait for reads under way and stop the worker threads."""
        for close in self._closing:
            close()
