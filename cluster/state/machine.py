"""The replicated state machine: committed entries in, engine work, outcomes and state changes out.

Pure. The applier drives it, one step at a time:

    while step := machine.next_step(entries):
        if isinstance(step.work, Resolve):
            step = machine.resolved(step, ids_read_from_the_engine)
        elif isinstance(step.work, Remember):
            step = machine.remembered(step, records_read_from_the_engine)
        elif step.work is not None:
            try: engine.apply(step.work)
            except <deterministic engine refusal> as error:
                step = machine.refused(step, Outcome(status, body))
                if step is None: continue          # plan again, one proposal at a time
            except <unforeseen engine failure>:
                machine.narrow(step); continue     # until the cluster agrees (`expect`) or it works
        store.write(step.changes)                  # ONE durable transaction, cursor included
        machine.commit(step)                       # memory follows the store
        publish(step.outcomes); raft.set_applied(step.index)

`next_step` changes nothing: a step counts once `commit` was called, and memory is rebuilt from
exactly the changes that the store holds. A crash before the store's transaction is durable
repeats that one step from the same state; a crash after it repeats nothing.

Why a repeat is harmless. The engine may already have done the call, or part of it, and the repeat
may be planned from more or from fewer committed entries than the first time, so the repeated call
may be longer or shorter than the first. But a call is only ever merged from writes that stand next
to each other in the log (nothing between them but proposals that do not touch the engine), of one
kind, on one collection, with no id twice. Longer or shorter, the calls from the same position on
bring the same records in the same order, and until the last of that run is reached no other call
and no read for a `Resolve` is planned. Each record comes to rest where it would without the crash:
an add of an id that exists is ignored, an upsert or an update of the same id with the same values
changes nothing, a delete of a deleted id neither. A delete by filter would select other records the
second time: its ids are therefore read first and made durable ("intent") in a step of their own.

Outcomes are decided from the state, with two exceptions, and a repeat comes to the same ones. How
many records a delete by filter removes is counted from its durable ids. And what the engine refuses
is refused with the engine's words: a refused call has changed nothing, is the same refusal on every
node and is refused again; if it was merged, its proposals are taken one by one.

A write larger than one engine call is done in parts, one step each; the cursor counts parts, and
only the last one has the outcome. Nobody may read its collection in between: a step before the first part
makes `half_written` durable, with the records that the write is going to change, and the step that finishes
the write takes it away. If a part is refused, the parts before it are undone first (`cluster.state.undo`).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final, TypeAlias

import msgpack

from cluster.errors import Refusal
from cluster.levels import FIRST_LEVEL
from cluster.state.catalog import (
    Catalog,
    Change,
    Collection,
    Effect,
    Outcome,
    decide,
    has_filter,
    initial_changes,
)
from cluster.state.commands import DeleteRecords, RaiseLevel, RefuseEntry, Verify, WriteRecords
from cluster.state.cursor import Cursor, Origin
from cluster.state.merging import alike, merge, part_of, size_of
from cluster.state.refusals import Point, RefusalTable
from cluster.state.requests import PREFIX, Answered, RequestPlan, RequestTable
from cluster.state.undo import Before, Undoing, not_kept, not_undone, parts_of, undoing_calls, undone
from cluster.state.work import MAX_BATCH_SIZE, Call, Remember, Resolve, Target

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from cluster.state.commands import Group
    from cluster.state.work import Work

#: A committed entry as the machine takes it; None for Raft's own (empty payload).
LogEntry: TypeAlias = "tuple[int, Group | None]"

_META: Final = "meta"
_INTENT: Final = "intent"
_HALF_WRITTEN: Final = "half"
_VERIFIED: Final = "verified"
_LEVEL: Final = "level"
_BEFORE: Final = "before"
_UNDOING: Final = "undoing"


@dataclass(frozen=True, slots=True)
class Step:
    """What happens together: at most one engine call, then one durable transaction.

    After it every entry up to `index` is finished, and `position` proposals of the next one.
    `proposals` counts the proposals whose fate this step decides or carries on. `outcomes` are
    (request id, outcome, log index) in log order; the index is the first attempt's if repeated.
    """

    work: Work | None
    outcomes: tuple[tuple[str, Outcome, int], ...]
    changes: tuple[Change, ...]
    index: int
    position: int
    proposals: int
    origin: Origin | None = None
    #: What every node is to digest as it is after this step.
    verification: Verification | None = None


@dataclass(frozen=True, slots=True)
class Verification:
    """A `Verify` at log entry `index`: what is before it is applied, and nothing that is behind it."""

    command: Verify
    index: int


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds that all nodes of a cluster must share, for outcomes depend on the first two.

    `window_ms` of log time and `max_requests` bound how long a request id is remembered;
    `max_records` is Chroma's largest batch, the most records in one engine call. `merged_bytes` bounds
    what writes are merged into one call, for reads of the collection wait for the end of the call.
    """

    window_ms: int = 15 * 60 * 1000
    max_requests: int = 50_000
    max_records: int = MAX_BATCH_SIZE
    merged_bytes: int = 2 * 1024 * 1024


