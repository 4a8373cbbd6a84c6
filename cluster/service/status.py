"""What a node says of itself to those who watch it."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final

from cluster.errors import ClusterError, EngineDied
from cluster.service.versions import own_versions
from cluster.staleness import age_ms
from cluster.steady import steady_s

if TYPE_CHECKING:
    from cluster.apply.applier import Applier
    from cluster.chroma.interface import Tending
    from cluster.config import NodeSettings
    from cluster.raft.interface import Raft, RaftStatus
    from cluster.service.health import Health
    from cluster.service.leader import Leader
    from cluster.service.leveling import Leveling
    from cluster.service.reads import Reads
    from cluster.service.room import Room
    from cluster.service.sickness import Sickness
    from cluster.service.vitals import Vitals
    from cluster.snapshot.filling import Filling
    from cluster.verify.alarms import Alarms

log = logging.getLogger(__name__)

#: How long a count of documents is good enough.
_COUNT_S: Final = 1.0
#: How long a new count is waited for before the last one is told.
_COUNT_WAIT_S: Final = 0.2
#: When documents are counted again after Chroma's process ended over it.
_AFTER_DEATH_S: Final = 60.0


class StatusReport:
    """The node's status, read from its parts whenever it is asked for."""

    def __init__(
        self,
        settings: NodeSettings,
        raft: Raft,
        applier: Applier,
        leader: Leader,
        health: Health,
        reads: Reads,
        tending: Tending,
        sickness: Sickness,
        vitals: Vitals,
        room: Room,
        alarms: Alarms,
        filling: Filling,
        leveling: Leveling,
    ) -> None:
        self._leveling = leveling
        self._alarms = alarms
        self._room = room
        self._filling = filling
        self._vitals = vitals
        self._tending = tending
        self._sickness = sickness
        self._counting: asyncio.Task[None] | None = None
        self._versions = own_versions()
        self._settings = settings
        self._raft = raft
        self._applier = applier
        self._leader = leader
        self._health = health
        self._reads = reads
        self._started_at = time.time()
        self._documents = 0
        self._documents_at = 0.0

    def status(self) -> dict[str, Any]:
        """What `GET /cluster/status` answers, but for the count of documents."""
        raft = self._raft.status()
        applied = self._applier.applied_index
        found = self._vitals.diagnosis()
        return {
            "id": self._settings.node_id,
            "cluster": self._settings.cluster_id,
            "pid": os.getpid(),
            "role": raft.role,
            "term": raft.term,
            "leader": raft.leader,
            "leader_url": self._leader.url_of(raft.leader),
            "url": self._leader.url_of(self._settings.node_id),
            "raft_address": self._settings.raft,
            "first_index": raft.first_index,
            "last_index": raft.last_index,
            "commit_index": raft.commit_index,
            "applied_index": applied,
            "leader_commit": raft.leader_commit,
            "lag": found.lag,
            "quorum_contact_ms": round(raft.quorum_contact_ms, 1),
            "known_age_ms": self._known_age_ms(raft),
            "match_index": raft.match_index,
            "connected": list(raft.connected),
            "engine": self._engine(),
            "disk": self._room.status(),
            "versions": self._versions,
            "state": found.state,
            "healthy": found.healthy,
            "ready": found.ready,
            "reason": " ".join(filter(None, (found.reason, raft.hint))) or None,
            "remedy": found.remedy,
            "lacks": None if raft.lacks is None else asdict(raft.lacks),
            "configuration": self._configuration(raft),
            "unservable": {peer: asdict(lack) for peer, lack in raft.unservable.items()},
            "stuck": self._stuck(),
            "alarms": self._alarms.raised,
            "level": self._leveling.as_json(),
            "refused": raft.refused,
            "filling": None if (filling := self._filling.progress()) is None else filling.as_json(),
            "started_at": self._started_at,
            "chroma_path": str(self._settings.data_dir / "chroma"),
        }

    def _configuration(self, raft: RaftStatus) -> dict[str, Any]:
        """The members as far as this node knows."""
        now = raft.configuration
        return {
            "number": now.number,
            "committed": raft.configuration_committed,
            "removed": raft.is_removed,
            "voters": [member.id for member in now.members if member.is_voter],
            "learners": [member.id for member in now.members if not member.is_voter],
            "urls": {member.id: self._leader.url_of(member.id) for member in now.members},
        }

    @staticmethod
    def _known_age_ms(raft: RaftStatus) -> float | None:
        """The least staleness bound that this node can promise now, but for what it has not applied."""
        age = age_ms(raft.known, steady_s())
        return None if age == float("inf") else round(age, 1)

    def _stuck(self) -> dict[str, Any] | None:
        """The write that this node's engine fails on, or None."""
        stuck = self._applier.impasse.at
        if stuck is None:
            return None
        point = stuck.point
        return {
            "index": point.entry,
            "position": point.position,
            "cause": stuck.cause,
            "local": self._applier.impasse.is_local,
        }

    def _engine(self) -> dict[str, Any]:
        engine = self._tending.condition()
        return {
            "state": engine.state,
            "pid": engine.pid,
            "restarts": engine.restarts,
            "last_death": engine.last_death or None,
            "sick_collections": self._sickness.collections,
        }

    async def count_documents(self) -> int:
        """All documents in this node's Chroma as last counted; an engine that is slow is not waited for."""
        due = time.monotonic() - self._documents_at > _COUNT_S and not self._health.broken
        if due and self._counting is None and self._tending.condition().state == "serving":
            self._counting = asyncio.create_task(self._count())
        if self._counting is not None:
            await asyncio.wait((self._counting,), timeout=_COUNT_WAIT_S)
        return self._documents

    async def _count(self) -> None:
        try:
            broken = self._applier.broken_collections()
            self._documents = await self._reads.on_engine(lambda engine: engine.documents(broken))
            self._documents_at = time.monotonic()
        except EngineDied as death:
            # A collection that ends the process that counts it must not do so every second.
            log.warning("counting documents failed: %s", death.message)
            self._documents_at = time.monotonic() + _AFTER_DEATH_S
        except ClusterError as error:
            log.info("counting documents failed: %s", error.message)
            self._documents_at = time.monotonic()
        finally:
            self._counting = None
