"""One node's replicated log as the rest of the process sees it: `RaftNode`, an `interface.Raft`.

A thread that owns node, journal and transport; what other threads ask is queued and the thread woken, so a
proposal does not wait for a tick. Everything that is ready at one turn shares one fsync.
"""

from __future__ import annotations

import contextlib
import logging
import os
import random
import threading
import time
from collections import deque
from concurrent.futures import Future, InvalidStateError
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from cluster.errors import ClusterError, Fault, NotHandedOver, NotLeader, OutcomeUnknown, Overloaded
from cluster.failpoint import failpoint
from cluster.levels import Levels
from cluster.raft.configuration import split_address
from cluster.raft.handshake import Identity
from cluster.raft.interface import Entry, Position, RaftStatus
from cluster.raft.journal import Journal
from cluster.raft.meta import damaged_advice
from cluster.raft.node import CorrectedNode
from cluster.raft.settings import RaftSettings
from cluster.raft.transport import TcpTransport
from cluster.steady import steady_s

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from cluster.raft.interface import Change, Member
    from cluster.raft.tls import Tls

logger = logging.getLogger(__name__)

_TICK_BYTES = 4 * 1024 * 1024
"""About how many bytes of proposals one tick takes (at least one proposal)."""


@dataclass(slots=True)
class _Proposal:
    payload: bytes
    future: Future[Position]


@dataclass(frozen=True, slots=True)
class _Picture:
    """A status, and the moment of the last quorum contact to count from when it is looked at."""

    status: RaftStatus
    contact_s: float


