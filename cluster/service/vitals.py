"""Looks after what a node says of itself: how far it is behind, whether it reaches its leader."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING, Final

from cluster.service.diagnosis import CatchingUp, Diagnosis, Facts, diagnose, line_reason
from cluster.service.membership import other_ids
from cluster.verify.digest import NODE

if TYPE_CHECKING:
    from collections.abc import Callable

    from cluster.apply.applier import Applier
    from cluster.config import NodeSettings
    from cluster.peers import Peers
    from cluster.raft.interface import Raft
    from cluster.service.health import Health
    from cluster.service.leader import Leader
    from cluster.verify.alarms import Alarms

log = logging.getLogger(__name__)

_LOOK_S: Final = 0.25
#: How often a follower asks its leader over HTTP whether it is there, and how often that must fail in a row.
_PING_S: Final = 1.0
_FAILURES: Final = 3


class Vitals:
    """Lives on the node's event loop."""

    def __init__(
        self,
        settings: NodeSettings,
        raft: Raft,
        applier: Applier,
        leader: Leader,
        health: Health,
        peers: Peers,
        alarms: Alarms,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings = settings
        self._raft = raft
        self._applier = applier
        self._leader = leader
        self._health = health
        self._peers = peers
        self._alarms = alarms
        self.doubts: Callable[[], str | None] = lambda: None
        """Why this node is to be verified before it is trusted like the others."""
        self._clock = clock
        self._catching_up = CatchingUp(settings.ready_lag_ms / 1000)
        self._failures = 0
        self._line: str | None = None
        self._said: str = ""

    def diagnosis(self) -> Diagnosis:
        """How this node is now."""
        raft, applied, now = self._raft.status(), self._applier.applied_index, self._clock()
        limit_ms = self._settings.election_timeout_max_ms
        in_touch = raft.leader is not None and raft.quorum_contact_ms <= limit_ms
        self._catching_up.look(now, in_touch=in_touch, leader_commit=raft.leader_commit, applied=applied)
        return diagnose(
            Facts(
                raft,
                applied,
                other_ids(self._settings, raft),
                limit_ms,
                self._health.trouble,
                self.line,
                self._catching_up.caught_up(now),
                self._catching_up.behind_s(now),
                self._leader.url(),
                self._alarms.reason,
                NODE in self._alarms.raised,
                self.doubts(),
                self._health.filling,
            )
        )

    @property
    def line(self) -> str | None:
        """Why the leader, which is another node, cannot be reached over HTTP; None: it can."""
        return self._line if self._failures >= _FAILURES else None

    def leader_trouble(self) -> str | None:
        """As `cluster.api.interface.Service.leader_trouble`."""
        if self.line is None or self._leader.is_here():
            return None
        return line_reason(self._leader.id(), self._leader.url(), self.line)

    async def watch(self) -> None:
        """Look again and again, and write every change of state to the log; until cancelled."""
        while True:
            found = self.diagnosis()
            if found.state != self._said:
                self._said = found.state
                level = logging.INFO if found.ready else logging.WARNING
                log.log(level, "%s: %s %s", found.state, found.reason or "", found.remedy or "")
            await asyncio.sleep(_LOOK_S)

    async def watch_line(self) -> None:
        """Ask the leader over HTTP whether it is there, again and again; until cancelled."""
        asked: str | None = None
        while True:
            url = None if self._leader.is_here() else self._leader.url()
            if url != asked:
                asked, self._failures = url, 0
            if url is not None:
                self._line = await self._peers.why_unreachable(url)
                self._failures = 0 if self._line is None else self._failures + 1
            await asyncio.sleep(_PING_S)
