"""One run: two workers, a fault at the one that holds the lock, acknowledged changes counted at the end.

A change is acknowledged when its object is in the queue: from then on the system has promised to apply it.
Operations are those of the `set` workload: `add` through the entry `queue`, `get_all` through the entry
`snapshot`, which reads what the pointer names, as every reader of such a system does.
"""

from __future__ import annotations

import asyncio
import datetime
import platform
import random
import shutil
import signal
import sys
import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import orjson
import psutil

from evaluation.compactor import snapshot
from evaluation.compactor.model import COLLECTION, POINTER, QUEUE, Change, Point, Pointer, Variant, queue_key
from evaluation.compactor.storage import Bucket
from evaluation.failure import SystemFailure
from evaluation.history import Action, Fate, Operation, Phase, write_history
from evaluation.processes import Child, wait_until
from evaluation.record import Event, RunRecord
from evaluation.systems.interface import Promises

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

WORKERS = ("worker-1", "worker-2")
LEASE_MS = 2000
DEADLINE_S = 60.0
#: fault -> the points at which it may strike, each a place between "has the snapshot" and "is done".
FAULTS: dict[str, tuple[Point, ...]] = {
    "none": (),
    "pause-holder": (Point.DOWNLOADED, Point.APPLIED, Point.PACKED, Point.UPLOADED, Point.CHECKED),
    "kill-holder": (Point.PACKED, Point.UPLOADED, Point.CHECKED, Point.MOVED),
}
_SIGNAL = {"pause-holder": "pause", "kill-holder": "kill"}


@dataclass(frozen=True, slots=True)
class Plan:
    """What a seed decides."""

    fault: str
    point: Point | None
    before: int
    """Changes compacted before the fault."""
    during: tuple[int, int]
    """Changes until the holder is struck, and after that, until the other has compacted them."""
    after: int


def plan(fault: str, seed: int, point: Point | None = None) -> Plan:
    """The same for the same arguments. `point` overrules the seed's choice."""
    rng = random.Random(f"{fault}/{seed}")
    chosen = rng.choice(FAULTS[fault]) if FAULTS[fault] else None
    counts = [rng.randint(3, 12) for _ in range(4)]
    return Plan(fault, point or chosen, counts[0], (counts[1], counts[2]), counts[3])


@dataclass(frozen=True, slots=True)
class Holding:
    """From when to when a worker had the lock, or believed that it had. Times from the run's start."""

    worker: str
    token: int
    locked_ns: int
    expires_ns: int
    ended_ns: int | None
    """When it was done or gave up; None for one that was killed."""
    end: str
    """done, refused, idle, killed."""
    paused_ns: int | None = None
    awake_ns: int | None = None


def holdings(steps: list[dict[str, Any]], start_ns: int) -> list[Holding]:
    """Who had the lock when, from the workers' own reports."""
    open_: dict[str, dict[str, Any]] = {}
    found: list[Holding] = []

    def close(worker: str, ended_ns: int | None, end: str) -> None:
        known = open_.pop(worker, None)
        if known is not None:
            found.append(Holding(worker=worker, ended_ns=ended_ns, end=end, **known))

    for step in sorted(steps, key=lambda step: int(step["at_ns"])):
        at_ns, worker, what = int(step["at_ns"]) - start_ns, str(step["worker"]), str(step["step"])
        if what == "locked":
            expires_ns = at_ns + int(float(step["expires_in_ms"]) * 1e6)
            open_[worker] = {"token": step["token"], "locked_ns": at_ns, "expires_ns": expires_ns}
        elif what == "pause" and worker in open_:
            open_[worker]["paused_ns"] = at_ns
        elif what == "awake" and worker in open_:
            open_[worker]["awake_ns"] = at_ns
        elif what == "kill":
            close(worker, None, "killed")
        elif what in ("done", "refused", "idle"):
            close(worker, at_ns, what)
    return sorted(found, key=lambda holding: holding.locked_ns)