class RaftNode:
    """See `interface.Raft` for the contract of each method.

    `members` maps every node id, this one included, to the address at which *this* node dials it. A cluster
    is founded with them; after that its members are those of its own configuration, and `members` only says
    where those are whose addresses it does not have. With `joins` this node is no founder: it waits until the
    cluster has added it. `in_settings` are the addresses (log, http) by which others reach the members.
    With `tls` all links are encrypted and both ends show certificates; every member needs it then.
    `levels` are told to peers when they connect; with those that do not fit them there is no link.
    `on_change` is called from the raft thread after role, term, leader or commit index have changed;
    `on_fault` once, with the reason, when this node has a fault. Neither may block.

    Raises:
        ValueError: the member list does not contain this node, or the secret is empty.
    """

    def __init__(
        self,
        node_id: str,
        members: dict[str, tuple[str, int]],
        bind: tuple[str, int],
        journal_path: Path,
        cluster_id: str,
        secret: bytes,
        settings: RaftSettings | None = None,
        on_change: Callable[[], None] | None = None,
        on_fault: Callable[[str], None] | None = None,
        tls: Tls | None = None,
        *,
        joins: bool = False,
        in_settings: Mapping[str, tuple[str, str]] | None = None,
        levels: Callable[[], Levels] = Levels,
    ) -> None:
        if node_id not in members:
            raise ValueError(f"node {node_id!r} is not among the members {sorted(members)}")
        if not secret:
            raise ValueError("the cluster secret is empty; nodes prove who they are with it")
        self.node_id = node_id
        self.members = dict(members)
        self.settings = settings or RaftSettings()
        self.bound_port = bind[1]
        self._bind = bind
        self._journal_path = journal_path
        self._tls = tls
        self._joins = joins
        self._in_settings = dict(in_settings or {it: (f"{at[0]}:{at[1]}", "") for it, at in members.items()})
        self._identity = Identity(cluster_id, node_id, secret, run=os.urandom(8).hex(), levels=levels)
        self._on_change = on_change
        self._on_fault = on_fault
        self._clock = steady_s
        self._rng = random.Random()
        self._lock = threading.Lock()
        self._queue: deque[_Proposal] = deque()  # guarded by _lock
        self._reads: deque[Future[int]] = deque()  # guarded by _lock
        self._calls: deque[Callable[[], None]] = deque()  # guarded by _lock
        self._pending_bytes = 0  # guarded by _lock
        self._accepting = False  # guarded by _lock
        self._woken = False
        self._waiting: deque[tuple[int, int, _Proposal]] = deque()  # (index, term, ..) in index order
        self._committed = threading.Condition()
        self._commit_index = 0  # guarded by _committed
        self._stopping = threading.Event()
        self._stop_deadline_s: float | None = None
        self._hands_over = False
        self._has_more = False
        self._applied = 0
        self._fault_told = False
        self._is_full = False
        self._node: CorrectedNode | None = None
        self._journal: Journal | None = None
        self._transport: TcpTransport | None = None
        self._thread: threading.Thread | None = None
        self._picture = _Picture(
            RaftStatus(node_id, "stopped", 0, None, 1, 0, 0, float("inf")), float("-inf")
        )

    # ------------------------------------------------------------------ life

    def start(self) -> None:
        """Raises Fault when the journal is damaged or not this node's, or the address is taken."""
        if self._thread is not None:
            raise RuntimeError("this node was started before; make a new one")
        identity = self._identity
        journal = Journal.open(
            self._journal_path,
            identity.cluster_id,
            identity.node_id,
            members=() if self._joins else self.members,
            incarnation=os.urandom(8).hex(),
            cache_bytes=self.settings.cache_bytes,
        )
        try:
            self._note_applied(journal)
        except Fault:
            journal.close()
            raise
        transport = TcpTransport(
            identity,
            self.members,
            self._bind,
            self.settings,
            clock=self._clock,
            rng=self._rng,
            tls=self._tls,
        )
        try:
            self.bound_port = transport.open()
        except BaseException:
            transport.destroy()
            journal.close()
            raise
        self._journal = journal
        self._transport = transport
        self._node = CorrectedNode(
            self.node_id,
            journal,
            transport,
            self.settings,
            clock=self._clock,
            rng=self._rng,
            on_commit=self._on_commit,
            on_members=self._on_members,
        )
        self._on_members(journal.participants)
        transport.on_alive = self._node.note_alive
        self._commit_index = journal.commit_index
        self._publish(self._node, transport)
        self._accepting = True
        self._thread = threading.Thread(target=self._run, name=f"raft-{self.node_id}", daemon=True)
        self._thread.start()

    def _on_members(self, members: tuple[Member, ...]) -> None:
        """Others take part: from now on the links are those to them."""
        if self._transport is None:
            return
        found: dict[str, tuple[str, int] | None] = {}
        for member in members:
            try:
                found[member.id] = split_address(member.address)
            except ValueError:
                found[member.id] = self.members.get(member.id)
        newcomers = [member.id for member in members if member.address]
        # One that waits to be added knows nobody yet but those that it was told of.
        self._transport.set_members(found or self.members, newcomers)

    def _note_applied(self, journal: Journal) -> None:
        """What is applied here was committed: nothing may ever cut it off again.

        Raises:
            Fault: the journal ends before what the state file says is applied.
        """
        if journal.last_index < self._applied:
            raise Fault(
                f"Node {self.node_id} has applied the log up to {self._applied}, but its journal "
                f"{journal.name} ends at {journal.last_index}: it is an older one than the rest of the "
                f"directory. Nothing was changed. {damaged_advice()}"
            )
        journal.set_commit(self._applied)

    def stop(self) -> None:
        thread = self._thread
        if thread is None:
            return
        self._stopping.set()
        self._wake()
        if thread is not threading.current_thread():
            thread.join()

    # ------------------------------------------------------------------ asking (any thread)

    def propose(self, payload: bytes, *, past_limits: bool = False) -> Future[Position]:
        """Raises ValueError for an empty payload or one above `settings.max_payload_bytes`.

        `past_limits`: also while this node's applier is so far behind that writes are refused.
        """
        if not payload:
            raise ValueError("an empty payload is the log's own no-op; propose something")
        if len(payload) > self.settings.max_payload_bytes:
            raise ValueError(
                f"a payload of {len(payload)} bytes; the log takes up to {self.settings.max_payload_bytes}"
            )
        future: Future[Position] = Future()
        refusal: Exception | None = None
        with self._lock:
            if not self._accepting:
                refusal = NotLeader(None)
            elif self._is_full and not past_limits:
                refusal = Overloaded(
                    "This node's Chroma is far behind the log, which may not grow further meanwhile. "
                    "Nothing was changed; send it again later."
                )
            elif self._pending_bytes and self._pending_bytes + len(payload) > self.settings.pending_bytes:
                refusal = Overloaded(
                    f"{self._pending_bytes} bytes of writes wait for their commit already. "
                    "Nothing was changed; send it again later."
                )
            else:
                self._pending_bytes += len(payload)
                self._queue.append(_Proposal(payload, future))
        if refusal is not None:
            future.set_exception(refusal)
        else:
            self._wake()
        return future

    def read_index(self) -> Future[int]:
        future: Future[int] = Future()
        with self._lock:
            accepted = self._accepting
            if accepted:
                self._reads.append(future)
        if accepted:
            self._wake()
        else:
            future.set_exception(NotLeader(None))
        return future

    def wait_commit(self, after: int, timeout_s: float) -> int:
        with self._committed:
            self._committed.wait_for(
                lambda: self._commit_index > after or self._stopping.is_set(), max(0.0, timeout_s)
            )
            index = self._commit_index
        if index <= after and self._stopping.is_set():
            time.sleep(max(0.0, min(timeout_s, 0.05)))  # a caller that loops does not spin
        return index

    def entries(self, start: int, max_bytes: int) -> list[Entry]:
        """Raises LookupError when compacted away; Fault when the stored entry is damaged."""
        journal = self._journal
        if journal is None:
            return []
        with self._committed:
            last = self._commit_index
        return journal.entries(start, last, max_bytes)

    def set_applied(self, index: int) -> None:
        self._applied = max(self._applied, index)

    def change_members(self, change: Change) -> Future[Position]:
        future: Future[Position] = Future()
        with self._lock:
            accepted = self._accepting
            if accepted:
                self._calls.append(lambda: self._change(change, future))
        if accepted:
            self._wake()
        else:
            future.set_exception(NotLeader(None))
        return future

    def transfer_leadership(self, to: str | None = None) -> Future[None]:
        future: Future[None] = Future()

        def answer(why: str | None) -> None:
            with contextlib.suppress(InvalidStateError):  # given up by who asked
                if why is None:
                    future.set_result(None)
                else:
                    future.set_exception(NotHandedOver(why))

        with self._lock:
            node = self._node if self._accepting else None
            if node is not None:
                self._calls.append(lambda: node.transfer(to, answer))
        if node is None:
            answer(f"{self.node_id} is stopping, or not started.")
        else:
            self._wake()
        return future

    def term_at(self, index: int) -> int:
        """The term of the entry at `index`, which is applied here and may just have been compacted.

        Raises:
            LookupError: it is compacted away, or beyond the end.
        """
        journal = self._journal
        if journal is None:
            raise LookupError("the journal is not open")
        return journal.term_of(index)

    def configuration_at(self, index: int) -> bytes:
        """The configuration in force at the applied entry `index`, encoded, for a snapshot of it.

        Raises:
            LookupError: the journal is not open.
        """
        journal = self._journal
        if journal is None:
            raise LookupError("the journal is not open")
        return journal.configuration_of(index)

    def hold_log(self, who: str, index: int, seconds: float) -> None:
        """Keep what comes after `index` for so long: `who` is being filled with a snapshot of that index.

        Bounded: a log that grows to twice what is usually kept is compacted all the same.
        """

        def hold() -> None:
            assert self._node is not None
            self._node.retention.hold(who, index, seconds)

        self._call(hold)

    def note_snapshot(self, size: int) -> None:
        """The newest snapshot has `size` bytes (0: there is none): a log of that size is kept at least."""

        def note() -> None:
            assert self._node is not None
            self._node.retention.snapshot_bytes = size

        self._call(note)

    def fail(self, reason: str) -> None:
        self._call(lambda: self._bar(reason))

    @property
    def fault(self) -> str | None:
        """Why this node does not lead (or, after a disk error, does not take part) any more."""
        node = self._node
        return None if node is None else node.fault

    def status(self) -> RaftStatus:
        picture = self._picture
        contact_ms = max(0.0, (self._clock() - picture.contact_s) * 1000)
        status = picture.status
        return replace(status, quorum_contact_ms=contact_ms)

    # ------------------------------------------------------------------ the raft thread

    def _run(self) -> None:
        node, transport = self._node, self._transport
        assert node is not None
        assert transport is not None
        try:
            while not self._is_done(node):
                due_s = node.next_deadline_s() - self._clock()
                transport.poll(0.0 if self._has_more else max(0.0, due_s))
                self._woken = False
                self._take_requests(node)
                node.doTick(0)
                self._settle(node)
                self._publish(node, transport)
        except Exception as error:
            logger.exception("raft %s: the raft thread failed", self.node_id)
            node.halt(f"the raft thread failed ({type(error).__name__}: {error})")
            self._settle(node)
        finally:
            self._shut_down(node, transport)

    def _is_done(self, node: CorrectedNode) -> bool:
        """Stopping waits for the hand-over of leadership, but not for ever."""
        if not self._stopping.is_set():
            return False
        if self._stop_deadline_s is None:
            with self._lock:
                self._accepting = False
            self._stop_deadline_s = self._clock() + self.settings.election_timeout_ms[0] / 1000
            self._hands_over = node.is_leader and self._has_links()
            node.transfer()
        if not self._hands_over or node.halted or self._clock() >= self._stop_deadline_s:
            return True
        # The hand-over is complete when the other leads: until then this node's vote may be needed.
        return not node.is_leader and node.leader_id is not None

    def _take_requests(self, node: CorrectedNode) -> None:
        with self._lock:
            proposals = self._next_proposals()
            reads, self._reads = self._reads, deque()
            calls, self._calls = self._calls, deque()
        for call in calls:
            call()
        node.set_applied(self._applied)
        for proposal in proposals:
            try:
                index, term = node.propose(proposal.payload)
            except NotLeader as refusal:
                self._finish(proposal, refusal)
            else:
                self._waiting.append((index, term, proposal))
                failpoint("raft.appended")
        for future in reads:
            node.read_index(_answer_to(future, node))

    def _next_proposals(self) -> list[_Proposal]:
        """Called with the lock. Bounded, because one tick's entries are one fsync: heartbeats wait for it."""
        taken: list[_Proposal] = []
        size = 0
        while self._queue and size < _TICK_BYTES:
            proposal = self._queue.popleft()
            size += len(proposal.payload)
            taken.append(proposal)
        self._has_more = bool(self._queue)
        return taken

    def _on_commit(self, index: int) -> None:
        """From the node, before the tick's fsync: answer at once."""
        journal = self._journal
        assert journal is not None
        with self._committed:
            self._commit_index = index
            self._committed.notify_all()
        while self._waiting and self._waiting[0][0] <= index:
            at, term, proposal = self._waiting.popleft()
            if at > journal.base_index and journal.term_at(at) == term:
                self._finish(proposal, Position(at, term))
            else:
                self._finish(proposal, _unknown("another leader's entry took its place"))

    def _settle(self, node: CorrectedNode) -> None:
        """Answer what can no longer be learnt here, and tell of a fault."""
        if self._waiting and not (node.is_leader and node.term == self._waiting[0][1]):
            self._fail_waiting("this node lost leadership before the commit")
        if node.fault is not None and not self._fault_told:
            self._fault_told = True
            if self._on_fault is not None:
                self._on_fault(node.fault)

    def _fail_waiting(self, why: str) -> None:
        while self._waiting:
            self._finish(self._waiting.popleft()[2], _unknown(why))

    def _finish(self, proposal: _Proposal, result: Position | Exception) -> None:
        with self._lock:
            self._pending_bytes -= len(proposal.payload)
        if not proposal.future.set_running_or_notify_cancel():
            return
        if isinstance(result, Position):
            proposal.future.set_result(result)
        else:
            proposal.future.set_exception(result)

    def _publish(self, node: CorrectedNode, transport: TcpTransport) -> None:
        journal = node.journal
        self._is_full = node.is_full(leading=True)
        status = RaftStatus(
            self.node_id,
            node.role,
            node.term,
            node.leader_id,
            journal.first_index,
            journal.last_index,
            node.commit_index,
            0.0,
            node.match_indices(),
            transport.connected,
            node.standings.hint(),
            leader_commit=node.leader_commit(),
            lacks=None if node.is_leader else node.following.lacks,
            unservable=dict(node.replication.unservable),
            without_vote=tuple(node.standings.without_vote()) if node.is_leader else (),
            known=node.known(),
            configuration=journal.configuration,
            configuration_committed=journal.configuration_index <= node.commit_index,
            is_removed=node.standings.is_out(),
            levels=transport.levels,
            refused=transport.refused,
        )
        before = self._picture.status
        self._picture = _Picture(status, node.quorum_contact_s())
        changed = (
            status.role,
            status.term,
            status.leader,
            status.commit_index,
            status.hint,
            status.lacks,
            status.configuration,
            status.configuration_committed,
            status.refused,
        ) != (
            before.role,
            before.term,
            before.leader,
            before.commit_index,
            before.hint,
            before.lacks,
            before.configuration,
            before.configuration_committed,
            before.refused,
        )
        if changed and self._on_change is not None:
            self._on_change()

    def _shut_down(self, node: CorrectedNode, transport: TcpTransport) -> None:
        with self._lock:
            self._accepting = False
            proposals, self._queue = self._queue, deque()
            reads, self._reads = self._reads, deque()
            calls, self._calls = self._calls, deque()
        for proposal in proposals:
            self._finish(proposal, NotLeader(None))
        for future in reads:
            if future.set_running_or_notify_cancel():
                future.set_exception(NotLeader(None))
        self._fail_waiting("this node stopped before the commit")
        node.retire()
        for call in calls:  # each who asked is answered
            call()
        node.destroy()
        node.journal.close()
        self._picture = _Picture(
            RaftStatus(
                self.node_id,
                "stopped",
                node.term,
                None,
                node.journal.first_index,
                node.journal.last_index,
                node.commit_index,
                0.0,
                configuration=node.journal.configuration,
            ),
            self._picture.contact_s,
        )
        self._stopping.set()
        with self._committed:
            self._committed.notify_all()

    # ------------------------------------------------------------------ inside

    def _call(self, call: Callable[[], None]) -> None:
        with self._lock:
            self._calls.append(call)
        self._wake()

    def _wake(self) -> None:
        if not self._woken and self._transport is not None:
            self._woken = True
            self._transport.wake()

    def _has_links(self) -> bool:
        return self._transport is not None and bool(self._transport.connected)

    def _change(self, change: Change, future: Future[Position]) -> None:
        assert self._node is not None
        proposal = _Proposal(b"", future)
        try:
            index, term = self._node.change(change, self._in_settings)
        except ClusterError as refusal:
            self._finish(proposal, refusal)
        else:
            self._waiting.append((index, term, proposal))

    def _bar(self, reason: str) -> None:
        assert self._node is not None
        self._node.bar(reason)


def _answer_to(future: Future[int], node: CorrectedNode) -> Callable[[int | None], None]:
    def answer(index: int | None) -> None:
        if not future.set_running_or_notify_cancel():
            return
        if index is None:
            leader = node.leader_id
            future.set_exception(NotLeader(leader if leader != node.node_id else None))
        else:
            future.set_result(index)

    return answer


def _unknown(why: str) -> OutcomeUnknown:
    return OutcomeUnknown(
        f"The outcome is unknown: the write was appended to the log, but {why}. It may still take effect; "
        "send it again with the same key."
    )