@dataclass(slots=True)
class _Plan:
    """A step in the making."""

    requests: RequestPlan
    cursor: Cursor
    #: Ids that a delete by filter found, until this plan uses them.
    intent: tuple[str, ...] | None = None
    changes: list[Change] = field(default_factory=list[Change])
    outcomes: list[tuple[str, Outcome, int]] = field(default_factory=list[tuple[str, Outcome, int]])
    proposals: int = 0
    work: Work | None = None
    origin: Origin | None = None
    #: The collection as the merged call leaves it, where it changes it (first dimension, model).
    pending: Collection | None = None
    merged: list[WriteRecords | DeleteRecords] = field(default_factory=list[WriteRecords | DeleteRecords])
    #: Ids in the merged call; None if nothing may be merged with it.
    ids: set[str] | None = None
    #: About how many bytes the merged call has.
    merged_bytes: int = 0
    #: Nothing may follow in this step.
    is_closed: bool = False
    verification: Verification | None = None


class Machine:
    """Replicated state and the rules by which entries change it; not thread-safe.

    Built with `Machine.load(items)` from the store's pairs (none: a new node). `catalog` may be
    looked into from other threads, see there.
    """

    def __init__(self, limits: Limits | None = None) -> None:
        self._limits = limits or Limits()
        self.catalog = Catalog()
        self._requests = RequestTable(self._limits.window_ms, self._limits.max_requests)
        self.refusals = RefusalTable()
        self._cursor = Cursor()
        self._intent: tuple[str, ...] | None = None
        self._half_written: str | None = None
        self._verified_ms: int | None = None
        self._level = FIRST_LEVEL
        self._before: Before | None = None
        self._undoing: Undoing | None = None
        # Written with the first step of a new node, so that the store is complete from then on.
        self._unwritten: tuple[Change, ...] = ()
        # Up to here proposals go to the engine one by one: it refused them together.
        self._alone_until = (0, 0)

    @classmethod
    def load(cls, items: Iterable[tuple[str, bytes]], limits: Limits | None = None) -> Machine:
        """The machine whose durable state is `items`, as written from changes.

        Raises:
            ValueError: not a state that this version of the program can read.
        """
        pairs = list(items)
        machine = cls(limits)
        if not pairs:
            machine._unwritten = initial_changes()
        machine._requests.load(pair for pair in pairs if pair[0].startswith(PREFIX))
        rest = (Change(key, value) for key, value in pairs if not key.startswith(PREFIX))
        for change in (*machine._unwritten, *rest):
            machine._put(change)
        return machine

    def dump(self) -> list[tuple[str, bytes]]:
        """The whole state as pairs sorted by key, equal on all replicas at one step.

        The same pairs that the store holds: to compare replicas, and a node with its store.
        """
        own = [(_META, self._cursor.encode())]
        if self._intent is not None:
            own.append((_INTENT, msgpack.packb(self._intent)))
        if self._half_written is not None:
            own.append((_HALF_WRITTEN, msgpack.packb(self._half_written)))
        if self._verified_ms is not None:
            own.append((_VERIFIED, msgpack.packb(self._verified_ms)))
        if self._level != FIRST_LEVEL:
            own.append((_LEVEL, msgpack.packb(self._level)))
        if self._before is not None:
            own.append((_BEFORE, self._before.encode()))
        if self._undoing is not None:
            own.append((_UNDOING, self._undoing.encode()))
        return sorted([*own, *self.catalog.items(), *self._requests.items(), *self.refusals.items()])

    @property
    def applied_index(self) -> int:
        """Every entry up to here is finished; the next one may be begun (`next_step` knows)."""
        return self._cursor.index

    @property
    def begun_index(self) -> int:
        """The last entry of which something is applied: all of it, or its first proposals."""
        cursor = self._cursor
        return cursor.index + (1 if cursor.position or cursor.part else 0)

    @property
    def half_written(self) -> str | None:
        """The collection of which the engine may have a part of a write: nobody may read it now."""
        return self._half_written

    @property
    def place(self) -> Point:
        """The next engine call or proposal: everything before this point is applied."""
        cursor = self._cursor
        return Point(cursor.index + 1, cursor.position, cursor.part)

    @property
    def is_narrowed(self) -> bool:
        """Whether the next proposals go to the engine one by one."""
        return (self._cursor.index, self._cursor.position) < self._alone_until

    @property
    def time_ms(self) -> int:
        """Log time: the latest clock reading of a leader among the entries begun."""
        return self._cursor.time_ms

    @property
    def verified_ms(self) -> int | None:
        """Log time of the last verification of everything; None: there was none."""
        return self._verified_ms

    @property
    def level(self) -> int:
        """The command level in force, as far as the log is applied; may be asked from other threads."""
        return self._level

    def remembers(self, request_id: str) -> bool:
        """Whether a request with this id has an outcome; may be asked from other threads, see `catalog`."""
        return request_id in self._requests

    def next_step(self, entries: Sequence[LogEntry]) -> Step | None:
        """The next step, decided from the state; None when all `entries` are finished.

        `entries` are committed, in order and without gaps, and may begin with finished ones.

        Raises:
            ValueError: an entry is missing before or among `entries`.
        """
        if not entries:
            return None
        start = self._cursor.index + 1 - entries[0][0]
        if start < 0:
            raise ValueError(
                f"log entry {self._cursor.index + 1} is next, but entries begin at {entries[0][0]}"
            )
        plan = _Plan(self._requests.plan(), self._cursor, self._intent)
        for offset in range(start, len(entries)):
            index, group = entries[offset]
            if index != plan.cursor.index + 1:
                raise ValueError(f"log entry {plan.cursor.index + 1} is next, but {index} was given")
            if not self._take_entry(plan, index, group):
                break
        if plan.cursor == self._cursor and plan.work is None and not plan.changes:
            return None
        return self._step(plan)

    def resolved(self, step: Step, ids: Sequence[str]) -> Step:
        """`step`, whose work is `Resolve`, with the ids to delete among its changes."""
        if not isinstance(step.work, Resolve):
            raise ValueError("only a step whose work is Resolve can be resolved")
        return replace(step, changes=(*step.changes, Change(_INTENT, msgpack.packb(tuple(ids)))))

    def remembered(self, step: Step, before: Before) -> Step:
        """`step`, whose work is `Remember`, with the records that its write is going to change."""
        if not isinstance(step.work, Remember):
            raise ValueError("only a step whose work is Remember can be remembered")
        return replace(step, changes=(*step.changes, Change(_BEFORE, before.encode())))

    def refused(self, step: Step, outcome: Outcome) -> Step | None:
        """What replaces `step` after the engine refused its work with a deterministic error.

        None if the step covers several proposals: plan again, they are then taken one by one, so
        that no proposal is refused for its neighbour's fault. A refused proposal leaves no trace in
        the catalogue.
        """
        origin = step.origin
        if origin is None:
            raise ValueError("a step without work cannot be refused")
        if self.narrow(step):
            return None
        plan = _Plan(self._requests.plan(), origin.after, proposals=1, origin=origin)
        if self._intent is not None:
            plan.changes.append(Change(_INTENT, None))
        self._end_refused(plan, origin, outcome)
        return self._step(plan)

    def narrow(self, step: Step) -> bool:
        """After the engine failed at `step`: whether it covers several proposals, so that it is not known
        which of them the engine failed on. They are then taken one by one."""
        if step.proposals <= 1 or step.origin is None:
            return False
        # Also when the work is only begun: up to the end of that proposal.
        after = step.origin.after
        self._alone_until = max((after.index, after.position), (step.index, step.position))
        return True

    def commit(self, step: Step) -> None:
        """The step's changes are durable: make them the state."""
        for change in step.changes:
            self._put(change)
        self._unwritten = ()

    def _put(self, change: Change) -> None:
        if change.key.startswith(PREFIX):
            self._requests.put(change)
        elif change.key == _META:
            self._cursor = Cursor.decode(change.value or b"")
        elif change.key == _INTENT:
            self._intent = None if change.value is None else tuple(msgpack.unpackb(change.value))
        elif change.key == _HALF_WRITTEN:
            self._half_written = None if change.value is None else msgpack.unpackb(change.value)
        elif change.key == _VERIFIED:
            self._verified_ms = None if change.value is None else msgpack.unpackb(change.value)
        elif change.key == _LEVEL:
            self._level = FIRST_LEVEL if change.value is None else msgpack.unpackb(change.value)
        elif change.key == _BEFORE:
            self._before = None if change.value is None else Before.decode(change.value)
        elif change.key == _UNDOING:
            self._undoing = None if change.value is None else Undoing.decode(change.value)
        elif RefusalTable.owns(change.key):
            self.refusals.put(change)
        else:
            self.catalog.put(change)

    def _step(self, plan: _Plan) -> Step:
        work = plan.work
        if len(plan.merged) > 1 and isinstance(work, Call):
            work = replace(work, command=merge(plan.merged))
        if self._half_written is not None and plan.cursor.part == 0 and plan.cursor != self._cursor:
            plan.changes.extend(Change(key, None) for key in (_HALF_WRITTEN, _BEFORE, _UNDOING))
        changes = (
            *self._unwritten,
            *plan.changes,
            *plan.requests.changes(),
            Change(_META, plan.cursor.encode()),
        )
        return Step(
            work,
            tuple(plan.outcomes),
            changes,
            plan.cursor.index,
            plan.cursor.position,
            plan.proposals,
            plan.origin,
            plan.verification,
        )

    def _take_entry(self, plan: _Plan, index: int, group: Group | None) -> bool:
        """Add to the plan what fits of one entry; whether the next entry may follow."""
        if group is None or not group.proposals:
            time_ms = plan.cursor.time_ms if group is None else max(plan.cursor.time_ms, group.time_ms)
            plan.cursor = Cursor(index, 0, 0, time_ms)
            return True
        for position in range(plan.cursor.position, len(group.proposals)):
            alone = (plan.cursor.index, plan.cursor.position) < self._alone_until
            if alone and plan.proposals:
                return False
            after = plan.cursor.after(index, position, group)
            origin = Origin(group.proposals[position], index, position, after)
            if not self._take(plan, origin):
                return False
            plan.cursor = after
            if plan.is_closed or (plan.work is not None and plan.ids is None):
                return False
        return True

    def _take(self, plan: _Plan, origin: Origin) -> bool:
        """Add one proposal to the plan; False if it is not finished by this step, or not in it."""
        proposal = origin.proposal
        earlier = plan.requests.find(proposal.request_id, proposal.digest, origin.after.time_ms)
        if earlier is not None:
            plan.proposals += 1
            plan.outcomes.append(_repeat(origin, earlier))
            return True
        if isinstance(proposal.command, RefuseEntry):
            return self._take_agreement(plan, origin, proposal.command)
        if isinstance(proposal.command, Verify):
            return self._take_verification(plan, origin, proposal.command)
        if isinstance(proposal.command, RaiseLevel):
            return self._take_level(plan, origin, proposal.command)
        point = Point(origin.index, origin.position, plan.cursor.part)
        agreement = self.refusals.agreed(point)
        if agreement is not None:
            return self._take_refused(plan, origin, point, agreement)
        if self._undoing is not None and plan.cursor.part:
            return self._take_undoing(plan, origin, self._undoing)
        try:
            self.refusals.check(proposal.command)
            effect = decide(self.catalog, proposal.command, plan.pending)
        except Refusal as refusal:
            _finish(plan, origin, _refusal_outcome(refusal))
            plan.proposals += 1
            return True
        if not effect.work:
            plan.changes.extend(effect.changes)
            _finish(plan, origin, effect.outcome)
            plan.proposals += 1
            return True
        if plan.work is not None:
            return self._join(plan, origin, effect)
        plan.origin = origin
        plan.proposals += 1
        return self._begin(plan, origin, effect)

    def _take_agreement(self, plan: _Plan, origin: Origin, agreement: RefuseEntry) -> bool:
        """What it agrees on was done when the refused write was reached."""
        if plan.proposals:
            return False  # first what comes before it: this may be where the node stops
        _finish(plan, origin, self.refusals.meet(agreement, origin.index))
        plan.proposals += 1
        return True

    def _take_verification(self, plan: _Plan, origin: Origin, command: Verify) -> bool:
        """In a step of its own: all before it is in the engine, and nothing behind it."""
        if plan.proposals:
            return False
        if command.narrow is None:
            plan.changes.append(Change(_VERIFIED, msgpack.packb(origin.after.time_ms)))
        plan.verification = Verification(command, origin.index)
        _finish(plan, origin, Outcome(200, {}))
        plan.proposals += 1
        plan.is_closed = True
        return True

    def _take_level(self, plan: _Plan, origin: Origin, command: RaiseLevel) -> bool:
        """In a step of its own: the next one must see the level of this one."""
        if plan.proposals:
            return False
        if command.level > self._level:
            plan.changes.append(Change(_LEVEL, msgpack.packb(command.level)))
        _finish(plan, origin, Outcome(200, {"level": max(command.level, self._level)}))
        plan.proposals += 1
        plan.is_closed = True
        return True

    def _take_refused(self, plan: _Plan, origin: Origin, point: Point, agreement: RefuseEntry) -> bool:
        """The cluster agreed to refuse this one: in a step of its own, for what follows depends on it."""
        if plan.proposals:
            return False
        if plan.intent is not None:
            plan.intent = None
            plan.changes.append(Change(_INTENT, None))
        plan.changes.extend(self.refusals.refuse(point, origin.proposal.command, agreement))
        plan.proposals += 1
        plan.is_closed = True
        body = {"error": agreement.error, "message": agreement.message}
        return self._end_refused(plan, origin, Outcome(agreement.status, body), is_broken=agreement.broken)

    def _end_refused(self, plan: _Plan, origin: Origin, outcome: Outcome, *, is_broken: bool = False) -> bool:
        """The proposal's next engine call is refused; False if calls before it are to be undone first."""
        command, part, size = origin.proposal.command, self._cursor.part, self._limits.max_records
        if part and isinstance(command, WriteRecords):
            count = parts_of(command, size)
            if part >= count:
                outcome = not_undone(self._undoing.outcome if self._undoing else outcome, outcome)
                plan.changes.extend(self.refusals.spoil(command.collection_id, outcome))
            elif is_broken:
                pass  # nobody reads the collection any more
            elif self._before is None or not self._before.is_whole:
                outcome = not_kept(outcome, command.ids[: part * size])
            elif undoing_calls(command, self._before, part, size):
                plan.changes.append(Change(_UNDOING, Undoing(part, outcome).encode()))
                plan.cursor = replace(self._cursor, part=count, time_ms=origin.after.time_ms)
                return False
            else:
                outcome = undone(outcome)
        _finish(plan, origin, outcome)
        return True

    def _take_undoing(self, plan: _Plan, origin: Origin, undoing: Undoing) -> bool:
        """The next call that undoes what the refused write did; False if more follow."""
        command, size = origin.proposal.command, self._limits.max_records
        assert isinstance(command, WriteRecords)
        assert self._before is not None
        calls = undoing_calls(command, self._before, undoing.part, size)
        number = plan.cursor.part - parts_of(command, size)
        target = _target_of(self.catalog.collection(command.collection_id))
        plan.origin = origin
        plan.proposals += 1
        plan.work = Call(calls[number], target, origin.index)
        if number + 1 < len(calls):
            plan.cursor = replace(plan.cursor, part=plan.cursor.part + 1)
            return False
        _finish(plan, origin, undone(undoing.outcome))
        return True

    def _begin(self, plan: _Plan, origin: Origin, effect: Effect) -> bool:
        """Make the proposal the step's work; False if more steps must follow for it."""
        command = origin.proposal.command
        target = _target(effect)
        outcome = effect.outcome
        in_parts = isinstance(command, WriteRecords) and len(command.ids) > self._limits.max_records
        if (
            isinstance(command, WriteRecords)
            and in_parts
            and target is not None
            and self._half_written != target.collection_id
        ):
            plan.changes.append(Change(_HALF_WRITTEN, msgpack.packb(target.collection_id)))
            plan.work = Remember(command, target, origin.index)
            return False
        plan.changes.extend(effect.changes)
        plan.changes.extend(self.refusals.forget(effect.dropped))
        if isinstance(command, WriteRecords) and not (in_parts and self._parts_left(command, plan)):
            plan.changes.extend(self.refusals.forget((command.collection_id,)))
        plan.pending = effect.after
        if isinstance(command, DeleteRecords) and has_filter(command):
            assert target is not None
            if plan.intent is None:
                plan.work = Resolve(command, target, origin.index)
                return False
            ids, plan.intent = plan.intent, None
            outcome = Outcome(200, {"deleted": len(ids)})
            plan.changes.append(Change(_INTENT, None))
            if ids:
                command = DeleteRecords(command.collection_id, ids, None, None, None)
                plan.work = Call(command, target, origin.index)
        elif isinstance(command, WriteRecords) and in_parts:
            first = plan.cursor.part * self._limits.max_records
            last = first + self._limits.max_records
            plan.work = Call(part_of(command, first, last), target, origin.index)
            if self._parts_left(command, plan):
                plan.cursor = replace(plan.cursor, part=plan.cursor.part + 1, time_ms=origin.after.time_ms)
                return False
        else:
            plan.work = Call(command, target, origin.index, effect.dropped)
            if isinstance(command, WriteRecords | DeleteRecords):
                ids = set(command.ids or ())
                if len(ids) == len(command.ids or ()):
                    plan.ids = ids
                    plan.merged.append(command)
                    plan.merged_bytes = size_of(command)
        _finish(plan, origin, outcome)
        return True

    def _parts_left(self, command: WriteRecords, plan: _Plan) -> bool:
        """Whether more calls follow the next one."""
        return plan.cursor.part + 1 < parts_of(command, self._limits.max_records)

    def _join(self, plan: _Plan, origin: Origin, effect: Effect) -> bool:
        """Merge the proposal into the call already planned, if that is the same as two calls."""
        command = origin.proposal.command
        work = plan.work
        if plan.ids is None or not isinstance(work, Call):
            return False
        if not isinstance(command, WriteRecords | DeleteRecords) or not alike(plan.merged[0], command):
            return False
        ids = command.ids or ()
        known = len(plan.ids)
        if known + len(ids) > self._limits.max_records or not plan.ids.isdisjoint(ids):
            return False
        fresh = set(ids)
        size = size_of(command)
        if len(fresh) != len(ids) or plan.merged_bytes + size > self._limits.merged_bytes:
            return False
        plan.merged_bytes += size
        plan.ids |= fresh
        plan.merged.append(command)
        plan.work = replace(work, index=origin.index)
        plan.changes.extend(effect.changes)
        plan.pending = effect.after or plan.pending
        plan.proposals += 1
        _finish(plan, origin, effect.outcome)
        return True


def _finish(plan: _Plan, origin: Origin, outcome: Outcome) -> None:
    proposal = origin.proposal
    plan.outcomes.append((proposal.request_id, outcome, origin.index))
    answered = Answered(proposal.digest, outcome, origin.index, origin.position, origin.after.time_ms)
    plan.requests.record(proposal.request_id, answered)


def _repeat(origin: Origin, earlier: Answered) -> tuple[str, Outcome, int]:
    proposal = origin.proposal
    if proposal.digest == earlier.digest:
        return proposal.request_id, earlier.outcome, earlier.index
    body = {
        "error": "IdempotencyKeyReusedError",
        "message": "This Idempotency-Key was used before with a different request. Nothing was changed by"
        " this one. Use a new key for a new request, or repeat the first request unchanged.",
    }
    return proposal.request_id, Outcome(422, body), origin.index


def _refusal_outcome(refusal: Refusal) -> Outcome:
    return Outcome(refusal.status, {"error": refusal.error, "message": refusal.message})


def _target(effect: Effect) -> Target | None:
    return _target_of(effect.collection)


def _target_of(collection: Collection | None) -> Target | None:
    if collection is None:
        return None
    return Target(collection.tenant, collection.database, collection.name, collection.collection_id)
