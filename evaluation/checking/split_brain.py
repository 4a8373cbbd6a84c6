"""Did two members act as leader or primary at once?

A member's own word says when it held which role and term (events of the run); acknowledged writes say that
it acted on it. Proof is strict: a member acknowledges a write that began after another member's
acknowledgement had arrived, although its own reign began before that other write did; or two members lead in
one term. Two that merely believe to lead, in different terms, are legal and are measured.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from evaluation.checking.availability import bites_ns, sides_of
from evaluation.checking.findings import Tally, ms
from evaluation.history import Fate, Operation

if TYPE_CHECKING:
    from collections.abc import Sequence

    from evaluation.record import Event, RunRecord

LEADING = frozenset({"leader", "primary"})
#: Roles are polled: the last part of a reign, until the poll that found it over, proves nothing.
POLL_NS = 3_000_000_000


@dataclass(frozen=True, slots=True)
class Reign:
    """A member was seen to lead from `begin_ns`, and at `end_ns` no longer (infinite: to the end)."""

    member: str
    term: int | None
    begin_ns: float
    end_ns: float


def reigns(events: Sequence[Event]) -> list[Reign]:
    """From events of kind `role` (with `role`) and `leader` (the member leads)."""
    found: list[Reign] = []
    now: dict[str, tuple[int | None, float]] = {}
    for event in sorted(events, key=lambda event: event.at_ns):
        if event.member is None or event.kind not in ("role", "leader"):
            continue
        leads = event.kind == "leader" or event.role in LEADING
        current = now.get(event.member)
        if current is not None and (not leads or (event.term is not None and event.term != current[0])):
            if current[0] is None and leads:
                # The same reign, whose term is known by now.
                now[event.member] = (event.term, current[1])
                continue
            found.append(Reign(event.member, current[0], current[1], event.at_ns))
            del now[event.member]
            current = None
        if leads and current is None:
            now[event.member] = (event.term, event.at_ns)
    found.extend(Reign(member, term, begin, float("inf")) for member, (term, begin) in now.items())
    return sorted(found, key=lambda reign: reign.begin_ns)


def check(record: RunRecord, operations: Sequence[Operation]) -> tuple[Tally, dict[str, Any]]:
    """The finding, and `leadership`: reigns, and for how long two members believed to lead."""
    tally = Tally("split-brain")
    found = reigns(record.events)
    by_member: dict[str, list[Operation]] = defaultdict(list)
    for operation in operations:
        if operation.is_write and operation.outcome is Fate.OK and operation.node is not None:
            by_member[operation.node].append(operation)
    acted: list[tuple[Reign, list[Operation]]] = []
    for reign in found:
        acks = [
            op
            for op in by_member[reign.member]
            if op.invoked_ns >= reign.begin_ns and (op.returned_ns or 0) <= reign.end_ns - POLL_NS
        ]
        tally.checked += len(acks)
        acted.append((reign, acks))
    for number, (reign, acks) in enumerate(acted):
        for other, other_acks in acted[number + 1 :]:
            if other.member == reign.member:
                continue
            if reign.term is not None and reign.term == other.term:
                tally.checked += 1
                tally.blame(
                    f"{reign.member} (at {ms(reign.begin_ns)}) and {other.member} (at {ms(other.begin_ns)}) "
                    f"led in one term, {reign.term}",
                    [acks[0].id if acks else None, other_acks[0].id if other_acks else None],
                )
            elif pair := _interleaved(reign, acks, other, other_acks):
                first, second = pair
                tally.blame(
                    f"{second.node} acknowledged a write at {ms(second.returned_ns)} that began after "
                    f"{first.node} had acknowledged another one at {ms(first.returned_ns)}, both as leader",
                    [first.id, second.id],
                )
    _check_peers(record, operations, tally)
    return tally, {
        "reigns": [
            {
                "member": reign.member,
                "term": reign.term,
                "from_ms": reign.begin_ns / 1e6,
                "to_ms": None if reign.end_ns == float("inf") else reign.end_ns / 1e6,
                "acknowledged": len(acks),
            }
            for reign, acks in acted
        ],
        "two_leaders_ms": _overlap_ms(found, max((op.returned_ns or 0 for op in operations), default=0)),
    }


def _interleaved(
    reign: Reign, acks: Sequence[Operation], other: Reign, other_acks: Sequence[Operation]
) -> tuple[Operation, Operation] | None:
    """A write of one that was acknowledged, and a later write of the other whose reign is the older one.

    `acks` are in the order of invocation. The older reign's own acknowledgement after the younger one's is
    the proof; the other way round is an ordinary change of leaders.
    """
    old, old_acks, young_acks = (
        (reign, acks, other_acks) if reign.begin_ns <= other.begin_ns else (other, other_acks, acks)
    )
    after = [ack for ack in young_acks if ack.invoked_ns > old.begin_ns]
    first = min(after, key=lambda ack: ack.returned_ns or 0, default=None)
    if first is None or first.returned_ns is None:
        return None
    second = next((ack for ack in old_acks if ack.invoked_ns > (first.returned_ns or 0)), None)
    return None if second is None else (first, second)


def _check_peers(record: RunRecord, operations: Sequence[Operation], tally: Tally) -> None:
    """Systems in which each member takes writes as if it were the only one: both sides of a cut did."""
    peers = {event.member for event in record.events if event.kind == "role" and event.role == "peer"}
    # A process that was struck may be back long before the fault ends, and then there are no two sides.
    if not peers or "pids" in record.fault_detail:
        return
    sides = sides_of(record)
    member_of = {entry["name"]: entry.get("member") for entry in record.entries}
    # Clients are listed with the side of the member that they stand beside.
    side_of_member = {member: sides[name] for name, member in member_of.items() if member is not None}
    begin, end = bites_ns(record), record.fault_end_ns or float("inf")
    acks: dict[str, dict[str, Operation]] = defaultdict(dict)
    last: dict[str, Operation] = {}
    for operation in operations:
        member: str | None = operation.node or member_of.get(operation.entry)
        side = sides.get(operation.entry, "all")
        if (
            operation.is_write
            and operation.outcome is Fate.OK
            and begin < operation.invoked_ns
            and (operation.returned_ns or end) < end
            and member is not None
            and member in peers
            and side in ("majority", "minority")
            # A member of the other side, asked before it was cut off from the balancer, proves nothing.
            and side_of_member.get(member, side) == side
        ):
            tally.checked += 1
            acks[side].setdefault(member, operation)
            last[side] = operation
    if acks["majority"] and acks["minority"]:
        small = next(iter(acks["minority"].values()))
        big = next(
            (op for op in acks["majority"].values() if op.invoked_ns < last["minority"].invoked_ns), None
        )
        if big is not None:
            tally.blame(
                "both sides of the cut acknowledged writes: "
                f"{', '.join(sorted(acks['majority']))} and {', '.join(sorted(acks['minority']))}",
                [small.id, big.id],
            )


def _overlap_ms(found: Sequence[Reign], end_ns: int) -> float:
    """For how long at least two members believed to lead; polled, so give or take a poll."""
    edges: list[tuple[float, int]] = []
    for reign in found:
        edges += [(reign.begin_ns, 1), (min(reign.end_ns, max(end_ns, reign.begin_ns)), -1)]
    edges.sort()
    total, leaders, since = 0.0, 0, 0.0
    for time, change in edges:
        if leaders > 1:
            total += time - since
        leaders, since = leaders + change, time
    return total / 1e6
