"""`shared-dir`: several worker processes that each open one and the same Chroma directory.

What people do first, because it needs nothing: three workers of a web application, each with its own
`chromadb.PersistentClient`, behind a spreader (gunicorn shares one socket; here a round-robin balancer, so
that each worker's link can be cut). Chroma does not support it, so nothing is promised.

What chromadb 1.5.9 does, as measured with three workers:

- get, count: always right, they read SQLite, which is common to all.
- query: asks an index in the worker's own memory. Of 150 documents just written through another worker it
  found 3 (each worker's first query, which loads the index); through the same worker 150.
- upsert and then restarting all workers: 240 and 50 of 3,601 documents, at default settings, and 180 of 721,
  with an index saved every 50 records, are found by no query any more, though get and count have them. One
  worker alone: none.
- modify (of a collection's configuration) by all at once: 113 of 889 fail, "(code: 5) database is locked". By
  12 threads of one process: 0 of 843. All other writes wait for the lock, up to 1,000 s.
- PersistentClient, three at once on an empty directory: in 1 of 3 starts one of them ended with "(code: 1)
  table collections already exists".
- upsert after the directory was replaced: "(code: 1032) attempt to write a readonly database"; get and query
  go on answering from the deleted files.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import aiohttp

from evaluation.failure import SystemFailure
from evaluation.processes import Child, free_port, wait_until
from evaluation.systems import http
from evaluation.systems.interface import Entry, Link, Observation, Promises
from evaluation.systems.program import log_tails, start_module
from evaluation.systems.shared_dir_probe import Probe

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from evaluation.systems.proxies import Proxies

BALANCER: Final = "balancer"
_DEADLINE_S: Final = 120.0
#: How often the arbiter looks for workers that ended, as gunicorn's does.
_LOOK_S: Final = 0.2


@dataclass(slots=True)
class _Worker:
    port: int = field(default_factory=free_port)
    child: Child | None = None
    crashes: int = 0
    """Ends that nobody asked for, kills by a fault included."""
    errors: Counter[str] = field(default_factory=Counter[str])
    """By kind; of processes that ended, as last read."""
    samples: dict[str, str] = field(default_factory=dict[str, str])
    current: Counter[str] = field(default_factory=Counter[str])


class SharedDir:
    """A `System`. The members are workers; all have the same disk."""

    name = "shared-dir"
    levels = ("default",)
    has_leader = False
    promises = Promises()

    def __init__(self, workers: int = 3) -> None:
        self.members = tuple(f"worker-{number}" for number in range(1, workers + 1))
        self.links = (
            Link("client.lb", "client", BALANCER, "client"),
            *(Link(f"lb.{member}", BALANCER, member, "balancer") for member in self.members),
            *(Link(f"client.{member}", f"client@{member}", member, "client") for member in self.members),
        )
        self.beside: Mapping[str, str] = {f"client@{member}": member for member in self.members}
        self.entries: tuple[Entry, ...] = ()
        self._folder = Path()
        self._workers: dict[str, _Worker] = {}
        self._at: dict[str, str] = {}
        self._balancer_port = 0
        self._balancer: Child | None = None
        self._arbiter: asyncio.Task[None] | None = None
        self._session: aiohttp.ClientSession | None = None

    # ------------------------------------------------------------------ start and stop

    async def start(self, folder: Path, proxies: Proxies) -> None:
        self._folder = folder
        self._session = aiohttp.ClientSession()
        self._workers = {member: _Worker() for member in self.members}
        self._balancer_port = free_port()
        for link in self.links:
            balancer = link.acceptor == BALANCER
            port = self._balancer_port if balancer else self._workers[link.acceptor].port
            self._at[link.proxy] = await proxies.create(link.proxy, f"127.0.0.1:{port}")
        self.entries = (
            Entry("lb", f"http://{self._at['client.lb']}"),
            *(Entry(member, f"http://{self._at[f'client.{member}']}", member) for member in self.members),
        )
        # The first one alone: of two that begin at once on an empty directory, both make the tables.
        first, *others = self.members
        self._run_worker(first)
        await self._up(first)
        for member in others:
            self._run_worker(member)
        for member in others:
            await self._up(member)
        self._run_balancer()
        for entry in self.entries:
            await self._wait(f"a write through {entry.name}", lambda url=entry.url: self._takes_writes(url))
        for worker in self._workers.values():
            worker.errors.clear()
        self._arbiter = asyncio.create_task(self._restart_ended())

    async def stop(self) -> None:
        if self._arbiter is not None:
            self._arbiter.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._arbiter
            self._arbiter = None
        if self._session is not None:
            await self._session.close()
            self._session = None
        children = [self._balancer, *(worker.child for worker in self._workers.values())]
        await asyncio.gather(*(asyncio.to_thread(child.stop) for child in children if child))
        self._balancer = None
        for worker in self._workers.values():
            worker.child = None

    async def restart(self, participant: str) -> None:
        if participant == BALANCER:
            if not self.pids(BALANCER):
                self._run_balancer()
            await self._wait("the balancer answers", self._balancer_answers)
            return
        if not self.pids(participant):
            self._run_worker(participant)
        await self._up(participant)

    async def settle(self) -> None:
        """Nothing is copied: there is one directory. A worker never looks again at an index it has loaded."""
        await self._wait("all workers answer", self._healthy)

    # ------------------------------------------------------------------ looking

    async def leader(self) -> str | None:
        return None

    async def health(self) -> str | None:
        answers = await asyncio.gather(*(self._counted(member, 5.0) for member in self.members))
        silent = [name for name, answers_ in zip(self.members, answers, strict=True) if not answers_]
        if silent:
            return f"no answer from {', '.join(silent)}"
        return None if await self._balancer_answers() else "the balancer does not answer"

    async def observe(self) -> list[Observation]:
        return list(await asyncio.gather(*(self._observe(member) for member in self.members)))

    def pids(self, participant: str) -> list[int]:
        child = self._balancer if participant == BALANCER else self._workers[participant].child
        return [] if child is None else child.pids()

    def disk(self, member: str) -> Path:
        if member not in self.members:
            raise KeyError(member)
        return self._folder / "data"

    async def counters(self) -> dict[str, int]:
        """Errors of Chroma by kind (locked, readonly, disk-io, hnsw, panic ...) and crashes, all workers."""
        await asyncio.gather(*(self._counted(member, 5.0) for member in self.members))
        total: Counter[str] = Counter()
        for worker in self._workers.values():
            total += worker.errors + worker.current
            total["crashes"] += worker.crashes
        return dict(total)

    def samples(self) -> dict[str, str]:
        """One message for each kind of error, as Chroma said it; call `counters` first."""
        return {kind: text for worker in self._workers.values() for kind, text in worker.samples.items()}

    # ------------------------------------------------------------------ what shows the sharing

    async def contend(self, seconds: float, clients: int = 4) -> dict[str, int]:
        """At every worker so many clients change the settings of one collection; the errors by kind.

        Chroma 1.5.9 waits 1,000 s for SQLite's lock, so plain writes become slow, not wrong. But this request
        reads and then writes in one transaction: two processes that have both read cannot both go on, and
        SQLite fails one of them at once with "database is locked" (code 5). Never within one process.
        """
        before = Counter(await self.counters())
        await self._probe().contend(seconds, clients)
        return dict(Counter(await self.counters()) - before)

    async def unfound(self, collection: str) -> dict[str, int]:
        """Worker -> documents that it counts in the collection, and that a query for as many neighbours does
        not find there. A single process finds all.

        A worker's vector index is in its memory. It takes in what others wrote only when it writes itself;
        and whoever saves its index to the directory purges the common log behind it, so that what the others
        had not taken in by then is in no index any more, after a restart neither.
        """
        return await self._probe().unfound(collection)

    async def redeploy(self) -> None:
        """Stop all workers in an orderly way and start them again, as for a new version of the program."""
        children = [worker.child for worker in self._workers.values() if worker.child is not None]
        for worker in self._workers.values():
            worker.child = None  # not a crash for the arbiter
        await asyncio.gather(*(asyncio.to_thread(child.stop) for child in children))
        for member in self.members:
            self._run_worker(member)
        for member in self.members:
            await self._up(member)

    async def examine(self) -> dict[str, Any]:
        """What the traffic cannot see, after it: errors by kind and crashes so far, lock errors under
        contention, documents that queries miss, per worker, before and after a restart of all."""
        so_far = await self.counters()
        counts = await self._probe().documents()
        running: Counter[str] = Counter()
        for name in counts:
            running.update(await self.unfound(name))
        contended = await self.contend(3.0)
        await self.redeploy()
        restarted: Counter[str] = Counter()
        for name in counts:
            restarted.update(await self.unfound(name))
        own = Counter(so_far) + Counter(contended)
        own["unfound after a restart"] = max(restarted.values(), default=0)
        return {
            "own_errors": {kind: count for kind, count in own.items() if count},
            "errors": so_far,
            "contended": contended,
            "documents": sum(counts.values()),
            "unfound": dict(running),
            "unfound_after_restart": dict(restarted),
            "samples": self.samples(),
        }

    # ------------------------------------------------------------------ what an operator, or a fault, does

    async def replace_directory(self) -> None:
        """Put an empty directory in the place of the common one, under the running workers, as a reset, a
        restored backup or a redeployed volume does. They keep their open files of the old one: reads go on
        answering from it, writes fail with code 1032, "attempt to write a readonly database"."""
        directory = self._folder / "data"
        await asyncio.to_thread(shutil.rmtree, directory)
        directory.mkdir()

    # ------------------------------------------------------------------ inside

    def _run_worker(self, member: str) -> None:
        worker = self._workers[member]
        if worker.child is not None:
            worker.child.kill()
        worker.errors += worker.current
        worker.current = Counter()
        options = {"worker": member, "port": worker.port, "directory": str(self.disk(member))}
        worker.child = self._program("shared_dir_worker", member, options)

    def _run_balancer(self) -> None:
        backends = [f"http://{self._at[f'lb.{member}']}" for member in self.members]
        options = {"port": self._balancer_port, "backends": backends}
        self._balancer = self._program("round_robin", BALANCER, options)

    def _program(self, module: str, name: str, options: Mapping[str, Any]) -> Child:
        return start_module(module, [json.dumps(options)], self._folder / "logs" / f"{name}.log")

    async def _restart_ended(self) -> None:
        while True:
            for member, worker in self._workers.items():
                if worker.child is not None and worker.child.returncode is not None:
                    worker.crashes += 1
                    self._run_worker(member)
            await asyncio.sleep(_LOOK_S)

    def _probe(self) -> Probe:
        assert self._session is not None
        workers = {
            member: f"http://127.0.0.1:{self._workers[member].port}{http.DATABASE}" for member in self.members
        }
        return Probe(self._session, workers)

    async def _counted(self, member: str, timeout_s: float) -> bool:
        """Ask the worker for its counters; whether it answered."""
        assert self._session is not None
        worker = self._workers[member]
        url = f"http://127.0.0.1:{worker.port}/worker/counters"
        answer = await http.get_json(self._session, url, timeout_s)
        if answer is None:
            return False
        worker.current = Counter(answer["errors"])
        worker.samples.update(answer["samples"])
        return True

    async def _observe(self, member: str) -> Observation:
        answers = await self._counted(member, 0.5)
        worker = self._workers[member]
        # Not peers, of which each would have data of its own: writes of two workers are no split brain.
        role = "worker" if answers else ("silent" if self.pids(member) else "stopped")
        counts = {**(worker.errors + worker.current), "crashes": worker.crashes}
        detail = ", ".join(f"{kind} {count}" for kind, count in sorted(counts.items()) if count)
        return Observation(member, time.monotonic_ns(), role, healthy=answers, detail=detail)

    async def _balancer_answers(self) -> bool:
        assert self._session is not None
        url = f"http://127.0.0.1:{self._balancer_port}/api/v2/heartbeat"
        return await http.get_json(self._session, url, 5.0) is not None

    async def _healthy(self) -> bool:
        return await self.health() is None

    async def _up(self, member: str) -> None:
        async def answers() -> bool:
            child = self._workers[member].child
            if self._arbiter is None and child is not None and child.returncode is not None:
                raise SystemFailure(f"{member} ended with {child.returncode}\n{child.log_tail()}")
            return await self._counted(member, 2.0)

        await self._wait(f"{member} answers", answers)

    async def _takes_writes(self, url: str) -> bool:
        assert self._session is not None
        return await http.takes_writes(self._session, url, 10.0)

    async def _wait(self, what: str, condition: Callable[[], Awaitable[bool]]) -> None:
        try:
            await wait_until(f"shared-dir: {what}", condition, _DEADLINE_S)
        except TimeoutError as error:
            named = [(BALANCER, self._balancer), *((m, worker.child) for m, worker in self._workers.items())]
            tails = log_tails((name, child) for name, child in named if child)
            raise SystemFailure(f"{error}\n{tails}") from error
