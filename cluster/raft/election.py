"""Who leads: when this node stands, how it votes, and how its own votes count."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from cluster.raft.messages import PreVote, PreVoteReply, TimeoutNow, Vote, VoteReply
from cluster.raft.quorum import VoteResult, vote_result
from cluster.raft.stock import CANDIDATE, FOLLOWER, LEADER

if TYPE_CHECKING:
    from cluster.raft.core import Core

logger = logging.getLogger(__name__)


class Election:
    """Pre-votes, votes and the election deadline of one node."""

    def __init__(self, core: Core) -> None:
        self.core = core
        self.votes: dict[str, bool] = {}
        """Who has granted or refused what this node asks for."""
        self.pre_vote_term: int | None = None
        """The proposed term while asking for pre-votes; None in a real election."""
        self.attempts = 0
        self.heard_s = float("-inf")
        """When the present leader was last heard."""

    # ------------------------------------------------------------------ the deadline

    def wait(self, low_ms: float, high_ms: float) -> None:
        """Stand after a random time of the given bounds."""
        core = self.core
        core.set_election_deadline(core.clock() + core.rng.uniform(low_ms, high_ms) / 1000)

    def wait_whole_timeout(self) -> None:
        self.wait(*self.core.settings.election_timeout_ms)

    def retry(self) -> None:
        """The next try comes soon at first, so that a split vote costs little, then ever later."""
        settings = self.core.settings
        low, high = settings.election_timeout_ms
        soon = settings.early_election_ms[1] * 2**self.attempts
        self.attempts = min(self.attempts + 1, 16)
        if soon >= low:
            self.wait(low, high)
        else:
            self.wait(soon, min(2 * soon, high))

    def put_off(self) -> None:
        """Somebody else is about to stand: do not stand against it at the same moment."""
        core = self.core
        soon = core.clock() + core.rng.uniform(1, 2) * core.settings.early_election_ms[1] / 1000
        core.set_election_deadline(max(core.election_deadline, soon))

    def leader_lost(self) -> None:
        """The connection to the leader broke: stand soon."""
        core = self.core
        low, high = core.settings.early_election_ms
        early = core.clock() + core.rng.uniform(low, high) / 1000
        core.set_election_deadline(min(core.election_deadline, early))

    def leader_heard(self, now: float) -> None:
        """The leader lives: bytes of it came in."""
        self.heard_s = now
        self.wait_whole_timeout()

    def is_leader_alive(self) -> bool:
        """This node leads, or hears its leader: then it helps nobody to depose it."""
        core = self.core
        if core.state == LEADER:
            return True
        leader = core.leader_id
        if leader is None or not core.is_connected(leader):
            return False
        return core.clock() - self.heard_s < core.settings.election_low_s

    # ------------------------------------------------------------------ standing

    def stand(self, now: float) -> None:
        """The leader is gone, as far as this node knows: ask whether an election could be won."""
        core, journal = self.core, self.core.journal
        if core.barred or not core.may_stand:
            self.wait_whole_timeout()
            if core.state != FOLLOWER:
                core.set_state(FOLLOWER)
            core.set_leader(None)
            if not core.barred:
                core.say_again()
            return
        if not core.may_vote():
            self.wait(*core.settings.early_election_ms)
            core.set_leader(None)
            core.say_again()
            return
        self.retry()
        core.set_leader(None)
        core.set_state(CANDIDATE)
        self.pre_vote_term = core.term + 1
        self.votes = {core.node_id: True}
        needed = core.is_needed()
        ask = PreVote(core.term, core.term + 1, journal.last_index, journal.last_term, needed)
        for peer in core.peers:
            core.outbox.send(peer, ask)
        if self.result() is VoteResult.WON:
            self.elect(transfer=False)

    def elect(self, *, transfer: bool) -> None:
        """A real election: the own vote is durable before it is counted or asked of others."""
        core, journal = self.core, self.core.journal
        self.pre_vote_term = None
        core.set_leader(None)
        core.set_state(CANDIDATE)
        core.set_term(core.term + 1, core.node_id)
        self.votes = {core.node_id: True}
        self.retry()
        ask = Vote(core.term, journal.last_index, journal.last_term, transfer, core.is_needed())
        for peer in core.peers:
            core.outbox.hold(peer, ask)

    def result(self) -> VoteResult:
        """How the votes stand. Nothing follows from LOST: the next try comes at its time in any case."""
        results = {
            vote_result(
                {voter: self.votes[voter] for voter in voters if voter in self.votes},
                len(voters),
                self.core.quorum_of(voters),
            )
            for voters in self.core.electorates
        }
        if results == {VoteResult.WON}:
            return VoteResult.WON
        return VoteResult.LOST if VoteResult.LOST in results else VoteResult.PENDING

    def count(self, now: float) -> None:
        """Called after a flush, so the own vote is durable."""
        if self.pre_vote_term is None and self.result() is VoteResult.WON:
            self.core.become_leader(now)

    def give_up(self) -> None:
        """This node is no candidate any more."""
        self.pre_vote_term = None
        self.votes = {}

    # ------------------------------------------------------------------ messages

    def _is_fit(self, message: PreVote | Vote) -> bool:
        """Whether this node's vote may go to who asks, as far as the logs say.

        One that is in every majority holds all that was ever committed. To it a node without a vote lends its
        word whatever it stores itself: it may hold an entry more than the leader that sent it, and lost power
        before it had written it. Nobody but that one could be elected.
        """
        if not self.core.may_vote():
            return message.needed
        return self.is_up_to_date(message.last_index, message.last_term)

    def is_up_to_date(self, last_index: int, last_term: int) -> bool:
        """Whether a log with this end holds all that may be committed, as far as this node's log tells."""
        journal = self.core.journal
        return (last_term, last_index) >= (journal.last_term, journal.last_index)

    def on_pre_vote(self, peer: str, message: PreVote) -> None:
        core = self.core
        granted = message.proposed > core.term and self._is_fit(message) and not self.is_leader_alive()
        if granted and core.state == FOLLOWER:
            self.put_off()
        core.outbox.reply(peer, PreVoteReply(core.term, message.proposed, granted))

    def on_pre_vote_reply(self, peer: str, message: PreVoteReply) -> None:
        core = self.core
        if message.term > core.term:
            core.become_follower(message.term, None)
        elif core.state == CANDIDATE and message.proposed == self.pre_vote_term:
            self._note(peer, message.granted)
            if message.granted and self.result() is VoteResult.WON:
                self.elect(transfer=False)

    def on_vote(self, peer: str, message: Vote) -> None:
        core = self.core
        if message.term > core.term:
            if self.is_leader_alive() and not message.transfer:
                core.outbox.reply(peer, VoteReply(core.term, False))
                return
            core.become_follower(message.term, None)
        granted = message.term == core.term and core.vote in (None, peer) and self._is_fit(message)
        if granted:
            core.set_term(core.term, peer)
            self.wait_whole_timeout()
        core.outbox.hold(peer, VoteReply(core.term, granted))

    def on_vote_reply(self, peer: str, message: VoteReply) -> None:
        core = self.core
        if message.term > core.term:
            core.become_follower(message.term, None)
        elif message.term == core.term and core.state == CANDIDATE:
            self._note(peer, message.granted)

    def on_timeout_now(self, peer: str, message: TimeoutNow) -> None:
        core = self.core
        can_lead = core.may_vote() and core.may_stand and not core.barred
        if message.term == core.term and peer == core.leader_id and can_lead:
            logger.info("raft %s: asked by %s to take over", core.node_id, peer)
            self.elect(transfer=True)

    def _note(self, peer: str, granted: bool) -> None:
        """A refusal that comes late, of an earlier try, takes back nothing that was granted."""
        self.votes[peer] = (granted and self.core.counts(peer)) or self.votes.get(peer, False)
