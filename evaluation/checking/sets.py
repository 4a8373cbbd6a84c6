"""Collections that only grow: every later list of ids has each acknowledged id once, and nothing else."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from evaluation.checking.finals import final_reads
from evaluation.checking.findings import Tally, ms, shown
from evaluation.checking.models import STRONG
from evaluation.checking.versions import returned
from evaluation.history import Action, Fate, Operation
from evaluation.quantiles import rounded_quantile

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence


class Adds:
    """The adds of one collection."""

    def __init__(self, operations: Sequence[Operation]) -> None:
        adds = [operation for operation in operations if operation.action is Action.ADD]
        self.attempted = {add.value: add for add in adds if add.outcome is not Fate.REFUSED}
        self.acknowledged = {add.value: add for add in adds if add.outcome is Fate.OK}
        self.refused = {add.value: add for add in adds if add.outcome is Fate.REFUSED}


def check_lost(key: str, operations: Sequence[Operation], lost: Tally) -> list[int]:
    """Ids of acknowledged adds that are in no final list, at no entry."""
    reads = [read for read in final_reads(operations) if read.action is Action.GET_ALL]
    if not reads:
        return []
    adds = Adds(operations)
    lost.checked += len(adds.acknowledged)
    there = {value for read in reads for value in read.value or ()}
    gone = [add for value, add in adds.acknowledged.items() if value not in there]
    for add in gone:
        lost.blame(
            f"{key}: {shown(add.value)} was added (acknowledged at {ms(add.returned_ns)}) and is in none of "
            f"the {len(reads)} lists at the end",
            [add.id, reads[0].id],
        )
    return [add.id for add in gone]


def check_items(key: str, operations: Sequence[Operation], duplicated: Tally, phantom: Tally) -> None:
    """Repetitions, and ids that nobody added, in any list: no level excuses them. Also for append lists."""
    kind = Action.APPEND if operations[0].workload == "append" else Action.ADD
    writes = {op.value: op for op in operations if op.action is kind}
    twice: set[Any] = set()
    strange: set[Any] = set()
    for read in operations:
        if read.is_write or read.outcome is not Fate.OK or read.action is Action.COUNT:
            continue
        values: list[Any] = read.value or []
        duplicated.checked += 1
        phantom.checked += 1
        for value, count in Counter(values).items():
            write = writes.get(value)
            if count > 1 and value not in twice:
                twice.add(value)
                duplicated.blame(
                    f"{key}: {shown(value)} is there {count} times at {ms(read.invoked_ns)}",
                    [read.id, write.id if write else None],
                )
            if value not in strange and (reason := why_phantom(write, read)):
                strange.add(value)
                phantom.blame(
                    f"{key}: {shown(value)} was read at {ms(read.invoked_ns)}, {reason}",
                    [read.id, write.id if write else None],
                )


def why_phantom(write: Operation | None, read: Operation) -> str:
    """Empty if the read may see that write."""
    if write is None:
        return "but nobody wrote it"
    if write.outcome is Fate.REFUSED:
        return "but its write was refused"
    if read.returned_ns is not None and read.returned_ns < write.invoked_ns:
        return "before anybody wrote it"
    return ""


#: What is wrong, and the operations that show it.
Wrong = tuple[str, tuple[int, ...]]


def check_linearizable(operations: Sequence[Operation]) -> tuple[int, list[Wrong]]:
    """How many strong reads there are, and what in them no order of adds and reads explains.

    Full lists of a set that only grows need no search: each holds what was acknowledged before it began and
    nothing that began after it ended, of two lists the one holds the other, the later the earlier, and no
    list has an id without all those that were acknowledged before that id was added.
    """
    key = operations[0].key
    adds = Adds(operations)
    reads = [op for op in operations if not op.is_write and op.outcome is Fate.OK and op.level in STRONG]
    wrong: list[Wrong] = []
    lists: list[tuple[Operation, frozenset[Any]]] = []
    for read in reads:
        if read.action is Action.COUNT:
            wrong += _wrong_count(key, adds, read)
        elif read.action is Action.GET_ALL:
            items = frozenset[Any](read.value or ())
            lists.append((read, items))
            wrong += _wrong_list(key, adds, read, items)
    return len(reads), [*wrong, *_wrong_pairs(key, lists)]


def _wrong_count(key: str, adds: Adds, read: Operation) -> Iterator[Wrong]:
    begin, end = read.invoked_ns, read.returned_ns or float("inf")
    least = sum(returned(add) < begin for add in adds.attempted.values())
    most = sum(add.invoked_ns <= end for add in adds.attempted.values())
    if not least <= read.value <= most:
        yield (
            f"{key}: count was {read.value} at {ms(begin)}, with {least} adds acknowledged "
            f"before and {most} begun",
            (read.id,),
        )


def _wrong_list(key: str, adds: Adds, read: Operation, items: frozenset[Any]) -> Iterator[Wrong]:
    """By itself: what it lacks, and what it should not have."""
    begin = read.invoked_ns
    missing = [add for value, add in adds.acknowledged.items() if value not in items]
    latest_add = max((adds.attempted[v].invoked_ns for v in items if v in adds.attempted), default=-1)
    # Whatever ended before the read began, or before the add of something that it shows.
    bound = max(begin, latest_add)
    late = min(missing, key=returned, default=None)
    if late is not None and returned(late) < bound:
        yield (
            f"{key}: {shown(late.value)} was added (acknowledged at "
            f"{ms(late.returned_ns)}) and is not in the list read at {ms(begin)}",
            (late.id, read.id),
        )
    strange = next((v for v in items if why_phantom(_any(adds, v), read)), None)
    if strange is not None:
        yield f"{key}: {shown(strange)} was read at {ms(begin)}, but not written before", (read.id,)


def _wrong_pairs(key: str, lists: Sequence[tuple[Operation, frozenset[Any]]]) -> Iterator[Wrong]:
    """Of two lists, the smaller is in the larger, and was not read after it."""
    ordered = sorted(lists, key=lambda item: (len(item[1]), item[0].invoked_ns))
    newest: tuple[Operation, frozenset[Any]] | None = None
    for (one, smaller), (other, larger) in pairwise(ordered):
        if not smaller <= larger:
            yield f"{key}: two lists of which neither holds the other", (one.id, other.id)
        if newest is None or one.invoked_ns > newest[0].invoked_ns:
            newest = (one, smaller)
        if newest[1] != larger and (other.returned_ns or float("inf")) < newest[0].invoked_ns:
            yield (
                f"{key}: {len(larger)} ids at {ms(other.invoked_ns)}, then only {len(newest[1])} at "
                f"{ms(newest[0].invoked_ns)}",
                (other.id, newest[0].id),
            )


def _any(adds: Adds, value: Any) -> Operation | None:
    return adds.attempted.get(value) or adds.refused.get(value)


def stability(keys: Mapping[tuple[str, str], Sequence[Operation]]) -> dict[str, Any]:
    """Per read level: how long after its acknowledgement an id is in every further list (stable latency)."""
    samples: dict[str, list[float]] = {}
    never: Counter[str] = Counter()
    for (workload, _), operations in keys.items():
        if workload != "set":
            continue
        adds = Adds(operations)
        by_level: dict[str, list[tuple[int, frozenset[Any]]]] = {}
        for read in operations:
            if read.action is Action.GET_ALL and read.outcome is Fate.OK:
                by_level.setdefault(read.level, []).append((read.invoked_ns, frozenset(read.value or ())))
        for level, reads in by_level.items():
            reads.sort(key=lambda read: read[0])
            for value, add in adds.acknowledged.items():
                done = returned(add)
                missed = [begin for begin, items in reads if begin > done and value not in items]
                if missed and missed[-1] == reads[-1][0]:
                    never[level] += 1
                elif reads[-1][0] > done:
                    samples.setdefault(level, []).append(max(missed[-1] - done, 0) / 1e6 if missed else 0.0)
    return {
        level: {"samples": len(samples.get(level, [])), "never": never[level]}
        | {f"p{share}": rounded_quantile(samples.get(level, []), share / 100) for share in (50, 95, 99, 100)}
        for level in sorted(samples.keys() | never.keys())
    }
