"""All faults by name. A scenario takes one, applies it to a running system, and heals it.

How: `evaluation.faulting.interface`. Which faults a system can have follows from what it is made of.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from evaluation.faulting import (
    clock,
    disk,
    engines,
    filling,
    maintenance,
    network,
    packets,
    processes,
    replicas,
)
from evaluation.faulting.compound import Compound
from evaluation.faulting.interface import Context, Fault, Struck

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["FAULTS", "Context", "Fault", "Struck"]

_PLAIN: Final[tuple[Fault, ...]] = (
    *network.faults(),
    *packets.faults(),
    *processes.faults(),
    *disk.faults(),
    *clock.faults(),
    *maintenance.faults(),
    *engines.faults(),
    *replicas.faults(),
    *filling.faults(),
)

#: name -> fault; the names are columns of the report.
FAULTS: Final[Mapping[str, Fault]] = {fault.name: fault for fault in (*_PLAIN, Compound(_PLAIN))}
