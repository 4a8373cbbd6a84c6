"""Values of documents that nobody wrote, or whose write was refused: no level excuses them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from evaluation.checking import sets
from evaluation.checking.findings import Tally, ms, shown
from evaluation.checking.models import REGISTERS
from evaluation.checking.versions import READS, Versions
from evaluation.history import Action, Fate

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from evaluation.history import Operation


def check(keys: Mapping[tuple[str, str], Sequence[Operation]]) -> tuple[Tally, Tally]:
    """duplicated and phantom."""
    duplicated, phantom = Tally("duplicated"), Tally("phantom")
    for (workload, key), operations in keys.items():
        if workload in ("set", "append"):
            sets.check_items(key, operations, duplicated, phantom)
        if workload == "catalogue":
            _check_names(key, operations, phantom)
        if workload not in REGISTERS:
            continue
        versions = Versions(operations)
        blamed: set[object] = set()
        for read in operations:
            if read.action not in READS or read.outcome is not Fate.OK:
                continue
            phantom.checked += 1
            values = read.value if workload == "batch" else [read.value]
            for value in dict.fromkeys(values or ()):
                if value is None or value in blamed:
                    continue
                write = versions.write_of.get(value) or versions.refused.get(value)
                if reason := sets.why_phantom(write, read):
                    blamed.add(value)
                    phantom.blame(
                        f"{key}: {shown(value)} was read at {ms(read.invoked_ns)}, {reason}",
                        [read.id, write.id if write else None],
                    )
    return duplicated, phantom


def _check_names(key: str, operations: Sequence[Operation], phantom: Tally) -> None:
    """A collection that is there before anybody can have created it; each name is blamed once."""
    creations = [op for op in operations if op.action is Action.CREATE and op.outcome is not Fate.REFUSED]
    first_ns = min((op.invoked_ns for op in creations), default=None)
    blamed = False
    for read in operations:
        if read.action is not Action.EXISTS or read.outcome is not Fate.OK:
            continue
        phantom.checked += 1
        early = first_ns is None or (read.returned_ns is not None and read.returned_ns < first_ns)
        if read.value and early and not blamed:
            blamed = True
            phantom.blame(f"{key}: was there at {ms(read.invoked_ns)}, but not created before", [read.id])
