"""A leader's quorum rounds: heartbeats with a number, and the reads that a majority's answers prove."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cluster.raft.freshness import NO_CLAIM, Stamps, claim
from cluster.staleness import NOTHING_KNOWN, Knowledge

if TYPE_CHECKING:
    from collections.abc import Callable

    from cluster.raft.core import Core
    from cluster.raft.freshness import Claim
    from cluster.raft.replication import Replication

_NEVER_S = float("-inf")


@dataclass(slots=True)
class _Round:
    """Reads that share one quorum round: answered with `index` once a majority has answered `number`."""

    number: int
    index: int
    waiting: list[Callable[[int | None], None]]


class ReadRounds:
    """The rounds of one node. Their numbers go on over its terms: an old answer never proves a new round."""

    def __init__(self, core: Core, replication: Replication) -> None:
        self.core = core
        self.replication = replication
        self.number = 0
        """Of the newest round."""
        self.heartbeat_due_s = 0.0
        self.first_own_index = 0
        """The no-op of the own term, while leader."""
        self.new_reads: list[Callable[[int | None], None]] = []
        """Reads that no round has begun for."""
        self._began = Stamps()
        self._acked: dict[str, int] = {}
        """The newest round that each follower has answered in this term."""
        self._proven_s: dict[str, float] = {}
        """When that round began: at that time the follower was surely in no newer term."""
        self._echoes: dict[str, tuple[int, float]] = {}
        """The newest round that each has answered on its present connection, and when that came in."""
        self._rounds: list[_Round] = []

    def begin(self) -> None:
        """This node leads a new term: nobody has answered in it."""
        self._echoes.clear()
        self._acked = dict.fromkeys(self.core.peers, 0)
        self._proven_s = dict.fromkeys(self.core.peers, float("-inf"))

    def on_members(self) -> None:
        """The members are others: who is new has answered nothing, who is gone counts no more."""
        peers = self.core.peers
        self._acked = {peer: self._acked.get(peer, 0) for peer in peers}
        self._proven_s = {peer: self._proven_s.get(peer, _NEVER_S) for peer in peers}
        self._echoes = {peer: echo for peer, echo in self._echoes.items() if peer in peers}
        self._answer()

    def end(self) -> None:
        """This node leads no more: whoever waits learns so."""
        answers = [answer for pending in self._rounds for answer in pending.waiting] + self.new_reads
        self._rounds, self.new_reads = [], []
        for answer in answers:
            answer(None)

    def ask(self, answer: Callable[[int | None], None]) -> None:
        """A read: its round begins with the next tick."""
        self.new_reads.append(answer)

    def beat(self, now: float) -> None:
        """Begin a quorum round: a heartbeat with a new number to everybody."""
        self.number += 1
        self._began.note(self.number, now)
        self.heartbeat_due_s = now + self.core.settings.heartbeat_s
        for peer in self.replication.progress:
            self.replication.send_heartbeat(peer, self.number, self.claim(peer))

    def begin_for_reads(self, now: float) -> None:
        """Reads wait for a commit in the own term: before it the commit index may lag behind the truth."""
        if self.new_reads and self.core.commit_index >= self.first_own_index:
            self.beat(now)
            self._rounds.append(_Round(self.number, self.core.commit_index, self.new_reads))
            self.new_reads = []
            self._answer()

    def on_reply(self, peer: str, number: int, now: float) -> None:
        """A follower has answered the round `number`, in this term."""
        if number > self.number:
            return
        if number > self._acked[peer]:
            self._acked[peer] = number
            self._proven_s[peer] = max(self._began.at(number), self._proven_s[peer])
            self._echoes[peer] = (number, now)
            self._answer()

    def proven_s(self) -> float:
        """The time at which this leader was last surely in touch with a majority; -inf for never."""
        core = self.core
        proven = {peer: at for peer, at in self._proven_s.items() if core.counts(peer)}
        proven[core.node_id] = core.clock()
        return core.reached(proven, _NEVER_S)

    def known(self) -> Knowledge:
        """The commit index, and as of when it is all there is.

        Before the commit of the own no-op it may lack what an earlier leader had committed and answered.
        """
        if self.core.commit_index < self.first_own_index:
            return NOTHING_KNOWN
        return Knowledge(self.core.commit_index, self.proven_s())

    def claim(self, peer: str) -> Claim:
        """What the next heartbeat may tell `peer` about the age of this leader's commit index."""
        echo = self._echoes.get(peer)
        return NO_CLAIM if echo is None else claim(*echo, self.known().as_of_s, self.core.clock())

    def forget_echo(self, peer: str) -> None:
        """The connection is another: a new process of `peer` must not be told what the old one answered."""
        self._echoes.pop(peer, None)

    def _answer(self) -> None:
        if not self._rounds:
            return
        core = self.core
        acked = {peer: number for peer, number in self._acked.items() if core.counts(peer)}
        acked[core.node_id] = self.number
        proven = core.reached(acked, 0)
        while self._rounds and self._rounds[0].number <= proven:
            done = self._rounds.pop(0)
            for answer in done.waiting:
                answer(done.index)
