"""Lost changes, counted apart from the checker as a second opinion; and what theory expects. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from evaluation.checking.verdict import Finding, Verdict
from evaluation.compactor.model import Variant
from evaluation.history import Action, Fate, Operation, Phase

if TYPE_CHECKING:
    from collections.abc import Sequence


def lost(operations: Sequence[Operation]) -> Finding:
    """The finding `lost`; its example is one lost change, a read that still saw it, and the final read."""
    answered = [operation for operation in operations if operation.outcome is Fate.OK]
    adds = [operation for operation in answered if operation.action is Action.ADD]
    reads = [operation for operation in answered if operation.action is Action.GET_ALL]
    final = [read for read in reads if read.phase is Phase.FINAL]
    if not final:
        return Finding("lost", Verdict.NOT_CHECKED, detail="no final read was answered")
    there = set(final[-1].value)
    missing = [add for add in adds if add.value not in there]
    if not missing:
        return Finding("lost", Verdict.OK, checked=len(adds))
    first = missing[0]
    seen = [read.id for read in reads if first.value in read.value][-1:]
    again = ", although a read had already found it" if seen else ""
    return Finding(
        "lost",
        Verdict.VIOLATION,
        checked=len(adds),
        count=len(missing),
        detail=f"{first.value} was acknowledged and is missing at the end{again}",
        example=(first.id, *seen, final[-1].id),
    )


def expected(variant: Variant, fault: str) -> Verdict:
    """What theory says of `lost`: only a late pointer move can lose, and only the condition stops it."""
    if fault == "pause-holder" and variant is not Variant.FENCED:
        return Verdict.VIOLATION
    return Verdict.OK
