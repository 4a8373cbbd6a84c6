"""One run: two workers, a fault at the one that holds the lock, acknowledged changes counted at the end.

A change is acknowledged when its object is in the queue: from then on the system has promised to apply it.
Operations are those of the `set` workload: `add` through the entry `queue`, `get_all` through the entry
`snapshot`, which reads what the pointer names, as every reader of such a system does.
"""

from __future__ import annotations

import asyncio
import datetime
import platform
import shutil
import signal
import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import psutil

from evaluation.compactor.holding import Holding, holdings
from evaluation.compactor.model import Point, Variant
from evaluation.compactor.pair import LEASE_MS, WORKERS, Compactor
from evaluation.compactor.script import Script, script
from evaluation.failure import SystemFailure
from evaluation.history import Action, Phase, write_history
from evaluation.record import Event, RunRecord
from evaluation.systems.interface import Promises

if TYPE_CHECKING:
    from pathlib import Path

    from evaluation.processes import Child

_SIGNAL = {"pause-holder": "pause", "kill-holder": "kill"}


async def run(
    endpoint: str,
    variant: Variant,
    fault: str,
    seed: int,
    folder: Path,
    command: str,
    lease_ms: int = LEASE_MS,
) -> RunRecord:
    """One run, saved in `folder` (emptied first) as run.json, history.jsonl and logs/.

    Raises:
        SystemFailure: a worker did not do what it does when all is well; an error, not a finding.
    """
    # The look at the lock fails to help only if the pause comes after it.
    chosen = script(
        fault, seed, Point.CHECKED if (variant, fault) == (Variant.CHECKED, "pause-holder") else None
    )
    await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)
    await asyncio.to_thread(folder.mkdir, parents=True)
    record = _new_record(variant, fault, seed, command)
    # Never what an earlier attempt has left in the bucket.
    label = f"{record.system}/{fault}/{seed}/{time.monotonic_ns()}"
    compactor = Compactor(endpoint, variant, folder, label)
    try:
        await _course(compactor, record, chosen, lease_ms)
    finally:
        await asyncio.to_thread(compactor.stop)
        for name in (*WORKERS, "reader"):
            shutil.rmtree(folder / f"{name}.chroma", ignore_errors=True)
        for name in _SIGNAL.values():
            (folder / f"{name}.struck").unlink(missing_ok=True)
    held = holdings(compactor.steps(), compactor.start_ns)
    _require_undisturbed(held, record)
    for holding in held:
        note = Event(at_ns=holding.locked_ns, kind="note", member=holding.worker, text=holding.in_words())
        record.events.append(note)
    record.events.sort(key=lambda event: event.at_ns)
    record.measured = {
        "holdings": [asdict(holding) for holding in held],
        "refused_moves": sum(step["step"] == "refused" for step in compactor.steps()),
    }
    write_history(folder / "history.jsonl", compactor.operations)
    record.save(folder)
    return record


def _new_record(variant: Variant, fault: str, seed: int, command: str) -> RunRecord:
    return RunRecord(
        system=f"compactor-{variant.value}",
        fault=fault,
        workloads=["set"],
        seed=seed,
        command=command,
        started_at=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        members=list(WORKERS),
        entries=[{"name": name, "member": None, "side": "all"} for name in ("queue", "snapshot")],
        promises=asdict(Promises(durable=True, levels={"default": "eventual"}, available_majority=True)),
        versions={"python": platform.python_version()},
    )


def _require_undisturbed(held: list[Holding], record: RunRecord) -> None:
    """Nobody but the one that was struck outlived its lease: else the machine was the fault."""
    for holding in held:
        if holding.is_disturbed:
            raise SystemFailure(
                f"{record.system}: {holding.in_words()}, though nothing was done to {holding.worker}. "
                "The machine is too busy for this lease; nothing was concluded. Run it again."
            )


