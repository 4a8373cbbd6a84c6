"""The phases of one run, in their order: what happens when, and what of it goes into the record.

health -> warm-up (with a rate floor) -> fault -> heal -> traffic until every entry takes writes again ->
quiet -> final reads at every entry -> health. What the set-up fails at is an error of the run, never a
finding; what the system does wrong is for the judge (`evaluation.checking.judge`).
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import aiohttp

from evaluation.failure import SystemFailure
from evaluation.history import Phase
from evaluation.processes import wait_until
from evaluation.record import Event
from evaluation.run.decisions import acknowledged, below_floor, first_writes
from evaluation.run.evidence import Journaled
from evaluation.run.final_reads import read_everywhere
from evaluation.run.footprint import footprint
from evaluation.run.observing import Observer
from evaluation.run.striking import Strike
from evaluation.traffic.clients import Clients, sessions
from evaluation.traffic.driver import Driver
from evaluation.traffic.mix import Mix
from evaluation.traffic.probes import Probes
from evaluation.traffic.recorder import Recorder

if TYPE_CHECKING:
    from collections.abc import Callable

    from evaluation.checking.log import LogEvidence
    from evaluation.faulting.interface import Fault
    from evaluation.record import RunRecord
    from evaluation.run.plan import RunPlan
    from evaluation.run.stage import Stage
    from evaluation.systems.interface import System

_EXAMINATION_S = 60.0


@runtime_checkable
class Examined(Protocol):
    """A system that can tell what no client sees: errors that it counts, conflicts that it keeps."""

    async def examine(self) -> dict[str, Any]:
        """Takes seconds; may restart the system. `own_errors`: kind -> count; beside it what it is from."""
        ...


class RunError(Exception):
    """The run says nothing about the system: its set-up or a health check failed."""


class Phases:
    """One run on a started system: `everything`, and `end` whatever became of that."""

    def __init__(
        self,
        stage: Stage,
        plan: RunPlan,
        fault: Fault,
        record: RunRecord,
        progress: Callable[[str], None],
    ) -> None:
        self.doing = "health before"
        self.recorder = Recorder()
        self.evidence: LogEvidence | None = None
        self._system = stage.system
        self._plan = plan
        self._fault = fault
        self._record = record
        self._progress = progress
        self._mix = Mix(plan.workloads)
        self._drivers: dict[str, Driver] = {}
        self._clients: Clients | None = None
        self._observer = Observer(self._system, self.recorder.start_ns)
        # Names of collections and request ids must not meet those of another run on the same system.
        self._prefix = f"x{stage.runs}-"
        self._leveled = tuple(self._system.levels) != ("default",)
        self._strike = Strike(fault, stage, plan.seed, self.recorder, record, self._note)
        ack = "applied" if self._leveled else "default"
        self._probes = Probes(self.recorder, self._drivers, f"{self._prefix}{plan.seed}", ack)

    async def everything(self) -> None:
        """From the health before to the examination.

        Raises:
            RunError, SystemFailure, TimeoutError, OSError: the run says nothing; `doing` tells where.
        """
        self._do("health before")
        await self._healthy_before()
        await self._open()
        self._observer.start()
        self._do("warm-up")
        await self._warm_up()
        self._record.measured["before"] = await asyncio.to_thread(footprint, self._system)
        self._do("fault: apply")
        await self._apply()
        self._do("fault")
        await self._for(max(self._plan.timing.fault_s, self._strike.least_s))
        self._do("fault: heal")
        await self._strike.heal()
        self._do("recovery")
        await self._recover()
        await self._for(self._plan.timing.after_s)
        await self._quiet()
        self._do("final reads")
        await self._read_finally()
        self._do("health after")
        await self._healthy_after()
        if isinstance(self._system, Examined):
            self._do("examination")
            await self._examine(self._system)

    async def end(self) -> None:
        """Also after a failure: nobody sends, the fault is gone, all is written down."""
        for part in (self._clients, self._probes):
            with contextlib.suppress(Exception):
                if part is not None:
                    await part.stop()
        with contextlib.suppress(Exception):
            await self._strike.heal()
        with contextlib.suppress(Exception):
            await self._observer.stop()
        for driver in self._drivers.values():
            await driver.close()
        record = self._record
        record.end_ns = self.recorder.now_ns()
        record.events = sorted([*record.events, *self._observer.events], key=lambda event: event.at_ns)
        counts = Counter(f"{operation.phase}.{operation.outcome}" for operation in self.recorder.operations)
        record.measured["operations"] = dict(sorted(counts.items()))

    def _do(self, what: str) -> None:
        self.doing = what
        self._progress(what)

    def _note(self, text: str) -> None:
        self._record.events.append(Event(at_ns=self.recorder.now_ns(), kind="note", text=text[:200]))

    # ------------------------------------------------------------------ phases

    async def _healthy_before(self) -> None:
        wrong = await health_within(self._system, 30.0)
        if wrong is not None:
            raise RunError(wrong)
        record, system = self._record, self._system
        record.members = list(system.members)
        record.promises = asdict(system.promises) | {"levels": dict(system.promises.levels)}

    async def _open(self) -> None:
        """Drivers for all entries, and the collections that the workloads need, known at all of them."""
        self._do("collections")
        entries = self._system.entries
        for entry in entries:
            self._drivers[entry.name] = Driver(
                entry, levels=self._leveled, timeout_s=self._plan.timing.operation_s, prefix=self._prefix
            )
        names = tuple(dict.fromkeys(("register", *self._mix.collections)))
        first = self._drivers[entries[0].name]
        await first.create(names, 30)
        await asyncio.gather(*(driver.resolve(names, 40) for driver in self._drivers.values()))
        if "query" in self._plan.workloads:
            await first.fill_query(30)
        self._clients = Clients(
            self._mix,
            self._drivers,
            sessions(entries, self._system.levels, self._plan.pace),
            self.recorder,
            run=f"{self._prefix}{self._plan.seed}",
            per_second=self._plan.pace.per_second,
        )

    async def _for(self, seconds: float) -> None:
        """Let traffic go on; a client that failed by itself ends the run."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            failure = None if self._clients is None else self._clients.failed()
            if failure is not None:
                raise failure
            await asyncio.sleep(min(0.2, max(end - time.monotonic(), 0)))

    async def _warm_up(self) -> None:
        timing = self._plan.timing
        assert self._clients is not None
        self._clients.start()
        await self._for(timing.warmup_s)
        end = time.monotonic() + timing.warmup_deadline_s
        while True:
            window_ns = int(timing.warmup_s * 1e9)
            recent = self.recorder.since(self.recorder.now_ns() - window_ns)
            lacking = below_floor(recent, self.recorder.operations, self._plan, timing)
            if not lacking:
                return
            if time.monotonic() > end:
                raise RunError(f"the traffic did not get going in {timing.warmup_deadline_s} s: {lacking}")
            await self._for(0.2)

    async def _apply(self) -> None:
        why_not = self._fault.why_not(self._system)
        if why_not:
            raise RunError(f"{self._fault.name} cannot strike {self._system.name}: {why_not}")
        self._strike.begin()
        self._probes.start()
        await self._strike.apply()

    async def _recover(self) -> None:
        """Traffic until every entry that took writes in the warm-up takes them again."""
        record = self._record
        took = {
            operation.entry
            for operation in self.recorder.operations
            if operation.phase is Phase.WARMUP and acknowledged(operation)
        }
        deadline_ns = record.fault_end_ns + int(self._plan.timing.recovery_deadline_s * 1e9)
        first: dict[str, int] = {}
        while self.recorder.now_ns() < deadline_ns and not took <= first.keys():
            await self._for(0.1)
            first = first_writes(self.recorder.since(self._strike.healing_ns))
        record.measured["recovery_ms"] = {
            # It may have been back before the heal was checked and over.
            name: round(max(0, first[name] - record.fault_end_ns) / 1e6, 1) if name in first else None
            for name in sorted(took)
        }

    async def _quiet(self) -> None:
        await self._probes.stop()
        assert self._clients is not None
        self._do("clients stop")
        await self._clients.stop()
        self._do("settle")
        await self._system.settle()

    async def _read_finally(self) -> None:
        self.recorder.phase = Phase.FINAL
        self._record.quiet_ns = self.recorder.now_ns()
        wanted = [*self._mix.final(), *self._probes.final()]
        await read_everywhere(self._system, self._drivers, self.recorder, wanted)

    async def _healthy_after(self) -> None:
        self._record.measured["health_after"] = await health_within(self._system, 20.0) or ""
        self._record.measured |= await asyncio.to_thread(footprint, self._system)
        if isinstance(self._system, Journaled):
            self.evidence = await self._system.log_evidence()
        await self._observer.stop()

    async def _examine(self, system: Examined) -> None:
        """Last, because it may restart everything. What fails here does not spoil what clients saw."""
        measured = self._record.measured
        try:
            async with asyncio.timeout(_EXAMINATION_S):
                found = await system.examine()
        except (aiohttp.ClientError, SystemFailure, TimeoutError, OSError, KeyError) as error:
            measured["examined"] = {"failed": repr(error)[:500]}
            self._note(f"the examination failed: {error!r}")
            return
        measured["system_errors"] = found.pop("own_errors", {})
        measured["examined"] = found


async def health_within(system: System, deadline_s: float) -> str | None:
    """None once all is well; else what was still wrong at the deadline."""
    wrong: str | None = None

    async def healthy() -> bool:
        nonlocal wrong
        wrong = await system.health()
        return wrong is None

    with contextlib.suppress(TimeoutError):
        await wait_until("health", healthy, deadline_s, pause_s=0.2)
    return wrong
