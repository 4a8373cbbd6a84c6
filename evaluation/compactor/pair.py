"""The compactor as processes: two workers and one producer on one folder of the bucket."""

from __future__ import annotations

import asyncio
import sys
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import orjson

from evaluation.compactor import snapshot
from evaluation.compactor.model import COLLECTION, POINTER, QUEUE, Change, Pointer, Variant, queue_key
from evaluation.compactor.storage import Bucket
from evaluation.failure import SystemFailure
from evaluation.history import Action, Fate, Operation, Phase
from evaluation.processes import Child, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

WORKERS = ("worker-1", "worker-2")
LEASE_MS = 2000
DEADLINE_S = 60.0


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