class Compactor:
    """Two workers and one producer on one folder of the bucket."""

    def __init__(self, endpoint: str, variant: Variant, folder: Path, label: str, batch: int = 100) -> None:
        self._variant = variant
        self._folder = folder
        self._endpoint = endpoint
        self._label = label
        self._batch = batch
        self._workers: dict[str, Child] = {}
        self._sent = 0
        self.bucket = Bucket(endpoint, label)
        self.operations: list[Operation] = []
        self.start_ns = time.monotonic_ns()

    @property
    def now_ns(self) -> int:
        return time.monotonic_ns() - self.start_ns

    async def start(self, workers: tuple[str, ...] = WORKERS, lease_ms: int = LEASE_MS) -> None:
        for name in workers:
            self.launch(name, lease_ms)
        await self.wait("workers to be ready", lambda: len(self.named("ready")) >= len(workers))

    def launch(self, name: str, lease_ms: int = LEASE_MS) -> None:
        flags = {
            "--endpoint": self._endpoint,
            "--bucket-folder": self._label,
            "--name": name,
            "--variant": self._variant.value,
            "--lease-ms": str(lease_ms),
            "--batch": str(self._batch),
            "--shared": str(self._folder),
        }
        command = [sys.executable, "-m", "evaluation.compactor.worker"]
        command += [word for pair in flags.items() for word in pair]
        self._workers[name] = Child(command, self._folder / "logs" / f"{name}.log")

    def stop(self) -> None:
        for worker in self._workers.values():
            worker.stop()

    def steps(self) -> list[dict[str, Any]]:
        """All complete lines that the workers have reported."""
        found: list[dict[str, Any]] = []
        for name in self._workers:
            log = self._folder / "logs" / f"{name}.log"
            text = log.read_bytes() if log.exists() else b""
            lines = text[: text.rfind(b"\n") + 1].splitlines()
            found.extend(orjson.loads(line) for line in lines if line.startswith(b'{"at_ns"'))
        return found

    def named(self, step: str) -> list[dict[str, Any]]:
        return [each for each in self.steps() if each["step"] == step]

    def child(self, worker: str) -> Child:
        return self._workers[worker]

    async def wait(self, what: str, condition: Callable[[], bool], deadline_s: float = DEADLINE_S) -> None:
        async def ask() -> bool:
            return await asyncio.to_thread(condition)

        def logs() -> str:
            return "\n".join(f"{name}: {child.log_tail(5)}" for name, child in self._workers.items())

        try:
            await wait_until(what, ask, deadline_s, pause_s=0.02, context=logs)
        except TimeoutError as error:
            raise SystemFailure(str(error)) from error

    def add(self, count: int, phase: Phase, dimension: int = 8) -> None:
        """Put so many changes into the queue."""
        for _ in range(count):
            number, self._sent = self._sent, self._sent + 1
            vector = np.random.default_rng(number).normal(size=dimension).astype(np.float32)
            change = Change.of(f"doc-{number:05}", vector, f"document {number}")
            invoked_ns = self.now_ns
            self.bucket.put(queue_key(number), change.encode())
            self._record(Action.ADD, "queue", change.id, phase, invoked_ns)

    def read(self, phase: Phase) -> list[str]:
        """All ids of the snapshot that the pointer names."""
        invoked_ns = self.now_ns
        stored = self.bucket.get(POINTER)
        body = None
        if stored is not None:
            packed = self.bucket.get(Pointer.decode(stored.body).snapshot)
            body = None if packed is None else packed.body
        folder = self._folder / "reader.chroma"
        snapshot.unpack(body, folder)
        ids = snapshot.ids(folder)
        self._record(Action.GET_ALL, "snapshot", ids, phase, invoked_ns)
        return ids

    async def compacted(self, *, by: str | None = None, deadline_s: float = DEADLINE_S) -> None:
        """Until the queue is empty and (where named) that worker has reported it done."""
        seen = len(self._done(by))

        def empty() -> bool:
            return not self.bucket.names(QUEUE) and (by is None or len(self._done(by)) > seen)

        await self.wait("the queue to be empty", empty, deadline_s)

    def _done(self, by: str | None) -> list[dict[str, Any]]:
        return [step for step in self.named("done") if by in (None, step["worker"])]

    def _record(self, action: Action, entry: str, value: Any, phase: Phase, invoked_ns: int) -> None:
        self.operations.append(
            Operation(
                id=len(self.operations),
                workload="set",
                process=0 if action.is_write else 1,
                session="producer" if action.is_write else "reader",
                entry=entry,
                action=action,
                key=COLLECTION,
                value=value,
                level="default",
                phase=phase,
                invoked_ns=invoked_ns,
                returned_ns=self.now_ns,
                outcome=Fate.OK,
                status=200,
            )
        )


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
    chosen = plan(
        fault, seed, Point.CHECKED if (variant, fault) == (Variant.CHECKED, "pause-holder") else None
    )
    await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)
    await asyncio.to_thread(folder.mkdir, parents=True)
    record = RunRecord(
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
        note = Event(at_ns=holding.locked_ns, kind="note", member=holding.worker, text=_words(holding))
        record.events.append(note)
    record.events.sort(key=lambda event: event.at_ns)
    record.measured = {
        "holdings": [asdict(holding) for holding in held],
        "refused_moves": sum(step["step"] == "refused" for step in compactor.steps()),
    }
    write_history(folder / "history.jsonl", compactor.operations)
    record.save(folder)
    return record


async def _course(compactor: Compactor, record: RunRecord, chosen: Plan, lease_ms: int) -> None:
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


async def _strike(compactor: Compactor, record: RunRecord, chosen: Plan, point: Point, lease_ms: int) -> None:
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
        await asyncio.to_thread(child.signal, signal.SIGCONT)
        await compactor.wait(
            f"{victim} to end its cycle",
            lambda: any(
                step["worker"] == victim
                and step["at_ns"] > struck["at_ns"]
                and step["step"] in ("done", "refused")
                for step in compactor.steps()
            ),
        )
    else:
        ready = len([step for step in compactor.steps() if step["step"] == "ready"])
        compactor.launch(victim, lease_ms)
        await compactor.wait(
            f"{victim} to be ready again",
            lambda: len([step for step in compactor.steps() if step["step"] == "ready"]) > ready,
        )
    record.events.append(Event(at_ns=record.fault_end_ns, kind="fault-end", member=victim))
    record.fault_detail = {
        "victim": victim,
        "point": point.value,
        "lease_ms": lease_ms,
        "lasted_ms": (record.fault_end_ns - record.fault_begin_ns) / 1e6,
    }


def _require_undisturbed(held: list[Holding], record: RunRecord) -> None:
    """Nobody but the one that was struck outlived its lease: else the machine was the fault."""
    for holding in held:
        struck = holding.paused_ns is not None or holding.end == "killed"
        if not struck and (holding.ended_ns is None or holding.ended_ns > holding.expires_ns):
            raise SystemFailure(
                f"{record.system}: {_words(holding)}, though nothing was done to {holding.worker}. "
                "The machine is too busy for this lease; nothing was concluded. Run it again."
            )


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


def _words(holding: Holding) -> str:
    lasted_ms = None if holding.ended_ns is None else (holding.ended_ns - holding.locked_ns) / 1e6
    lease_ms = (holding.expires_ns - holding.locked_ns) / 1e6
    held = "until it was killed" if lasted_ms is None else f"for {lasted_ms:.0f} ms"
    return f"held lock {holding.token} {held}, lease {lease_ms:.0f} ms: {holding.end}"