async def _course(compactor: Compactor, record: RunRecord, chosen: Script, lease_ms: int) -> None:
    await compactor.start(lease_ms=lease_ms)
    record.events.append(Event(at_ns=compactor.now_ns, kind="health", text="all workers ready"))
    await _add(compactor, chosen.before, Phase.WARMUP)
    await compactor.compacted()
    await _read_all_of(compactor, Phase.WARMUP)
    if chosen.point is not None:
        await _strike(compactor, record, chosen, chosen.point, lease_ms)
    await _add(compactor, chosen.after, Phase.HEALED)
    await compactor.compacted()
    record.quiet_ns = compactor.now_ns
    await asyncio.to_thread(compactor.read, Phase.FINAL)
    for worker in WORKERS:
        if compactor.child(worker).returncode is not None:
            raise SystemFailure(f"{worker} ended by itself: {compactor.child(worker).log_tail(10)}")
    record.end_ns = compactor.now_ns
    record.events.append(Event(at_ns=record.end_ns, kind="health", text="all workers alive, queue empty"))


async def _strike(
    compactor: Compactor, record: RunRecord, chosen: Script, point: Point, lease_ms: int
) -> None:
    """Arm the fault, let it strike the holder, let the other take over, heal."""
    name = _SIGNAL[chosen.fault]
    folder = compactor.child(WORKERS[0]).log.parents[1]
    armed = folder / f"{name}.new"
    armed.write_text(point.value)
    armed.rename(folder / name)
    await _add(compactor, chosen.during[0], Phase.FAULT)
    await compactor.wait(f"the holder to reach {point.value}", lambda: bool(_struck(compactor, name)))
    struck = _struck(compactor, name)[0]
    victim = str(struck["worker"])
    other = next(worker for worker in WORKERS if worker != victim)
    record.fault_begin_ns = int(struck["at_ns"]) - compactor.start_ns
    child = compactor.child(victim)
    await compactor.wait(f"{victim} to be struck", lambda: _is_struck(child, name))
    record.events.append(
        Event(at_ns=record.fault_begin_ns, kind="fault-begin", member=victim, text=f"{name} at {point.value}")
    )
    await _add(compactor, chosen.during[1], Phase.FAULT)
    # The other gets the lock only when the lease of the one that was struck has expired.
    await compactor.compacted(by=other)
    await _read_all_of(compactor, Phase.FAULT)
    record.fault_end_ns = compactor.now_ns
    if name == "pause":
        await _wake(compactor, child, struck)
    else:
        await _replace(compactor, victim, lease_ms)
    record.events.append(Event(at_ns=record.fault_end_ns, kind="fault-end", member=victim))
    record.fault_detail = {
        "victim": victim,
        "point": point.value,
        "lease_ms": lease_ms,
        "lasted_ms": (record.fault_end_ns - record.fault_begin_ns) / 1e6,
    }


async def _wake(compactor: Compactor, child: Child, struck: dict[str, Any]) -> None:
    """Let a paused worker go on, until it has ended the cycle in which it was struck."""
    await asyncio.to_thread(child.signal, signal.SIGCONT)
    await compactor.wait(
        f"{struck['worker']} to end its cycle",
        lambda: any(
            step["worker"] == struck["worker"]
            and step["at_ns"] > struck["at_ns"]
            and step["step"] in ("done", "refused")
            for step in compactor.steps()
        ),
    )


async def _replace(compactor: Compactor, victim: str, lease_ms: int) -> None:
    """Start a killed worker again."""
    ready = len(compactor.named("ready"))
    compactor.launch(victim, lease_ms)
    await compactor.wait(f"{victim} to be ready again", lambda: len(compactor.named("ready")) > ready)


async def _add(compactor: Compactor, count: int, phase: Phase) -> None:
    await asyncio.to_thread(compactor.add, count, phase)


async def _read_all_of(compactor: Compactor, phase: Phase) -> None:
    """A read that must find every change so far: as long as nothing has gone wrong, it does."""
    ids = await asyncio.to_thread(compactor.read, phase)
    sent = sum(operation.action is Action.ADD for operation in compactor.operations)
    if len(ids) != sent:
        raise SystemFailure(f"{len(ids)} of {sent} changes are in the snapshot before the fault has healed")


def _struck(compactor: Compactor, name: str) -> list[dict[str, Any]]:
    return [step for step in compactor.steps() if step["step"] == name]


def _is_struck(child: Child, name: str) -> bool:
    """The worker is really stopped, or really dead: the kernel says so, not the worker."""
    if name == "kill":
        return child.returncode == -signal.SIGKILL
    return psutil.Process(child.pid).status() == psutil.STATUS_STOPPED
