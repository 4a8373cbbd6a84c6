"""A leader's entries on their way to its followers, and how far a majority holds them."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from cluster.failpoint import failpoint
from cluster.raft.freshness import NO_CLAIM
from cluster.raft.interface import Lack
from cluster.raft.messages import Accepted, Append, Heartbeat, Rejected, Unservable, WireEntry
from cluster.raft.progress import Progress

if TYPE_CHECKING:
    from cluster.raft.core import Core
    from cluster.raft.freshness import Claim

logger = logging.getLogger(__name__)

PROBE_BYTES = 64 * 1024
"""A probe takes entries along only when they are small: it may well be refused."""
_NEVER_S = float("-inf")
STALL_TIMEOUTS = 5
"""A stream whose acks stop for this many election timeouts is probed afresh, though its connection lives."""


class Replication:
    """The progress of every follower while this node leads; empty while it does not."""

    def __init__(self, core: Core) -> None:
        self.core = core
        self.progress: dict[str, Progress] = {}
        self.unservable: dict[str, Lack] = {}
        """Whose missing entries are compacted away here: told to them, and said once in the log."""
        self._shared: tuple[tuple[int, ...], Append, int] | None = None  # within one tick

    def begin(self, now: float) -> None:
        """This node leads: nothing is known of any follower."""
        next_index = self.core.journal.last_index + 1
        self.progress = {peer: Progress(next_index, contact_s=now, moved_s=now) for peer in self.core.peers}
        self.unservable.clear()

    def on_members(self, now: float) -> None:
        """The members are others: who is new is probed, who is gone is sent nothing more."""
        core, next_index = self.core, self.core.journal.last_index + 1
        for peer in [peer for peer in self.progress if peer not in core.peers]:
            del self.progress[peer]
            self.unservable.pop(peer, None)
        for peer in core.peers:
            if peer not in self.progress:
                self.progress[peer] = Progress(next_index, contact_s=now, moved_s=now)

    def end(self) -> None:
        """This node leads no more."""
        self.progress = {}
        self.unservable.clear()

    # ------------------------------------------------------------------ followers

    def restart(self, peer: str) -> None:
        """The connection to `peer` broke, or is new: probe it."""
        progress = self.progress[peer]
        progress.restart(self.core.journal.last_index + 1)
        # What this follower acknowledged before counts no more: it may come back with another disk.
        progress.match = 0

    def has_quorum(self, now: float) -> bool:
        """Whether a majority, this node included, has answered within the time that a link may be silent."""
        core = self.core
        contacts = {peer: it.contact_s for peer, it in self.progress.items() if core.counts(peer)}
        contacts[core.node_id] = now
        return now - core.reached(contacts, _NEVER_S) <= core.settings.dead_after_s

    def forgive(self, gap_s: float) -> None:
        """While this node itself was held up it asked nobody: that is no sign against the others."""
        settings = self.core.settings
        if gap_s > 3 * settings.heartbeat_s:
            for progress in self.progress.values():
                progress.contact_s += min(gap_s, settings.election_low_s) - settings.heartbeat_s

    def bytes_came(self, peer: str) -> None:
        """Bytes of a message under way show that a follower lives that owes an ack."""
        progress = self.progress.get(peer)
        if progress is not None and progress.inflight:
            progress.contact_s = self.core.clock()

    def on_accepted(self, peer: str, message: Accepted, now: float) -> None:
        if message.match <= self.core.journal.last_index:
            self.progress[peer].accepted(message.match, now)
            self.unservable.pop(peer, None)

    def on_rejected(self, peer: str, message: Rejected) -> None:
        """Step back to where the logs may meet, over a whole run of the follower's conflicting term."""
        progress = self.progress[peer]
        if progress.is_stale_rejection(message.prev_index):
            return
        next_index = message.conflict_index
        if message.conflict_term:
            last = self.core.journal.last_of_term(message.conflict_term)
            if last is not None and last < message.prev_index:
                next_index = last + 1
        progress.step_back(next_index, message.prev_index)

    # ------------------------------------------------------------------ the commit index

    def advance_commit(self) -> None:
        """A majority durably holds it (this node counts by what it has flushed), and it is of this term."""
        core, journal = self.core, self.core.journal
        matches = {peer: it.match for peer, it in self.progress.items() if core.counts(peer)}
        matches[core.node_id] = journal.durable_index
        index = min(core.reached(matches, 0), journal.durable_index)
        if index > core.commit_index and journal.term_at(index) == core.term:
            core.commit(index)

    def held_by_all(self) -> int:
        """Every member durably holds all entries up to here, and they are committed."""
        matches = [progress.match for progress in self.progress.values()]
        return min([*matches, self.core.journal.durable_index, self.core.commit_index])

    def notify_commit(self) -> None:
        """Followers learn of a commit at once, if nothing else is on its way to tell them."""
        core = self.core
        for peer, progress in self.progress.items():
            if progress.commit_sent < core.commit_index and not progress.probing and core.is_connected(peer):
                self.send_heartbeat(peer, 0)

    def heartbeat(self, number: int, claim: Claim = NO_CLAIM) -> Heartbeat:
        """A heartbeat of the quorum round `number`; see `messages.Heartbeat`."""
        core = self.core
        return Heartbeat(
            core.term, core.commit_index, core.floor, number, claim.echo, claim.heard_us, claim.led_us
        )

    def send_heartbeat(self, peer: str, number: int, claim: Claim = NO_CLAIM) -> None:
        self.progress[peer].commit_sent = self.core.commit_index
        self.core.outbox.send(peer, self.heartbeat(number, claim))

    # ------------------------------------------------------------------ entries

    def replicate(self, now: float) -> None:
        """Send to every connected follower what it may be sent now."""
        self._shared = None
        stall_s = STALL_TIMEOUTS * self.core.settings.election_high_s
        for peer, progress in self.progress.items():
            if not self.core.is_connected(peer):
                continue
            if progress.inflight and now - progress.moved_s > stall_s:
                progress.restart(progress.match + 1)
            if progress.probing:
                if now >= progress.probe_due_s:
                    self._probe(peer, progress, now)
            else:
                self._stream(peer, progress, now)
        self._shared = None

    def _probe(self, peer: str, progress: Progress, now: float) -> None:
        core = self.core
        prev_index = progress.next_index - 1
        progress.probe_due_s = now + 2 * core.settings.heartbeat_s
        if prev_index < core.journal.base_index:
            self._tell_unservable(peer, progress)
            return
        message, size = self._append_message(progress.next_index, PROBE_BYTES)
        if size > PROBE_BYTES:
            message = Append(core.term, prev_index, message.prev_term, core.commit_index, core.floor, ())
        core.outbox.send(peer, message)

    def _tell_unservable(self, peer: str, progress: Progress) -> None:
        lack = Lack(progress.next_index, self.core.journal.base_index)
        self.core.outbox.send(peer, Unservable(self.core.term, lack.needs, lack.compacted))
        is_known = peer in self.unservable
        self.unservable[peer] = lack
        if is_known:
            return
        logger.error(
            "raft %s: %s needs entries from index %d on, but they are compacted away up to %d: it "
            "cannot catch up from the log alone",
            self.core.node_id,
            peer,
            progress.next_index,
            self.core.journal.base_index,
        )

    def _stream(self, peer: str, progress: Progress, now: float) -> None:
        core, settings = self.core, self.core.settings
        last_index = core.journal.last_index
        while progress.next_index <= last_index and progress.inflight_bytes < settings.inflight_bytes:
            if progress.next_index <= core.journal.base_index:
                progress.restart(progress.next_index)
                return
            message, size = self._append_message(progress.next_index, settings.append_bytes)
            failpoint("raft.before_send")
            if not core.outbox.send(peer, message):
                return
            failpoint("raft.after_send")
            progress.commit_sent = core.commit_index
            progress.sent(message.prev_index + len(message.entries), size, now)

    def _append_message(self, next_index: int, max_bytes: int) -> tuple[Append, int]:
        """Entries from next_index on. Followers at one place get one and the same message: encoded once."""
        core, journal = self.core, self.core.journal
        key = (next_index, journal.last_index, core.commit_index, core.floor, max_bytes)
        if self._shared is None or self._shared[0] != key:
            rows = journal.read(next_index, journal.last_index, max_bytes)
            entries = tuple(WireEntry(row.term, row.crc, row.payload) for row in rows)
            size = sum(len(row.payload) + 64 for row in rows)
            prev_term = journal.term_at(next_index - 1)
            message = Append(core.term, next_index - 1, prev_term, core.commit_index, core.floor, entries)
            self._shared = (key, message, size)
        return self._shared[1], self._shared[2]
