"""The command level that the cluster is at: a leader raises it, and nothing above it is proposed."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any, Final

from cluster.errors import Unavailable
from cluster.levels import lacking, next_level
from cluster.service.membership import other_ids
from cluster.state.commands import level_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future

    from cluster.config import NodeSettings
    from cluster.levels import Levels
    from cluster.raft.interface import Position, Raft, RaftStatus
    from cluster.state.commands import Command

log = logging.getLogger(__name__)

_LOOK_S: Final = 0.1


class Leveling:
    """Lives on the node's event loop."""

    def __init__(
        self,
        settings: NodeSettings,
        raft: Raft,
        levels: Callable[[], Levels],
        propose: Callable[[int], Future[Position]],
    ) -> None:
        """`levels` are this node's own; `propose` puts a raise into the log at once."""
        self._settings = settings
        self._raft = raft
        self._levels = levels
        self._propose = propose
        self._proposed: tuple[int, int, Future[Position]] | None = None

    async def watch(self) -> None:
        """Raise the level whenever all members understand more, if this node leads; until cancelled."""
        while True:
            self.look()
            await asyncio.sleep(_LOOK_S)

    def look(self) -> None:
        """Propose to raise the level, if that is due and not under way."""
        status = self._raft.status()
        if status.role != "leader" or not status.configuration_committed:
            return
        goal = next_level(self._levels().in_force, self._members(status), self._said(status))
        if goal is None:
            return
        if self._proposed is not None:
            term, level, future = self._proposed
            failed = future.done() and future.exception() is not None
            if (term, level) == (status.term, goal) and not failed:
                return  # under way, or committed and not applied here yet
        log.info("all members understand command level %d: it is put in force", goal)
        self._proposed = (status.term, goal, self._propose(goal))

    def permits(self, command: Command) -> bool:
        """Whether every member surely understands the command, those that are away too."""
        return level_of(command) <= self._levels().in_force

    def require(self, command: Command) -> None:
        """Raises:
        Unavailable: not every member is known to understand the command.
        """
        if self.permits(command):
            return
        wanted, status = level_of(command), self._raft.status()
        found = lacking(wanted, self._members(status), self._said(status))
        who = ", ".join(f"{member} ({why})" for member, why in found.items())
        raise Unavailable(
            f"This needs command level {wanted}, and the cluster is at level {self._levels().in_force}. It "
            "rises by itself once every member is connected and understands it"
            + (f"; it waits for {who}. Upgrade or start them, or remove them from the cluster" if who else "")
            + ". Nothing was changed; try again then."
        )

    def as_json(self) -> dict[str, Any]:
        """In the status: what is in force, what this node understands, and who keeps it from rising."""
        own, status = self._levels(), self._raft.status()
        said = self._said(status)
        wanted = max(levels.newest for levels in said.values())
        waits = lacking(wanted, self._members(status), said) if wanted > own.in_force else {}
        return {"in_force": own.in_force, "oldest": own.oldest, "newest": own.newest, "waits_for": waits}

    def _members(self, status: RaftStatus) -> tuple[str, ...]:
        return (self._settings.node_id, *other_ids(self._settings, status))

    def _said(self, status: RaftStatus) -> dict[str, Levels]:
        return {**status.levels, self._settings.node_id: self._levels()}
