"""Bugs of standing: nodes that forgot what they promised, and whose word counts all the same."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from cluster.raft.meta import Standing
from cluster.raft.standing import Standings

if TYPE_CHECKING:
    from cluster.raft.messages import Hello


class WipedNodeVotes(Standings):
    """An empty journal votes and is counted, as in any Raft whose disks are never lost."""

    def may_vote(self) -> bool:
        return True

    def counts(self, peer: str) -> bool:
        return True


class WipedNodeCounts(Standings):
    """It has no vote, but its acks make a quorum."""

    def counts(self, peer: str) -> bool:
        return True


class AdmittedAtOnce(Standings):
    """The leader admits a node before it holds anything."""

    def lead(self, now: float) -> None:
        for peer in self._heard:
            self._gates.setdefault(peer, 0)
        super().lead(now)


class FoundedBySome(Standings):
    """A node takes itself for a founder whatever the others say of themselves."""

    def found(self) -> None:
        heard = self._heard
        self._heard = {peer: _new(hello) for peer, hello in heard.items()}
        super().found()
        self._heard = heard


def _new(hello: Hello) -> Hello:
    return replace(hello, standing=int(Standing.NEW))
