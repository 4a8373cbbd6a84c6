"""Documents that are always written together, in one request, are always seen together."""

from __future__ import annotations

from typing import TYPE_CHECKING

from evaluation.checking.findings import Tally, ms, shown
from evaluation.checking.models import FRACTURED, whole
from evaluation.history import Action, Fate, Operation

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


def check(keys: Mapping[tuple[str, str], Sequence[Operation]]) -> Tally:
    """Reads at every level: part of a request is no state at all, so no level excuses it."""
    tally = Tally("fractured")
    for (workload, key), operations in keys.items():
        if workload != "batch":
            continue
        writes = {op.value: op for op in operations if op.action is Action.UPSERT}
        for read in operations:
            if read.action is not Action.GET or read.outcome is not Fate.OK:
                continue
            tally.checked += 1
            if whole(read.value) is FRACTURED:
                parts = {value: read.value.count(value) for value in dict.fromkeys(read.value)}
                words = " and ".join(f"{count} of {shown(value)}" for value, count in parts.items())
                sources = [writes[value].id for value in parts if value in writes]
                tally.blame(f"{key}: one read at {ms(read.invoked_ns)} saw {words}", [read.id, *sources])
    return tally
