"""Session guarantees: what one session may not see after what it has written or read.

Scope: the operations of one session through one entry, because what a session has seen is passed on (where
it is) by the entry's own connection. Reads at level `eventual` promise nothing and are left out. All times
are compared strictly: what overlaps may have happened in either order.

Order of versions: `evaluation.checking.versions`. Beyond it, a value that was replaced before a session's
eyes can never come back, because each is written once.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from typing import TYPE_CHECKING, Any

from evaluation.checking.findings import Tally, ms, shown
from evaluation.checking.models import FRACTURED, REGISTERS, whole
from evaluation.checking.versions import READS, SURE, Versions
from evaluation.history import Fate, Operation

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from evaluation.checking.verdict import Finding

SESSION_LEVELS = frozenset({"session", "linearizable", "default"})
COPY = "/copy"

#: (workload, key)
Key = tuple[str, str]


def check(
    keys: Mapping[Key, Sequence[Operation]], member_of_entry: Mapping[str, str | None]
) -> list[Finding]:
    """All four guarantees, over registers, counters and whole reads of batches."""
    versions = {key: Versions(operations) for key, operations in keys.items() if key[0] in REGISTERS}
    scopes: dict[tuple[str, str], list[Operation]] = defaultdict(list)
    for key in versions:
        for operation in keys[key]:
            if operation.outcome is Fate.OK and (
                operation.is_write or (operation.level in SESSION_LEVELS and operation.action in READS)
            ):
                scopes[operation.session, operation.entry].append(operation)
    for scope in scopes.values():
        scope.sort(key=lambda operation: operation.invoked_ns)
    return [
        _read_your_writes(scopes, versions),
        _monotonic_reads(scopes, versions),
        _monotonic_writes(scopes, versions, member_of_entry),
        _writes_follow_reads(scopes, versions),
    ]


def seen(read: Operation) -> Any:
    """The state that a read saw; `FRACTURED` if it was none."""
    return whole(read.value) if read.workload == "batch" else read.value


def _key(operation: Operation) -> Key:
    return operation.workload, operation.key


def _ended(first: Operation, second: Operation) -> bool:
    return first.returned_ns is not None and first.returned_ns < second.invoked_ns


class _Latest:
    """The newest known begin among operations that had returned by a given time."""

    def __init__(self) -> None:
        self._waiting: list[tuple[float, float, Operation]] = []
        self.begin = float("-inf")
        self.witness: Operation | None = None

    def note(self, returned: float, begin: float, witness: Operation) -> None:
        self._waiting.append((returned, begin, witness))

    def before(self, time: float) -> float:
        """Also when a session's operations overlap, only those that had returned count."""
        rest: list[tuple[float, float, Operation]] = []
        for item in self._waiting:
            if item[0] >= time:
                rest.append(item)
            elif item[1] > self.begin:
                self.begin, self.witness = item[1], item[2]
        self._waiting = rest
        return self.begin


def _read_your_writes(
    scopes: Mapping[tuple[str, str], Sequence[Operation]], versions: Mapping[Key, Versions]
) -> Finding:
    tally = Tally("read-your-writes")
    for (session, _), operations in scopes.items():
        own: dict[Key, _Latest] = defaultdict(_Latest)
        for operation in operations:
            key = _key(operation)
            if operation.is_write:
                if operation.action in SURE and operation.returned_ns is not None:
                    own[key].note(operation.returned_ns, operation.invoked_ns, operation)
                continue
            value = seen(operation)
            latest = own[key].before(operation.invoked_ns)
            write = own[key].witness
            if write is None or value is FRACTURED:
                continue
            tally.checked += 1
            if versions[key].settled(value) < latest:
                source = versions[key].write_of.get(value)
                tally.blame(
                    f"{session} wrote {shown(write.value)} to {write.key} (acknowledged at "
                    f"{ms(write.returned_ns)}) and read {shown(value)} at {ms(operation.invoked_ns)}",
                    [write.id, operation.id, source.id if source else None],
                )
    return tally.finding()


def _monotonic_reads(
    scopes: Mapping[tuple[str, str], Sequence[Operation]], versions: Mapping[Key, Versions]
) -> Finding:
    tally = Tally("monotonic-reads")
    for (session, _), operations in scopes.items():
        newest: dict[Key, _Latest] = defaultdict(_Latest)
        history: dict[Key, list[Operation]] = defaultdict(list)
        left: dict[Key, dict[Any, tuple[Operation, Operation]]] = defaultdict(dict)
        for operation in operations:
            if operation.is_write or (value := seen(operation)) is FRACTURED:
                continue
            key = _key(operation)
            known = versions[key]
            previous = history[key][-1] if history[key] else None
            latest = newest[key].before(operation.invoked_ns)
            if previous is not None:
                tally.checked += 1
                witness = newest[key].witness
                returned_to = left[key].get(value)
                if witness is not None and known.settled(value) < latest:
                    old, new = known.write_of.get(value), known.write_of.get(seen(witness))
                    tally.blame(
                        f"{session} read {shown(seen(witness))} of {operation.key} at "
                        f"{ms(witness.invoked_ns)} and then the older {shown(value)} at "
                        f"{ms(operation.invoked_ns)}",
                        [witness.id, operation.id, old.id if old else None, new.id if new else None],
                    )
                elif returned_to is not None and _ended(returned_to[1], operation):
                    first, other = returned_to
                    tally.blame(
                        f"{session} read {shown(value)} of {operation.key}, then "
                        f"{shown(seen(other))} at {ms(other.invoked_ns)}, then {shown(value)} again at "
                        f"{ms(operation.invoked_ns)}",
                        [first.id, other.id, operation.id],
                    )
                gone = seen(previous)
                once = gone is not None and gone not in known.repeated
                if once and gone != value and _ended(previous, operation):
                    left[key].setdefault(gone, (previous, operation))
            if operation.returned_ns is not None:
                newest[key].note(operation.returned_ns, known.began(value), operation)
                history[key].append(operation)
    return tally.finding()


