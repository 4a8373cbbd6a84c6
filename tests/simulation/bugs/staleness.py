"""Bugs of the staleness bound: a node takes what it holds for newer than it is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cluster.raft.following import Following
from cluster.raft.freshness import NO_CLAIM, claim
from cluster.raft.read_rounds import ReadRounds
from cluster.staleness import Knowledge, newer

if TYPE_CHECKING:
    from cluster.raft.freshness import Claim
    from cluster.raft.messages import Heartbeat
    from cluster.reads import Guarantee


class FreshFromArrival(Following):
    """What arrives now is taken for what is true now."""

    def learn(self, message: Heartbeat) -> None:
        self.known = newer(self.known, Knowledge(message.commit, self.core.clock()))


class BestFollowerProves(ReadRounds):
    """One follower's answer is taken for a majority's."""

    def proven_s(self) -> float:
        return max(self._proven_s.values())


class ProofAgeLeftOut(ReadRounds):
    """A leader claims to lead at the moment at which it speaks, however long nobody has confirmed it."""

    def claim(self, peer: str) -> Claim:
        echo, now_s = self._echoes.get(peer), self.core.clock()
        return NO_CLAIM if echo is None else claim(*echo, now_s, now_s)


class KnownBeforeOwnCommit(ReadRounds):
    """A new leader's commit index is taken for complete, though its predecessor may have committed more."""

    def known(self) -> Knowledge:
        return Knowledge(self.core.commit_index, self.proven_s())


def not_judged_again(guarantee: Guarantee, age_ms: float, node_id: str) -> None:
    """A read that began within its bound is answered, however long it took."""
