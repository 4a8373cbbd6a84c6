"""What the last reads prove: writes that are lost, documents that came back, members that differ.

After the faults are healed and all is quiet, every document is read through every entry. A document's last
state is explained if some order of its writes, in real time, ends in it. If not, the writes are asked again
without some of the acknowledged ones that began after the write of that state: if it is explained without
the deletes, the document is resurrected; if without the others, they are lost; or else both.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, cast

from evaluation.checking.findings import Tally, ms, shown
from evaluation.checking.linearizability import check
from evaluation.checking.models import FRACTURED, NEVER, REGISTER, REGISTERS, Call, calls_of
from evaluation.checking.sessions import seen
from evaluation.checking.verdict import Verdict
from evaluation.checking.versions import returned
from evaluation.history import Action, Fate, Operation, Phase

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from evaluation.checking.linearizability import Budget

_PUTS = frozenset({Action.ADD, Action.UPSERT, Action.UPDATE})


def final_reads(operations: Sequence[Operation]) -> list[Operation]:
    return [
        operation
        for operation in operations
        if operation.phase is Phase.FINAL and operation.outcome is Fate.OK and not operation.is_write
    ]


@dataclass(slots=True)
class Purse:
    """The steps that are left for all keys together."""

    budget: Budget
    spent: int = 0

    def check(self, calls: Sequence[Call]) -> Verdict:
        most = min(self.budget.rounds[-1], self.budget.total_steps - self.spent)
        if most <= 0:
            return Verdict.UNKNOWN
        result = check(calls, REGISTER, most, self.budget.states)
        self.spent += result.steps
        return result.verdict


class Ending:
    """One key's writes and its last read; a collection's name counts as a document that is there or not."""

    def __init__(self, operations: Sequence[Operation], purse: Purse) -> None:
        self._purse = purse
        self._writes = calls_of(operation for operation in operations if operation.is_write)
        if operations and operations[0].workload == "catalogue":
            self._writes = [_as_document(call) for call in self._writes if not _read_only(call)]

    def explained(self, read: Operation, value: Any, without: Collection[int] = ()) -> Verdict:
        """ok if some order of the writes, perhaps `without` some, ends in this state."""
        writes = [call for call in self._writes if call.id not in without]
        last = Call(read.id, Action.GET, value, read.invoked_ns, read.returned_ns or NEVER)
        return self._purse.check([*writes, last])

    def blame(self, read: Operation, value: Any) -> tuple[bool, bool]:
        """Of a state that is not explained: are acknowledged writes lost; is the document resurrected?"""
        gone = self.missing(value)
        deletes = {call.id for call in self._writes if call.id in gone and call.action is Action.DELETE}
        if value is not None and deletes and self.explained(read, value, deletes) is Verdict.OK:
            return False, True
        if self.explained(read, value, gone - deletes) is Verdict.OK:
            return True, False
        both = self.explained(read, value, gone) is Verdict.OK
        return both, both and value is not None

    def missing(self, value: Any) -> set[int]:
        """Acknowledged writes that began after the write of the state that is there: none of them shows."""
        sources = [call.returned for call in self._writes if value is not None and call.value == value]
        since = max(sources, default=-NEVER)
        return {call.id for call in self._writes if not call.open and call.invoked > since}


def _read_only(call: Call) -> bool:
    """Create that found it there, or drop that found nothing."""
    return call.answered and call.value is False


def _as_document(call: Call) -> Call:
    if call.action is Action.CREATE:
        return replace(call, action=Action.UPSERT, value=True)
    return replace(call, action=Action.DELETE, value=None)


def state_of(read: Operation) -> Any:
    """What a last read says of its key, None for absent; `FRACTURED` if it is no state at all."""
    if read.workload == "catalogue":
        return True if read.value else None
    return seen(read)


def check_documents(
    keys: Mapping[tuple[str, str], Sequence[Operation]], budget: Budget, lost: Tally, resurrected: Tally
) -> list[int]:
    """Counts keys into both tallies; returns the ids of acknowledged writes that are provably gone.

    Only what is wrong at every entry is lost or resurrected; what is wrong at some is divergence.
    """
    gone: list[int] = []
    purse = Purse(budget)
    for (workload, key), operations in keys.items():
        if workload not in REGISTERS and workload != "catalogue":
            continue
        reads = [read for read in final_reads(operations) if state_of(read) is not FRACTURED]
        if not reads:
            continue
        lost.checked += 1
        resurrected.checked += 1
        ending = Ending(operations, purse)
        verdicts: dict[Any, Verdict] = {}
        last_of: dict[Any, Operation] = {}
        for read in reads:
            value = state_of(read)
            if value not in verdicts:
                verdicts[value] = ending.explained(read, value)
                last_of[value] = read
        if any(verdict is Verdict.OK for verdict in verdicts.values()):
            continue
        if any(verdict is Verdict.UNKNOWN for verdict in verdicts.values()):
            lost.undecided += 1
            resurrected.undecided += 1
            continue
        # The state that explains the most: with the fewest acknowledged writes after it.
        value = min(last_of, key=lambda state: len(ending.missing(state)))
        read, missing = last_of[value], ending.missing(value)
        is_lost, is_back = ending.blame(read, value)
        acknowledged = [op for op in operations if op.id in missing]
        newest = max(acknowledged, key=returned, default=None)
        source = next((op for op in operations if op.is_write and value and op.value == value), None)
        witnesses = [read.id, newest.id if newest else None, source.id if source else None]
        if is_lost:
            puts = [op for op in acknowledged if op.action in _PUTS or op.action is Action.CREATE]
            last = max(puts, key=returned, default=newest)
            gone.extend(op.id for op in puts)
            lost.blame(
                f"{key}: {shown(last.value if last else None)} was acknowledged at "
                f"{ms(last.returned_ns if last else None)}, but at the end every entry shows an older state: "
                f"{shown(value)}",
                [*witnesses, last.id if last else None],
            )
        if is_back:
            deletes = [op for op in acknowledged if op.action in (Action.DELETE, Action.DROP)]
            last = max(deletes, key=returned, default=newest)
            resurrected.blame(
                f"{key}: deleted (acknowledged at {ms(last.returned_ns if last else None)}), but "
                f"{shown(value)} is there at the end",
                [*witnesses, last.id if last else None],
            )
    return gone


def check_divergence(keys: Mapping[tuple[str, str], Sequence[Operation]]) -> Tally:
    """Last reads of one key that differ between entries.

    Left out: a value that changes once, in the order of the reads, to that of a write whose outcome is
    unknown: it may have taken effect between the reads.
    """
    tally = Tally("diverged")
    for (workload, key), operations in keys.items():
        by_kind: dict[Action, list[Operation]] = defaultdict(list)
        for read in final_reads(operations):
            if read.action is not Action.QUERY:
                by_kind[read.action].append(read)
        for reads in by_kind.values():
            if len({read.entry for read in reads}) < 2:
                continue
            tally.checked += 1
            reads.sort(key=lambda read: read.invoked_ns)
            other = next((read for read in reads if read.value != reads[0].value), None)
            if other is None or _late(reads, operations):
                continue
            tally.blame(
                f"{key}: at the end {reads[0].entry} shows {_brief(workload, reads[0], other)} and "
                f"{other.entry} {_brief(workload, other, reads[0])}",
                [reads[0].id, other.id],
            )
    return tally


def _late(reads: Sequence[Operation], operations: Sequence[Operation]) -> bool:
    values: list[Any] = [read.value for read in reads]
    changes = [at for at in range(1, len(values)) if values[at] != values[at - 1]]
    if len(changes) != 1:
        return False
    before, now = values[changes[0] - 1], values[changes[0]]
    unknown = [op for op in operations if op.is_write and op.outcome is Fate.UNKNOWN]
    for write in unknown:
        match write.action:
            case Action.DELETE:
                possible = now is None
            case Action.DROP | Action.CREATE:
                possible = now is (write.action is Action.CREATE)
            case Action.ADD if write.workload == "set":
                possible = sorted([*items(before), write.value]) == now or (
                    isinstance(now, int) and now == before + 1
                )
            case Action.APPEND:
                possible = items(now)[-1:] == [write.value]
            case _:
                possible = now == ([write.value] * len(items(now)) if items(now) else write.value)
        if possible:
            return True
    return False


def items(value: Any) -> list[Any]:
    """A list that was read; of anything else, none."""
    return cast("list[Any]", value) if isinstance(value, list) else []


def _brief(workload: str, read: Operation, other: Operation) -> str:
    if workload in ("set", "append") and read.action is not Action.COUNT:
        here, there = items(read.value), set(items(other.value))
        only = [value for value in here if value not in there]
        return f"{len(here)} items ({shown(only)} only here)" if only else f"{len(here)} items"
    return shown(read.value)
