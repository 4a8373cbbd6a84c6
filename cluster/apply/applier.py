"""Drives machine, engine and store through the committed log: in order, each entry once, durably.

One thread. For each step: the engine call, then one durable transaction with the machine's changes,
the engine's id map and the marker, then memory, then the answers to who waits. A crash in between
repeats exactly that step (see `cluster.state.machine` for why that is harmless). What the machine decides
is final; what disk, rights or memory keep this node from doing is a fault: the thread stops there. What the
engine fails on for another reason is repeated, alone and on a fresh engine; if it fails again the thread is
stuck there (`impasse`): it tries again now and then, until it works or the log says that the write is refused
(`cluster.apply.containment`). No entry is ever skipped.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from concurrent.futures import Future, InvalidStateError
from typing import TYPE_CHECKING, Final, TypeAlias

from cluster.apply.agreement import agreements_in
from cluster.apply.containment import Stuck
from cluster.apply.deliberation import describe
from cluster.apply.examine import Remains, examine
from cluster.apply.impasse import Impasse
from cluster.apply.remembering import remember
from cluster.apply.veil import Veil
from cluster.apply.visits import Visits
from cluster.apply.witness import Blind
from cluster.chroma.errors import environment_of, fault_of
from cluster.errors import (
    FILLED_BY_OTHERS,
    ClusterError,
    EngineDied,
    EngineUnavailable,
    Fault,
    OutcomeUnknown,
    Refusal,
    Unavailable,
)
from cluster.failpoint import failpoint
from cluster.state.catalog import Outcome
from cluster.state.commands import NEWEST_LEVEL, NotUnderstood, decode_group, require_understood
from cluster.state.refusals import Point
from cluster.state.work import Call, Remember, Resolve

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cluster.apply.store import Store
    from cluster.apply.witness import Witness
    from cluster.chroma.interface import Engine
    from cluster.raft.interface import Entry, Raft
    from cluster.state.catalog import Catalog, Change
    from cluster.state.machine import LogEntry, Machine, Step
    from cluster.state.refusals import Trouble
    from cluster.state.work import Work

log = logging.getLogger(__name__)

#: How long a wait for commits may last before the thread looks whether it is to stop.
_WAIT_S: Final = 0.25
#: How often the thread, while it is stuck or the engine is away, looks whether it may go on.
_STUCK_S: Final = 0.05
#: Failures of the engine on one write alone after which this node is stuck there.
_FAILURES: Final = 2

#: For how many collections the last index is remembered one by one.
_REMEMBERED: Final = 20_000

#: An outcome and the log index at which it was decided.
Decided: TypeAlias = tuple[Outcome, int]


class Applier:
    """Applies the log to this node's Chroma, on a thread of its own.

    Machine, engine writes and store writes belong to that thread from `start` on. All methods here
    are thread-safe. `catalog` may be looked into from other threads (single look-ups and its
    sorted listings); what they find may be one step old or one step early.
    """

    batch_bytes = 16 * 1024 * 1024
    """What is taken from the log at once: enough for neighbouring writes to be merged, bounded in memory."""

    def __init__(
        self,
        raft: Raft,
        machine: Machine,
        engine: Engine,
        store: Store,
        on_fault: Callable[[Fault], None],
        hide: Callable[[str | None], None] = lambda collection_id: None,
        clock: Callable[[], float] = time.monotonic,
        machine_fault: Callable[[ClusterError], Fault | None] = lambda failure: None,
        witness: Witness | None = None,
        ahead: int = 0,
        newest_level: int = NEWEST_LEVEL,
    ) -> None:
        """Machine and engine must have been loaded from this store; `on_fault` is called once at most.

        `hide` is told which collection nobody may read because it may have a part of a write (None: none).
        `clock` says the seconds by which failed writes are tried again. `machine_fault` knows what of this
        machine (disk, rights) explains a failure of the engine; that is a fault, and blames no write.
        `witness` sees what is about to be written while it digests the records.
        Chroma may have writes of committed entries up to `ahead` that are not marked as applied: it is a copy
        of a node that was stuck.
        `newest_level`: what needs a higher command level is not applied.

        Raises:
            Fault: the machine does not stand where the store's marker does, or needs a newer build.
        """
        if machine.level > newest_level:
            raise Fault(
                f"This node's state is of command level {machine.level}, this build understands levels up to "
                f"{newest_level}. The level never falls. Nothing was changed. Start this node with a build "
                f"that understands level {machine.level}."
            )
        marker = store.marker()
        if marker.index != machine.applied_index:
            raise Fault(
                f"This node's state file says that entry {marker.index} is applied, its pairs say "
                f"{machine.applied_index}: it is damaged. Nothing was changed. {FILLED_BY_OTHERS}"
            )
        raft.set_applied(marker.index)  # before it starts: what is applied is committed, and stays
        self._raft = raft
        self._machine = machine
        self._engine = engine
        self._store = store
        self._on_fault = on_fault
        self._witness: Witness = witness or Blind()
        self._machine_fault = machine_fault
        self._newest_level = newest_level
        self._veil = Veil(hide, machine.half_written)
        self._applied = machine.applied_index
        self._recovering_until = 0
        self._ahead = ahead
        self.impasse = Impasse(clock)
        self._failures = 0
        # Up to here committed entries were looked through for agreements to refuse.
        self._scanned = machine.applied_index
        self._started: dict[str, int] = {}
        self._started_anywhere = 0
        # Of a part of the next entry nothing else would know, once that entry is finished.
        self._floor = machine.begun_index
        self._lock = threading.Lock()
        self._waiting: dict[str, list[Future[Decided]]] = {}
        self._listeners: list[Callable[[int], None]] = []
        self._stopping = threading.Event()
        self.visits = Visits()
        # An engine call was begun and its step is not finished.
        self._in_doubt = False
        self._fault: Fault | None = None
        self._thread = threading.Thread(target=self._run, name="applier", daemon=True)

    # ------------------------------------------------------------------------------- life

    def start(self) -> None:
        """Begin to apply; the raft must have been started, so that its log is there."""
        # A call begun before a crash may be half in Chroma without being marked; it was in the log.
        self._recovering_until = self._raft.status().last_index
        self._thread.start()

    def stop(self, timeout_s: float = 60.0) -> None:
        """Finish the current step and end the thread; who still waits learns `OutcomeUnknown`."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(timeout_s)
        self.visits.close()
        self._abandon("this node stopped before it had applied the write")

    @property
    def fault(self) -> Fault | None:
        """Why applying has stopped for good, or None."""
        return self._fault

    # ---------------------------------------------------------------------------- progress

    @property
    def applied_index(self) -> int:
        """Every entry up to here is in Chroma and durably marked so."""
        return self._applied

    @property
    def catalog(self) -> Catalog:
        """Tenants, databases and collections as of the last step; to look at, never to change."""
        return self._machine.catalog

    @property
    def verified_ms(self) -> int | None:
        """Log time of the last verification of everything that is applied here; None: there was none."""
        return self._machine.verified_ms

    @property
    def level(self) -> int:
        """The command level in force, as far as the log is applied here."""
        return self._machine.level

    @property
    def hidden(self) -> str | None:
        """The collection that nobody may read now, for it may have a part of a write; None: all may be."""
        return self._veil.hidden

    @property
    def place(self) -> Point:
        """The next engine call or proposal: everything before this point is applied."""
        return self._machine.place

    def trouble(self, collection_id: str) -> Trouble | None:
        """What writes that the cluster had to refuse did to this collection; None: nothing."""
        return self._machine.refusals.trouble(collection_id)

    def broken_collections(self) -> tuple[str, ...]:
        """Collections that cannot be read any more, and are not to be tried."""
        return self._machine.refusals.broken()

    def model_of(self, collection_id: str) -> str | None:
        """Fingerprint of the model that embeds for this collection, None if not fixed yet."""
        collection = self._machine.catalog.collection(collection_id)
        return None if collection is None else collection.model

    def started_index(self, collection_id: str | None) -> int:
        """The highest index whose work a read of this collection may have seen (None: any of them).

        Listings show of each collection what its record writes made: dimension and schema keys.

        To be asked after the read. Records of entries up to it may be there, none of later ones.
        """
        everywhere = self._started_anywhere
        started = everywhere if collection_id is None else self._started.get(collection_id, 0)
        known = max(started, self._floor)
        if self._applied < self._ahead:
            known = max(known, self._ahead)
        if self._applied < self._recovering_until:
            known = max(known, min(self._recovering_until, self._raft.status().last_index))
        return known

    def add_listener(self, listener: Callable[[int], None]) -> None:
        """Call `listener(applied index)` from the applier's thread whenever it has risen."""
        with self._lock:
            self._listeners.append(listener)

    def remove_listener(self, listener: Callable[[int], None]) -> None:
        """Undo `add_listener`; a listener that is not there is no error."""
        with self._lock, contextlib.suppress(ValueError):
            self._listeners.remove(listener)

    # ---------------------------------------------------------------------------- outcomes

    def expect(self, request_id: str) -> Future[Decided]:
        """The outcome of this request once it is applied here; to be called before proposing it.

        The future fails with `OutcomeUnknown` if this node stops or breaks first.

        Raises:
            Fault: applying has stopped for good; nothing was proposed.
            Unavailable: the node is stopping; nothing was proposed.
        """
        future: Future[Decided] = Future()
        with self._lock:
            if self._fault is not None:
                raise self._fault
            if self._stopping.is_set():
                raise Unavailable("This node is stopping. Nothing was changed; ask another node.")
            self._waiting.setdefault(request_id, []).append(future)
        return future

    def forget(self, request_id: str, future: Future[Decided] | None = None) -> None:
        """Stop waiting: for `future`, or for all of this request."""
        with self._lock:
            waiting = self._waiting.get(request_id, [])
            left = [other for other in waiting if future is not None and other is not future]
            if left:
                self._waiting[request_id] = left
            else:
                self._waiting.pop(request_id, None)

    def is_alone(self, request_id: str) -> bool:
        """Whether of all requests with this id that this node knows one is undecided, and none decided."""
        with self._lock:
            if len(self._waiting.get(request_id, ())) != 1:
                return False
        # In this order: what is decided is remembered before it is waited for no more.
        return not self._machine.remembers(request_id)

    # ------------------------------------------------------------------------- the thread

    def _run(self) -> None:
        try:
            while not self._stopping.is_set():
                commit = self._raft.wait_commit(self._applied, _WAIT_S)
                self._let_in()
                if commit > self._applied:
                    self._apply_batch(self._next_batch(commit))
        except Fault as fault:
            self._break(fault)
        except BaseException as error:  # a bug must stop the node as surely as a full disk
            log.exception("the applier failed after log entry %d", self._applied)
            self._break(fault_of(f"apply the log after entry {self._applied}", error))

    def _next_batch(self, commit: int) -> list[LogEntry]:
        """What is applied next, once all that is committed has been looked through."""
        batch = self._take()
        self._look_ahead(commit)
        return batch

    @property
    def is_between_entries(self) -> bool:
        """Whether Chroma surely has all that is marked as applied, and nothing of what comes after it.

        Not just after a start, when a call from before may be in Chroma without being marked, nor after a
        call that failed: some of its writes, or of those it was merged with, may be there.
        """
        is_clean = self._is_whole and not self._is_failing and self.impasse.at is None
        return is_clean and self._applied >= self._begun_before()

    @property
    def _is_failing(self) -> bool:
        """Whether a call was begun and its step, or those that it was merged from, are not finished."""
        return self._in_doubt or self._machine.is_narrowed

    def _begun_before(self) -> int:
        """Up to here a call from before the start may be in Chroma without being marked."""
        return max(self._ahead, min(self._recovering_until, self._raft.status().last_index))

    @property
    def _is_whole(self) -> bool:
        """Whether no entry is begun and not finished."""
        place = self._machine.place
        return not (place.position or place.part or self._veil.hidden is not None)

    @property
    def may_be_copied(self) -> bool:
        """Whether the files are fit for a snapshot, with what `ahead` says.

        Also of a node that has just started or is stuck, even amid a write, and with a collection that it
        cannot read: it may be the only one that can fill the others, and without them it may never go on. Who
        is filled from it comes to that very place, as this node would after a restart.
        """
        return self.impasse.at is not None or (self._is_whole and not self._is_failing)

    @property
    def ahead(self) -> int:
        """Chroma may have writes of committed entries up to here that are not marked as applied; 0: none."""
        if self.is_between_entries:
            return 0
        return max(self._raft.status().commit_index, self._begun_before())

    def _let_in(self) -> None:
        """Whoever wants to look at the node's files may do so between two entries."""
        if self.visits.is_waited_for and self.may_be_copied:
            self.visits.admit(self._applied, exact=self.is_between_entries)

    def _take(self) -> list[LogEntry]:
        start = self._applied + 1
        try:
            found = self._raft.entries(start, self.batch_bytes)
        except LookupError:
            raise Fault(
                f"Log entry {start} is the next to apply, but the log here begins later: this node's "
                f"state file is older than its journal. Nothing was changed. {FILLED_BY_OTHERS}"
            ) from None
        entries: list[LogEntry] = []
        # Neighbouring entries may become one step: it must not reach beyond where somebody wants to look.
        stop = self.visits.next_stop()
        for entry in found:
            if stop is not None and entries and entry.index > stop:
                break
            self._scan(entry)
            try:
                group = decode_group(entry.payload) if entry.payload else None
                if group is not None:
                    require_understood(group, self._newest_level)
                entries.append((entry.index, group))
            except Exception as error:
                if entries:
                    break  # apply what comes before it first
                if isinstance(error, NotUnderstood):
                    raise Fault(
                        f"Log entry {entry.index} cannot be applied: {error}. It was not skipped and nothing "
                        "was changed. Start this node with a newer build, that of the other nodes."
                    ) from None
                raise Fault(
                    f"Log entry {entry.index} cannot be read: {error}. It was not skipped and nothing was "
                    f"changed. If a newer version wrote it, upgrade this node. Else: {FILLED_BY_OTHERS}"
                ) from None
        return entries

    def _scan(self, entry: Entry) -> None:
        if entry.index <= self._scanned:
            return
        for agreement in agreements_in(entry.payload, entry.index):
            self._machine.refusals.expect(agreement)
        self._scanned = entry.index
        self.impasse.saw_term(entry.term)

    def _look_ahead(self, commit: int) -> None:
        """Look through what is committed: what the cluster refuses further on must not be tried before."""
        while self._scanned < commit and not self._stopping.is_set():
            for entry in self._raft.entries(self._scanned + 1, self.batch_bytes):
                self._scan(entry)

    def _may_go_on(self) -> bool:
        """Whether the next step may be taken: not while this node is stuck there and nothing has changed."""
        at = self.impasse.at
        if at is None:
            return True
        self._look_ahead(self._raft.wait_commit(self._scanned, 0))
        if self._machine.refusals.agreed(at.point) is not None:
            failpoint("applier.before_refusal")
            return True
        return self.impasse.may_try()

    def _apply_batch(self, entries: Sequence[LogEntry]) -> None:
        while not self._stopping.is_set():
            self._let_in()
            if not self._may_go_on():
                self._stopping.wait(_STUCK_S)
                continue
            failpoint("applier.before_step")
            step = self._machine.next_step(entries)
            if step is None:
                return
            done = self._do(step)
            if done is not None:
                self._finish(*done)

    def _do(self, step: Step) -> tuple[Step, Sequence[Change]] | None:
        """Make the step's engine call; the step to make durable, or None to plan again."""
        try:
            match step.work:
                case Resolve() as work:
                    ids = self._engine.resolve(work)
                    failpoint("applier.after_resolve")
                    return self._machine.resolved(step, ids), ()
                case Remember() as work:
                    before = remember(self._engine, work)
                    return self._machine.remembered(step, before), ()
                case Call() as work:
                    self._note_start(work)
                    self._witness.before(work)
                    failpoint("applier.before_engine")
                    local = self._engine.apply(work)
                    failpoint("applier.after_engine")
                    return step, local
                case None:
                    return step, ()
        except Refusal as refusal:
            body = {"error": refusal.error, "message": refusal.message}
            instead = self._machine.refused(step, Outcome(refusal.status, body))
            return None if instead is None else (instead, ())
        except EngineUnavailable:
            self._stopping.wait(_STUCK_S)  # it is being restarted: the call was not begun
            return None
        except (EngineDied, Fault) as failure:
            return self._failed(step, failure)

    def _failed(self, step: Step, failure: EngineDied | Fault) -> tuple[Step, Sequence[Change]] | None:
        """The engine failed unforeseen: the step if it is done all the same, else None: plan again."""
        if isinstance(failure, Fault) and environment_of(failure.message) is not None:
            raise failure
        fault = self._machine_fault(failure)
        if fault is not None:
            raise fault
        log.warning("log entry %d: %s", step.index, failure.message)
        self._veil.failed(step)
        self._reopen()
        self._failures += 1
        if self._machine.narrow(step) or self._failures < _FAILURES:
            return None
        failpoint("applier.before_stuck")
        work, origin = step.work, step.origin
        if work is None or origin is None:
            raise failure
        remains = self._examine(work)
        if remains is Remains.DONE:
            return step, ()
        if remains is Remains.BROKEN:
            self._reopen()
        place = self._machine.place
        part = place.part if (origin.index, origin.position) == place[:2] else 0
        point = Point(origin.index, origin.position, part)
        if self.impasse.at is None:
            log.error("stuck at %s: %s", describe(point), failure.message)
        # What follows is advice to whoever waits for a read, or restarts this node.
        cause = failure.message.partition(" It is being started again.")[0]
        cause = cause.partition(" The log entry was not marked")[0]
        self.impasse.note(Stuck(point, f"{cause.rstrip('. ')}.", remains is Remains.BROKEN))
        return None

    def _examine(self, work: Work) -> Remains:
        while not self._stopping.is_set():
            try:
                return examine(self._engine, work)
            except EngineUnavailable:
                self._stopping.wait(_STUCK_S)
        return Remains.UNDONE

    def _reopen(self) -> None:
        """What comes next runs on a fresh engine; the old one may be beyond use for every collection."""
        try:
            self._engine.reopen()
        except EngineUnavailable:
            log.warning("Chroma is being restarted")  # the next call waits for it

    def _note_start(self, call: Call) -> None:
        target = call.target
        self._in_doubt = True
        if len(self._started) > _REMEMBERED:
            # Collections come and go: forget which was touched when, and say the highest for all.
            self._floor = max(self._machine.begun_index, self._started_anywhere)
            self._started = {}
        # Never lower: a merged call that failed may be done, and is repeated in pieces that end before it.
        self._started_anywhere = max(self._started_anywhere, call.index)
        for collection_id in (*call.dropped, *((target.collection_id,) if target else ())):
            self._started[collection_id] = max(self._started.get(collection_id, 0), call.index)

    def _finish(self, step: Step, local: Sequence[Change]) -> None:
        self._store.write((*step.changes, *local), step.index, step.position)
        self._machine.commit(step)
        self._in_doubt = False
        if step.verification is not None:
            state, broken = self._machine.dump(), self._machine.refusals.broken()
            self._witness.begin(step.verification, state, broken)
        self._veil.finished(step, self._machine.half_written)
        if self._machine.half_written is not None and isinstance(step.work, Call):
            failpoint("applier.half_written")
        self._note_way_out()
        risen = step.index > self._applied
        self._applied = step.index
        with self._lock:
            answered = [
                (future, (outcome, index))
                for request_id, outcome, index in step.outcomes
                for future in self._waiting.pop(request_id, ())
            ]
            listeners = tuple(self._listeners) if risen else ()
        if risen:
            self._raft.set_applied(step.index)
        failpoint("applier.before_outcome")
        for future, decided in answered:
            with contextlib.suppress(InvalidStateError):  # cancelled by who waited
                future.set_result(decided)
        for listener in listeners:
            try:
                listener(step.index)
            except Exception:
                log.exception("a listener of the applied index failed; the entry is applied all the same")

    def _note_way_out(self) -> None:
        """A step is finished: this node may be stuck no more, and its engine's failures are of the past."""
        if not self._machine.is_narrowed:
            self._failures = 0
        at = self.impasse.at
        if at is not None and self._machine.place > at.point:
            log.warning("no longer stuck at %s", describe(at.point))
            self.impasse.clear()

    # ------------------------------------------------------------------------------ ending

    def give_up_waiting(self, why: str) -> None:
        """Who waits for outcomes here is told to ask elsewhere: this node does not go on by itself."""
        self._abandon(why)

    def _break(self, fault: Fault) -> None:
        with self._lock:
            self._fault = fault
        log.error("%s", fault.message)
        self.visits.close()
        self._abandon(f"this node broke before it had applied the write ({fault.message})")
        self._on_fault(fault)

    def _abandon(self, why: str) -> None:
        with self._lock:
            waiting, self._waiting = self._waiting, {}
        for futures in waiting.values():
            for future in futures:
                with contextlib.suppress(InvalidStateError):
                    future.set_exception(
                        OutcomeUnknown(
                            f"Outcome unknown: {why}. It may still take effect; send it again with the same "
                            "Idempotency-Key to find out."
                        )
                    )