def _monotonic_writes(
    scopes: Mapping[tuple[str, str], Sequence[Operation]],
    versions: Mapping[Key, Versions],
    member_of_entry: Mapping[str, str | None],
) -> Finding:
    """By reads of one session at one member, which shows the later write of a writer and then not the earlier
    one: of another document what the earlier write replaced, of the same document the earlier write itself.

    At one member, because two reads at two members say nothing of the order in which one of them applied.
    """
    order = _WriteOrder(versions)
    for (_, entry), operations in scopes.items():
        have: dict[tuple[str, str], _Latest] = defaultdict(_Latest)
        of_member: dict[str, set[str]] = defaultdict(set)
        for operation in operations:
            member = operation.node or member_of_entry.get(entry)
            if operation.is_write or member is None or seen(operation) is FRACTURED:
                continue
            for writer in of_member[member]:
                order.compare(member, writer, have[member, writer], operation)
            source = order.source_of(operation)
            if source is not None and operation.returned_ns is not None:
                of_member[member].add(source.session)
                have[member, source.session].note(operation.returned_ns, source.invoked_ns, operation)
    return order.tally.finding()


class _WriteOrder:
    """The sure writes of each writer in their order, and reads that contradict it."""

    def __init__(self, versions: Mapping[Key, Versions]) -> None:
        self.tally = Tally("monotonic-writes")
        self._versions = versions
        self._written: dict[tuple[str, Key], list[Operation]] = defaultdict(list)
        for key, known in versions.items():
            for write in known.sure:
                self._written[write.session, key].append(write)
        self._begins = {
            which: [write.invoked_ns for write in writes] for which, writes in self._written.items()
        }  # `sure` is in the order of invocation, and so are these

    def source_of(self, read: Operation) -> Operation | None:
        """The only write of what it saw, if there is one."""
        known, value = self._versions[_key(read)], seen(read)
        return known.write_of.get(value) if value not in known.repeated else None

    def compare(self, member: str, writer: str, shown_before: _Latest, read: Operation) -> None:
        """With the latest write of this writer that reads at this member had shown before."""
        later = shown_before.before(read.invoked_ns)
        witness = shown_before.witness
        if (writer, _key(read)) not in self._written or witness is None:
            return
        source = self.source_of(read)
        if _key(witness) == _key(read) and source is not None and source.session == writer:
            self._same_document(member, later, witness, read, source)
        else:
            self._replaced(member, writer, later, witness, read)

    def _same_document(
        self, member: str, later: float, witness: Operation, read: Operation, source: Operation
    ) -> None:
        known, value = self._versions[_key(read)], seen(read)
        self.tally.checked += 1
        if known.settled(value) < later:
            second = known.write_of[seen(witness)]
            self.tally.blame(
                f"{member} showed {shown(second.value)} of {second.key}, which {source.session} wrote "
                f"after {shown(value)}, and then {shown(value)}",
                [source.id, second.id, witness.id, read.id],
            )

    def _replaced(self, member: str, writer: str, later: float, witness: Operation, read: Operation) -> None:
        key = _key(read)
        earlier = self._last_before(writer, key, later)
        if earlier is None:
            return
        known, value = self._versions[key], seen(read)
        self.tally.checked += 1
        if known.settled(value) < earlier.invoked_ns:
            shown_by = known.write_of.get(value)
            second = self._versions[_key(witness)].write_of[seen(witness)]
            self.tally.blame(
                f"{member} showed {shown(second.value)} of {second.key}, which {writer} wrote after "
                f"{shown(earlier.value)} to {earlier.key}, and then {shown(value)} of {earlier.key}",
                [earlier.id, second.id, witness.id, read.id, shown_by.id if shown_by else None],
            )

    def _last_before(self, writer: str, key: Key, time: float) -> Operation | None:
        """The writer's last write of this key that was acknowledged before then."""
        writes = self._written[writer, key]
        at = bisect_left(self._begins[writer, key], time) - 1
        while at >= 0 and (writes[at].returned_ns or 0) >= time:
            at -= 1
        return writes[at] if at >= 0 else None


def _writes_follow_reads(
    scopes: Mapping[tuple[str, str], Sequence[Operation]], versions: Mapping[Key, Versions]
) -> Finding:
    """Who reads `K/copy` and then K must find K no older than what the copy was made from."""
    tally = Tally("writes-follow-reads")
    for (session, _), operations in scopes.items():
        copied: dict[Key, _Latest] = defaultdict(_Latest)
        for operation in operations:
            if operation.is_write or operation.workload != "counter":
                continue
            key = _key(operation)
            if operation.key.endswith(COPY):
                source = ("counter", operation.key.removesuffix(COPY))
                if source in versions and operation.returned_ns is not None:
                    begin = versions[source].began(operation.value)
                    copied[source].note(operation.returned_ns, begin, operation)
                continue
            latest = copied[key].before(operation.invoked_ns)
            copy = copied[key].witness
            if copy is None:
                continue
            tally.checked += 1
            if versions[key].settled(operation.value) < latest:
                copied_by = versions["counter", copy.key].write_of.get(copy.value)
                sources = [versions[key].write_of.get(value) for value in (copy.value, operation.value)]
                tally.blame(
                    f"{session} read {shown(copy.value)} of {copy.key} and then only "
                    f"{shown(operation.value)} of {operation.key}, from which it had been copied",
                    [copy.id, operation.id, *(one.id for one in (copied_by, *sources) if one)],
                )
    return tally.finding()
