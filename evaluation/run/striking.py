"""The fault of one run: it strikes once and is healed once, and both are in the record."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from evaluation.faulting.interface import Context
from evaluation.history import Phase
from evaluation.record import Event
from evaluation.run.decisions import side_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from evaluation.faulting.interface import Fault, Struck
    from evaluation.record import RunRecord
    from evaluation.run.stage import Stage
    from evaluation.systems.interface import System
    from evaluation.traffic.recorder import Recorder


@runtime_checkable
class Deliberate(Protocol):
    """A system that answers a failure only after a time that is longer than a fault usually lasts."""

    @property
    def fault_s(self) -> float:
        """So long a fault must last to be answered."""
        ...


class Strike:
    """`begin`, `apply`, `heal`, in this order; `heal` does nothing where nothing is struck."""

    def __init__(
        self,
        fault: Fault,
        stage: Stage,
        seed: int,
        recorder: Recorder,
        record: RunRecord,
        note: Callable[[str], None],
    ) -> None:
        self._fault = fault
        self._system = stage.system
        self._recorder = recorder
        self._record = record
        self._context = Context(
            system=stage.system,
            proxies=stage.proxies,
            rng=random.Random(f"{seed}/{fault.name}"),
            note=note,
        )
        self._struck: Struck | None = None
        self.healing_ns = 0
        """When the heal began."""

    @property
    def least_s(self) -> float:
        """How long it must last to say anything."""
        return max(self._fault.min_seconds, least_fault_s(self._system))

    def begin(self) -> None:
        """From now on operations belong to the fault."""
        self._recorder.phase = Phase.FAULT
        begin_ns = self._recorder.now_ns()
        self._record.fault_begin_ns = begin_ns
        self._record.events.append(Event(at_ns=begin_ns, kind="fault-begin", text=self._fault.summary))

    async def apply(self) -> None:
        record = self._record
        self._struck = struck = await self._fault.apply(self._context)
        record.fault_detail = struck.record()
        record.measured["fault_applied_ns"] = self._recorder.now_ns()
        record.entries = [
            {"name": entry.name, "member": entry.member, "side": side_of(entry, struck.sides)}
            for entry in self._system.entries
        ]

    async def heal(self) -> None:
        struck, self._struck = self._struck, None
        if struck is None:
            return
        self.healing_ns = self._recorder.now_ns()
        self._recorder.phase = Phase.HEALED
        try:
            await self._fault.heal(self._context, struck)
        finally:
            self._record.fault_end_ns = self._recorder.now_ns()
            self._record.fault_detail = struck.record()
            self._record.events.append(Event(at_ns=self._record.fault_end_ns, kind="fault-end"))


def least_fault_s(system: System) -> float:
    """How long a fault must last to see the system's answer to it; 0 where nothing is said."""
    return system.fault_s if isinstance(system, Deliberate) else 0.0
