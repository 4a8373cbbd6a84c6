"""Whose word counts: a node votes and acknowledges only while its journal has all that it ever promised.

A journal that was created anew, or an old copy that was put back, has forgotten votes and acknowledged
entries: with its help a leader could be elected that lacks what a majority acknowledged. So each journal has
an incarnation (a random name) and a standing:

- *new*: it votes once it has heard, at one time, every other member, each of them new too or founded together
  with this very incarnation: nothing can have been promised yet. Else a leader must admit it.
- *voter*: as in any Raft.
- *forgetful*: a peer has it on record with more than it has now. Votes and acks do not count.

A leader admits a node without a vote thus: it appends an entry after the node has said hello, commits it with
a quorum that leaves such nodes out, and tells the node once it holds that entry. Why that is enough is in
docs/raft.md ("Lost disks"); no clock is in the argument. The entry is a configuration that binds the id to
this incarnation: another journal of that id, an old one or a copy, is a stranger from then on.

Where `auto_replace` is off, that begins only when the operator says so (`Admit`, the same entry), but for
nodes that were just founded or added and have lost nothing.

A node that is in every majority (one of two voters) holds all that was ever committed. Its partner's word
counts for it even when the partner has forgotten everything: else such a cluster would never come back.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING

from cluster.raft.configuration import bound, encode_configuration
from cluster.raft.messages import Admitted, Forgotten, Hello, Removed
from cluster.raft.meta import Known, Standing
from cluster.raft.stock import FOLLOWER

if TYPE_CHECKING:
    from cluster.raft.core import Core
    from cluster.raft.replication import Replication

logger = logging.getLogger(__name__)

_RECORD_S = 1.0
"""What followers acknowledged goes to disk with the next flush, or by itself after this long."""


class Standings:
    """The standing of this node and of its peers, each as it said on its present connection."""

    def __init__(self, core: Core, replication: Replication) -> None:
        self.core = core
        self.replication = replication
        self._heard: dict[str, Hello] = {}
        self._strangers: dict[str, Hello] = {}
        """Those who are no members by the configuration in force here; it may be behind."""
        self._gates: dict[str, int] = {}
        """While leading: the entry that a node without a vote must hold before it is admitted."""
        self._admitted: set[str] = set()
        self._let_in: dict[str, str] = {}
        """While leading: the incarnations that the operator has let in."""
        self._told: set[str] = set()
        """Who is no member, as the log of this process says already."""
        self._saved_s = self._started_s = core.clock()

    # ------------------------------------------------------------------ looking

    def may_vote(self) -> bool:
        """Just after its start a node waits for what the others say: it may be an old copy of itself."""
        core = self.core
        if core.journal.standing is not Standing.VOTER:
            return False
        if len(self._heard) == len(core.peers):
            return True
        return core.clock() - self._started_s >= core.settings.election_low_s

    def counts(self, peer: str) -> bool:
        """Whether what `peer` has said is the word of a voter.

        Nothing else comes before its hello on a connection, so until then only what it said earlier counts.
        """
        hello = self._heard.get(peer)
        return hello is None or hello.standing == Standing.VOTER or self.is_needed()

    def has_vote(self, peer: str) -> bool:
        """Whether `peer` has said, on its present connection, that it may vote itself.

        A node that is in every majority takes the word of one that may not (`counts`). On a change of the
        members it must not: after it the others may have to elect somebody without this node.
        """
        hello = self._heard.get(peer)
        return hello is not None and hello.standing == Standing.VOTER

    def is_needed(self) -> bool:
        """Whether this node is in every majority of the committed configuration, and knows its promises.

        A later configuration needs a majority of this one too, for its commit and until then for every
        election: so this node has it if it is committed, and nobody was elected without this node's vote.
        """
        core = self.core
        if core.journal.standing is not Standing.VOTER:
            return False
        voters = core.journal.committed_configuration.voters
        return core.node_id in voters and len(voters) <= 2

    def lives(self) -> dict[str, str]:
        """The incarnations of the members that are connected and whose word counts, this node's own too."""
        heard = self._heard.items()
        lives = {peer: hello.incarnation for peer, hello in heard if hello.standing == Standing.VOTER}
        return {**lives, self.core.node_id: self.core.journal.incarnation}

    def hint(self) -> str | None:
        """Why this node has no vote, in words; None when it has."""
        core = self.core
        committed = core.journal.committed_configuration
        if self.is_out():
            number = max(core.removed_by or 0, committed.number)
            return f"removed from the cluster by its configuration {number}: stop it, its data is not needed"
        if core.configuration.member(core.node_id) is None:
            return "no member yet: the cluster has to add it (chroma-cluster members add)"
        match core.journal.standing:
            case Standing.VOTER:
                return None
            case Standing.NEW | Standing.FORGETFUL if not core.settings.auto_replace and self._heard_voters():
                return (
                    "its journal is new or an old one: it has no vote until it holds everything and is "
                    f"admitted (chroma-cluster members admit {core.node_id})"
                )
            case Standing.NEW:
                silent = [peer for peer in self.core.peers if peer not in self._heard]
                if silent and not any(self.counts(peer) for peer in self._heard):
                    return f"founding waits for {', '.join(silent)}"
                return "new here: it votes once it has taken everything from the others"
            case Standing.FORGETFUL:
                return "its journal lacks what it once acknowledged: it votes once it has that again"

    def _heard_voters(self) -> bool:
        """Whether the cluster lives: then this node founds nothing."""
        return any(hello.standing == Standing.VOTER for hello in self._heard.values())

    def is_out(self) -> bool:
        """Whether this node was removed, as far as it knows. One that waits to be added never was in."""
        core = self.core
        if core.removed_by:
            return True
        committed = core.journal.committed_configuration
        return committed.number > 0 and committed.member(core.node_id) is None

    # ------------------------------------------------------------------ saying and hearing

    def connected(self, peer: str) -> None:
        self.disconnected(peer)
        self._say(peer)

    def disconnected(self, peer: str) -> None:
        self._strangers.pop(peer, None)
        self._forget(peer)

    def _forget(self, peer: str) -> None:
        self._heard.pop(peer, None)
        self._gates.pop(peer, None)
        self._admitted.discard(peer)

    def _say(self, peer: str) -> None:
        core, journal = self.core, self.core.journal
        known = journal.known.get(peer)
        life = "" if known is None else known.incarnation
        number = journal.configuration.number
        hello = Hello(core.term, journal.incarnation, int(journal.standing), journal.last_index, life, number)
        core.outbox.reply(peer, hello)

    def say_again(self) -> None:
        """No leader is heard: a hello that was lost would keep the cluster unfounded for ever."""
        core = self.core
        if core.journal.standing is Standing.NEW or not core.may_stand:
            self._say_to_all()

    def _say_to_all(self) -> None:
        for peer in [*self.core.peers, *self._strangers]:
            self._say(peer)

    def on_configuration(self) -> None:
        """The members are others: who is one now, or no more?"""
        peers = self.core.peers
        for peer in [peer for peer in self._heard if peer not in peers]:
            self._strangers[peer] = self._heard[peer]
            self._forget(peer)
        for peer in [peer for peer in self._strangers if peer in peers]:
            self.on_hello(peer, self._strangers.pop(peer))
        self._say_to_all()
        self.tell_removed()

    def tell_removed(self) -> None:
        """Called when a configuration was committed: those that it leaves out learn so."""
        for peer in self._strangers:
            self.is_removed(peer)

    def is_removed(self, peer: str) -> bool:
        """Whether `peer` is surely no member any more; then it is told so.

        It is not if it knows a newer configuration than this node: it may have been added meanwhile.
        """
        core = self.core
        committed = core.journal.committed_configuration
        hello = self._strangers.get(peer)
        if committed.member(peer) is not None or peer in core.peers:
            return False
        if not committed.members or hello is None or hello.number > committed.number:
            return False
        core.outbox.reply(peer, Removed(core.term, committed.number))
        if peer not in self._told:
            self._told.add(peer)
            logger.warning(
                "raft %s: %s is no member of this cluster (%s): its messages do not count. If it was "
                "removed, stop it; if it shall be a member, add it (chroma-cluster members add)",
                core.node_id,
                peer,
                ", ".join(committed.ids),
            )
        return True

    def on_removed(self, peer: str, message: Removed) -> None:
        """This node stops standing, until a leader sends it something again."""
        core = self.core
        if message.number < core.journal.committed_configuration.number or core.removed_by is not None:
            return
        logger.error(
            "raft %s: %s says that this node is no member of the cluster (configuration %d). It stands for "
            "no election and serves nothing new: stop it, or add it again (chroma-cluster members add)",
            core.node_id,
            peer,
            message.number,
        )
        core.removed_by = message.number
        if core.state != FOLLOWER:
            core.become_follower(core.term, None)
        core.set_leader(None)

    def on_hello(self, peer: str, message: Hello) -> None:
        core, journal = self.core, self.core.journal
        if peer not in core.peers:
            self._strangers[peer] = message
            self.is_removed(peer)
            return
        before = self._heard.get(peer)
        if before is None or (before.incarnation, before.standing) != (message.incarnation, message.standing):
            self._forget(peer)
        known = journal.known.get(peer)
        if message.standing == Standing.NEW and journal.standing is not Standing.NEW:
            self._say(peer)  # it may ask again because it has not heard
        if message.standing == Standing.VOTER:
            if known is not None and _has_forgotten(message, known):
                logger.error(
                    "raft %s: %s has forgotten what it acknowledged: its log ends at %d in term %d, but it "
                    "held %d in term %d. It has no vote until it has all of that again",
                    core.node_id,
                    peer,
                    message.last_index,
                    message.term,
                    known.index,
                    known.term,
                )
                core.outbox.reply(peer, Forgotten(core.term, message.incarnation))
                message = replace(message, standing=int(Standing.FORGETFUL))
            elif self._is_another_life(peer, message):
                logger.error(
                    "raft %s: %s runs another journal than the one that the cluster admitted under this id: "
                    "an old directory, or that of another time. It has no vote until it is admitted again",
                    core.node_id,
                    peer,
                )
                core.outbox.reply(peer, Forgotten(core.term, message.incarnation))
                message = replace(message, standing=int(Standing.FORGETFUL))
            elif known is None or known.incarnation != message.incarnation:
                index = 0 if known is None else known.index
                self._record({peer: Known(message.incarnation, message.term, index)})
        self._heard[peer] = message
        if journal.standing is Standing.NEW:
            self.found()

    def _is_another_life(self, peer: str, hello: Hello) -> bool:
        """The cluster knows `peer` by another incarnation, and `peer` knows of no newer configuration."""
        committed = self.core.journal.committed_configuration
        member = committed.member(peer)
        bound_to = "" if member is None else member.incarnation
        return bool(bound_to) and hello.incarnation != bound_to and hello.number <= committed.number

    def found(self) -> None:
        """If this node is new and all others are, or were founded with it: it has a vote from now on."""
        core, journal = self.core, self.core.journal
        if journal.standing is not Standing.NEW or len(self._heard) < len(core.peers):
            return
        configuration = journal.configuration
        if configuration.number or configuration.member(core.node_id) is None:
            return
        if any(hello.standing == Standing.VOTER for hello in self._strangers.values()):
            return
        for hello in self._heard.values():
            is_founder = hello.standing == Standing.VOTER and hello.knows == journal.incarnation
            if hello.standing != Standing.NEW and not is_founder:
                return
        logger.info(
            "raft %s: the cluster is founded with %s", core.node_id, ", ".join(core.peers) or "itself"
        )
        self._record({peer: Known(it.incarnation, it.term, 0) for peer, it in self._heard.items()})
        self._rise()

    def on_forgotten(self, peer: str, message: Forgotten) -> None:
        core, journal = self.core, self.core.journal
        if message.incarnation != journal.incarnation or journal.standing is not Standing.VOTER:
            return
        logger.error(
            "raft %s: %s remembers more of this node's journal than it holds: an old copy of its directory "
            "was put back. It has no vote until it has taken everything from the others",
            core.node_id,
            peer,
        )
        journal.set_standing(Standing.FORGETFUL)
        if core.state != FOLLOWER:
            core.become_follower(core.term, None)
        self._say_to_all()

    def on_admitted(self, peer: str, message: Admitted) -> None:
        core, journal = self.core, self.core.journal
        if journal.standing is Standing.VOTER or message.incarnation != journal.incarnation:
            return
        if message.term == core.term and peer == core.leader_id:
            logger.info("raft %s: has a vote again, admitted by %s", core.node_id, peer)
            # In this term it may have voted before it forgot: it must not do so again.
            core.set_term(core.term, peer)
            self._rise()

    def _rise(self) -> None:
        self.core.journal.set_standing(Standing.VOTER)
        self._say_to_all()

    # ------------------------------------------------------------------ leading

    def end(self) -> None:
        """This node leads no more."""
        self._gates.clear()
        self._admitted.clear()
        self._let_in.clear()

    def without_vote(self) -> dict[str, str]:
        """The incarnations of the members that are there and have no vote yet, or no more."""
        heard = self._heard.items()
        return {peer: hello.incarnation for peer, hello in heard if hello.standing != Standing.VOTER}

    def let_in(self, peer: str, incarnation: str, index: int) -> None:
        """As the operator wishes: `peer` is admitted once it holds `index`, which binds this incarnation."""
        self._let_in[peer] = incarnation
        self._gates[peer] = index

    def _may_come_in(self, peer: str, hello: Hello) -> bool:
        """Whether nobody has to be asked: one that is new and was founded or added, and has lost nothing."""
        if self.core.settings.auto_replace or self._let_in.get(peer) == hello.incarnation:
            return True
        member = self.core.configuration.member(peer)
        if member is None or hello.standing != Standing.NEW:
            return False
        if member.incarnation:
            return member.incarnation == hello.incarnation
        known = self.core.journal.known.get(peer)
        is_founder = known is not None and known.incarnation == hello.incarnation
        return is_founder or not member.is_voter

    def lead(self, now: float) -> None:
        """Let those without a vote in by and by, and note what the others acknowledged."""
        core = self.core
        waiting = {peer: hello for peer, hello in self._heard.items() if hello.standing != Standing.VOTER}
        waiting = {peer: hello for peer, hello in waiting.items() if self._may_come_in(peer, hello)}
        self._make_gates({peer: it.incarnation for peer, it in waiting.items() if peer not in self._gates})
        for peer, hello in waiting.items():
            gate = self._gates.get(peer)
            if gate is None or peer in self._admitted:
                continue
            if core.commit_index >= gate and self.replication.progress[peer].match >= gate:
                logger.info("raft %s: %s holds all up to %d and has a vote again", core.node_id, peer, gate)
                self._admitted.add(peer)
                core.outbox.send(peer, Admitted(core.term, hello.incarnation))
        self._note(now)

    def _make_gates(self, lives: dict[str, str]) -> None:
        """An entry for those who say these incarnations: it binds them, as soon as a change may be made."""
        core, journal = self.core, self.core.journal
        members = {peer: core.configuration.member(peer) for peer in lives}
        news = {peer for peer, member in members.items() if member and member.incarnation != lives[peer]}
        old = lives.keys() - news
        if old:
            self._gates.update(dict.fromkeys(old, journal.append(core.term, b"").index))
        if news and core.may_change():
            binding = bound(core.configuration, {peer: lives[peer] for peer in news})
            self._gates.update(
                dict.fromkeys(news, journal.append(core.term, encode_configuration(binding)).index)
            )
            core.adopt()

    def _note(self, now: float) -> None:
        core, journal = self.core, self.core.journal
        news: dict[str, Known] = {}
        for peer, progress in self.replication.progress.items():
            known = journal.known.get(peer)
            index = min(progress.match, core.commit_index)
            if known is not None and self.counts(peer) and index > known.index:
                news[peer] = Known(known.incarnation, max(known.term, core.term), index)
        if news:
            journal.set_known({**journal.known, **news})
        if journal.known_is_saved:
            self._saved_s = now
        elif now - self._saved_s >= _RECORD_S:
            journal.save_known()

    def _record(self, news: dict[str, Known]) -> None:
        """Durable before anything leaves that rests on it."""
        journal = self.core.journal
        journal.set_known({**journal.known, **news})
        journal.save_known()


def _has_forgotten(hello: Hello, known: Known) -> bool:
    """What a node held when it was committed, and the term it spoke of, never go back while it remembers."""
    is_same_life = hello.incarnation == known.incarnation
    return hello.last_index < known.index or (is_same_life and hello.term < known.term)
