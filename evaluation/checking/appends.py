"""Lists with one writer that reads, adds an item and writes back: what it acknowledged must stay.

The writer's items are in every list in the order in which it added them. A list that shows a later item must
show every acknowledged earlier one. One thing excuses a gap: the write of an item whose outcome is unknown
may arrive late and put back the list as it was when that item was added.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from evaluation.checking.finals import final_reads
from evaluation.checking.findings import Tally, ms, shown
from evaluation.checking.versions import returned
from evaluation.history import Action, Fate, Operation, Phase

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_STRONG = frozenset({"linearizable", "default"})


def check(
    keys: Mapping[tuple[str, str], Sequence[Operation]], levels: Mapping[str, str] | None = None
) -> Tally:
    """Counts items: an item is missing once, in however many lists.

    Any list convicts by what it shows; strong and final reads also by what had been acknowledged before.
    `levels`: what the system promises of its levels. Where that is only `eventual`, a list may be late.
    """
    late = {level for level, promise in (levels or {}).items() if promise in ("eventual", "none")}
    tally = Tally("lost-updates")
    for (workload, key), operations in keys.items():
        if workload != "append":
            continue
        appends = sorted(
            (op for op in operations if op.action is Action.APPEND and op.outcome is not Fate.REFUSED),
            key=lambda op: op.invoked_ns,
        )
        place = {op.value: at for at, op in enumerate(appends)}
        read_any = False
        gone: set[Any] = set()
        for read in operations:
            if read.action is not Action.GET or read.outcome is not Fate.OK:
                continue
            read_any = True
            items: list[Any] = read.value or []
            places = [place[item] for item in items if item in place]
            if places != sorted(places):
                tally.blame(
                    f"{key}: items in another order at {ms(read.invoked_ns)}: {shown(items)}", [read.id]
                )
                continue
            there = set(places)
            excuse = next((at for at in places if appends[at].outcome is Fate.UNKNOWN), len(appends))
            strict = read.level in _STRONG - late or read.phase is Phase.FINAL
            last = places[-1] if places else -1
            for at, append in enumerate(appends):
                if at > excuse:
                    break
                if at in there or append.outcome is not Fate.OK or append.value in gone:
                    continue
                if at < last or (strict and returned(append) < read.invoked_ns):
                    gone.add(append.value)
                    witnesses = [append.id, read.id, appends[last].id if at < last else None]
                    tally.blame(
                        f"{key}: {shown(append.value)} was appended (acknowledged at "
                        f"{ms(append.returned_ns)}) and is not in the list read at "
                        f"{ms(read.invoked_ns)} through {read.entry}",
                        witnesses,
                    )
        if read_any:
            tally.checked += sum(append.outcome is Fate.OK for append in appends)
    return tally


def lost_for_good(keys: Mapping[tuple[str, str], Sequence[Operation]]) -> list[int]:
    """Ids of acknowledged appends that no list at the end has, at any entry: no later read can mend that.

    Lists read before may only have been late. What follows an item of unknown outcome that is there in the
    end is left out, as above.
    """
    gone: list[int] = []
    for (workload, key), operations in keys.items():
        reads = [read for read in final_reads(operations) if read.action is Action.GET and read.key == key]
        if workload != "append" or not reads:
            continue
        there = {item for read in reads for item in read.value or ()}
        appends = [op for op in operations if op.action is Action.APPEND]
        late = [op.invoked_ns for op in appends if op.outcome is Fate.UNKNOWN and op.value in there]
        gone += [
            op.id
            for op in appends
            if op.outcome is Fate.OK
            and op.value not in there
            and op.invoked_ns < min(late, default=op.invoked_ns + 1)
        ]
    return gone
