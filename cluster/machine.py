"""The replicated state machine: committed entries in, engine work, outcomes and state changes out.

Pure. The applier drives it, one step at a time:

    while step := machine.next_step(entries):
        if isinstance(step.work, Resolve):
            step = machine.resolved(step, ids_read_from_the_engine)
        elif step.work is not None:
            try: engine.apply(step.work)
            except <deterministic engine refusal> as error:
                step = machine.refused(step, Outcome(status, body))
                if step is None: continue          # plan again, one proposal at a time
        store.write(step.changes)                  # ONE durable transaction, marker included
        machine.commit(step)                       # memory follows the store
        publish(step.outcomes); raft.set_applied(step.index)

`next_step` changes nothing: a step only counts once `commit` was called, and memory is rebuilt
from exactly the changes that the store holds. So a crash anywhere in the loop repeats that one step.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from cluster.commands import Command, DeleteRecords, Group

#: A committed entry as the machine takes it; None for Raft's own (empty payload).
LogEntry: TypeAlias = tuple[int, Group | None]


@dataclass(frozen=True, slots=True)
class Outcome:
    """Chroma's answer to a write: HTTP status and JSON-able body.

    Create and get_or_create collection have the body `{"$collection": "<cluster id>"}`, which the
    API renders from the engine; errors have `{"error": name, "message": text}`.
    """

    status: int
    body: Any


@dataclass(frozen=True, slots=True)
class Target:
    """The collection that a call is about; `name` is its name before the call."""

    tenant: str
    database: str
    name: str
    collection_id: str


@dataclass(frozen=True, slots=True)
class Call:
    """One call that changes the engine.

    A `WriteRecords` or ids-only `DeleteRecords` here may be merged from several proposals or be one
    part of a big one. `index` is the last entry it covers, `target` is None for tenants, databases
    and reset. `dropped` names the collections that are gone afterwards (delete, reset).
    Repeating a call right after itself must change nothing: "already there" on a create and "not
    found" on a delete mean done.
    """

    command: Command
    target: Target | None
    index: int
    dropped: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Resolve:
    """Read from the engine the ids that this delete by filter removes, and give them to `resolved`.

    That is `get(ids, where, where_document, limit)` on the target; nothing is changed yet. The
    ids become part of the durable state before any is deleted.
    """

    command: DeleteRecords
    target: Target
    index: int


Work: TypeAlias = Call | Resolve


@dataclass(frozen=True, slots=True)
class Change:
    """One key of the durable state: its new value, or None to delete it."""

    key: str
    value: bytes | None


@dataclass(frozen=True, slots=True)
class Step:
    """What happens together: at most one engine call, then one durable transaction.

    After it every entry up to `index` is finished, and `position` proposals of the next one.
    `proposals` counts the proposals whose fate this step decides or carries on. `outcomes` are
    (request id, outcome, log index) in log order.
    """

    work: Work | None
    outcomes: tuple[tuple[str, Outcome, int], ...]
    changes: tuple[Change, ...]
    index: int
    position: int
    proposals: int


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds that all nodes of a cluster share: outcomes depend on the first two.

    `window_ms` of log time and `max_requests` bound how long a request id is remembered;
    `max_records` is Chroma's largest batch, the most records in one engine call.
    """

    window_ms: int = 15 * 60 * 1000
    max_requests: int = 50_000
    max_records: int = 5461


class Machine:
    """Replicated state and the rules by which entries change it; not thread-safe.

    Built with `Machine.load(items)` from the store's pairs (none: a new node).
    """

    @classmethod
    def load(cls, items: Iterable[tuple[str, bytes]], limits: Limits | None = None) -> Machine:
        """The machine whose durable state is `items`, as written from changes or by `dump`."""
        raise NotImplementedError

    def dump(self) -> list[tuple[str, bytes]]:
        """The whole state as sorted pairs, equal on all replicas at one step; for snapshots."""
        raise NotImplementedError

    @property
    def applied_index(self) -> int:
        """Every entry up to here is finished; the next one may be begun (`next_step` knows)."""
        raise NotImplementedError

    def next_step(self, entries: Sequence[LogEntry]) -> Step | None:
        """The next step, decided from the state; None when all `entries` are finished.

        `entries` are committed, without gaps, and may begin with finished ones; the first must
        not be above `applied_index + 1`.
        """
        raise NotImplementedError

    def resolved(self, step: Step, ids: Sequence[str]) -> Step:
        """`step`, whose work is `Resolve`, with the ids to delete among its changes."""
        raise NotImplementedError

    def refused(self, step: Step, outcome: Outcome) -> Step | None:
        """What replaces `step` after the engine refused its work with a deterministic error.

        None if the step covers several proposals: plan again, they are then taken one by one, so
        that no proposal is refused for its neighbour's fault.
        """
        raise NotImplementedError

    def commit(self, step: Step) -> None:
        """The step's changes are durable: make them the state."""
        raise NotImplementedError

    def digest(self) -> str:
        """A hash of the catalogue, the same for the same content however it came about."""
        raise NotImplementedError
