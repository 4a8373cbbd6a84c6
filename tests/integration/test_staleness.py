"""No answered read is older than its bound: over slow links, after freezes, direct and balanced."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import aiohttp
import pytest

from evaluation.systems.cluster import Cluster
from evaluation.systems.proxies import Toxic
from tests.integration.evaluation_client import Documents, Started, started

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

pytestmark = pytest.mark.slow
BOUND_S = 0.3
LB = "lb"


@dataclass
class Read:
    entry: str
    began_s: float
    ended_s: float
    value: int | None
    """None: refused. 0: the collection is empty; -1: it is not there."""


@dataclass
class Counter:
    """One number that only grows, read everywhere while it does."""

    documents: Documents
    acknowledged: list[tuple[float, int]] = field(default_factory=list[tuple[float, int]])
    reads: list[Read] = field(default_factory=list[Read])

    async def write(self) -> None:
        number = 0
        while True:
            number += 1
            if await self.documents.upsert(LB, "counter", str(number)) in (200, 201):
                self.acknowledged.append((time.monotonic(), number))

    async def read(self, entry: str) -> None:
        started, path = self.documents.started, f"{self.documents.path}/get"
        headers = {"X-Chroma-Consistency": "eventual", "X-Max-Staleness-Ms": str(int(BOUND_S * 1000))}
        body = {"ids": ["counter"], "include": ["documents"]}
        while True:
            began_s = time.monotonic()
            with contextlib.suppress(aiohttp.ClientConnectionError):
                status, raw = await started.ask(entry, "POST", path, body, headers)
                assert status in (200, 404, 503, 504), raw
                # Not found: this copy is from before the collection, which may be within the bound too.
                value = -1 if status == 404 else None
                if status == 200:
                    value = int(raw["documents"][0]) if raw["ids"] else 0
                self.reads.append(Read(entry, began_s, time.monotonic(), value))
            await asyncio.sleep(0.02)

    def assert_fresh(self) -> None:
        too_old = [
            (read.entry, f"{(read.began_s - at) * 1000:.0f} ms")
            for read in self.reads
            for at, number in self.acknowledged
            if read.value is not None and at < read.began_s - BOUND_S and read.value < number
        ]
        assert not too_old, f"{len(too_old)} reads miss older writes, e.g. {too_old[:5]}"

    def answered(self, entry: str, since_s: float) -> int:
        return sum(r.entry == entry and r.began_s >= since_s and r.value is not None for r in self.reads)


async def until(what: str, condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, f"waited 60 s for {what}"
        await asyncio.sleep(0.02)


async def answered_everywhere(counter: Counter, entries: tuple[str, ...]) -> None:
    """Reads begun from now on have been answered at each entry, and writes acknowledged."""
    now, written = time.monotonic(), len(counter.acknowledged)
    await until("answers", lambda: all(counter.answered(entry, now) > 2 for entry in entries))
    await until("writes", lambda: len(counter.acknowledged) > written + 2)


@contextlib.asynccontextmanager
async def counting(running: Started) -> AsyncIterator[Counter]:
    """One writer; readers at the balancer and, several at once, at every node."""
    counter = Counter(await running.collection(LB, "counters"))
    counter.acknowledged.append((time.monotonic(), 0))
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(counter.write())]
        for entry in (LB, *running.system.members):
            tasks += [group.create_task(counter.read(entry)) for _ in range(2)]
        yield counter
        for task in tasks:
            task.cancel()


async def freeze(running: Started, member: str, counter: Counter, seconds: float) -> None:
    """SIGSTOP of a node, for `seconds` and until others acknowledge writes for longer than the bound."""
    pids = running.system.pids(member)
    began_s = time.monotonic()
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        await asyncio.sleep(seconds)
        await until("writes beside", lambda: counter.acknowledged[-1][0] > began_s + 3 * BOUND_S)
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


async def slow_link(running: Started, counter: Counter, leader: str, follower: str) -> None:
    """A second each way: the follower hears of everything, too late."""
    link = "raft.{}.{}".format(*sorted((leader, follower), reverse=True))
    ways = [Toxic(f"late-{way}", "latency", way, {"latency": 1000}) for way in ("upstream", "downstream")]
    for toxic in ways:
        await running.proxies.add(link, toxic)
    began_s = time.monotonic() + 2 * BOUND_S  # by then all that was sent in time is older than the bound
    refusals = counter.reads

    def refused() -> int:
        return sum(r.entry == follower and r.began_s > began_s and r.value is None for r in refusals)

    await until("refusals", lambda: refused() > 10)
    assert counter.answered(follower, began_s) == 0
    await until("answers by others", lambda: counter.answered(LB, began_s) > 10)
    for toxic in ways:
        await running.proxies.remove(link, toxic.name)


def test_no_answer_is_older_than_its_bound(tmp_path: Path) -> None:
    async def body() -> None:
        async with started(Cluster(), tmp_path) as running:
            members = running.system.members
            async with counting(running) as counter:
                await answered_everywhere(counter, (LB, *members))
                leader = await running.system.leader()
                assert leader is not None
                near, far = [member for member in members if member != leader]
                await slow_link(running, counter, leader, far)
                await freeze(running, near, counter, 1.5)
                await answered_everywhere(counter, (LB, *members))
                leader = await running.system.leader()
                assert leader is not None
                await freeze(running, leader, counter, 0.5)
                await answered_everywhere(counter, (LB, *members))
            counter.assert_fresh()

    run(body)


def run(body: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(body())  # type: ignore[arg-type]
