"""One node without Raft, in this process: the real machine, engine and API over a log in memory.

For tests of the HTTP surface that need no replication. Everything but the log is the real thing.
"""

from __future__ import annotations

import asyncio
import hashlib
import threading
import time
import uuid
from typing import TYPE_CHECKING, Any

import numpy as np
from aiohttp import web

from cluster.api.app import SERVER_OPTIONS, create_app
from cluster.apply.remembering import remember
from cluster.chroma.embedded import EmbeddedEngine
from cluster.chroma.oracle import Oracle
from cluster.chroma.scratch import Scratch
from cluster.errors import Refusal
from cluster.peers import Peers
from cluster.service.guard import Guard
from cluster.state.catalog import Outcome
from cluster.state.commands import Group, Proposal
from cluster.state.machine import Machine
from cluster.state.work import Call, Remember, Resolve
from wire.door import Door
from wire.prover import Prover

if TYPE_CHECKING:
    from pathlib import Path

MEBIBYTE = 1024 * 1024


class SingleService:
    """`cluster.api.interface.Service` over a log in memory that commits at once."""

    def __init__(self, directory: Path) -> None:
        self.node_id = "node-1"
        self.allow_reset = True
        self.max_request_bytes = 40 * MEBIBYTE
        self.reason: str | None = None
        self.leader = True
        self.leader_at: str | None = None
        self.leader_name: str | None = "node-2"
        self.observed: list[int] = []
        self.failing: Exception | None = None
        """What reading back for the answer to a write fails with."""
        self.scratch = Scratch()
        self.oracle = Oracle()
        self.admits_strangers = True
        self.door = Door(b"", lambda: "0" * 32)
        self.prover = Prover(b"")
        self.guard = Guard(self.node_id, Peers(timeout_ms=1000, prover=self.prover), [])
        self._engine = EmbeddedEngine(directory)
        self._machine = Machine.load([])
        self._index = 0
        self._lock = threading.Lock()

    @property
    def catalog(self) -> Any:
        return self._machine.catalog

    def is_leader(self) -> bool:
        return self.leader

    def leader_id(self) -> str | None:
        return "node-1" if self.leader else self.leader_name

    def leader_trouble(self) -> str | None:
        return None

    def leader_url(self) -> str | None:
        return self.leader_at

    def observe(self, index: int) -> None:
        self.observed.append(index)

    async def write(self, command: Any, *, key: str | None, digest: bytes, ack: str) -> tuple[Outcome, int]:
        request_id = f"k:{key}" if key is not None else f"r:{uuid.uuid4().hex}"
        del ack  # a log in memory commits and applies at once
        return await asyncio.to_thread(self._apply, Proposal(request_id, digest, command))

    async def read(
        self, level: Any, min_index: Any, max_staleness_ms: Any, collection_id: Any, fn: Any
    ) -> tuple[Any, int]:
        del level, min_index, max_staleness_ms, collection_id
        return await asyncio.to_thread(fn, self._engine), self._index

    async def look_up(
        self, level: Any, min_index: Any, max_staleness_ms: Any, collection_id: Any, fn: Any
    ) -> tuple[Any, int]:
        del level, min_index, max_staleness_ms, collection_id
        return fn(self.catalog), self._index

    async def read_back(self, index: int, fn: Any) -> Any:
        del index
        if self.failing is not None:
            raise self.failing
        return await asyncio.to_thread(fn, self._engine)

    async def embed(
        self, collection_id: str, texts: Any, *, query: bool = False
    ) -> tuple[list[bytes], str, int]:
        """Three numbers from a hash of the text: enough to see that vectors were made from it."""
        del query
        if self.catalog.collection(collection_id) is None:
            raise Refusal(404, "NotFoundError", f"Collection [{collection_id}] does not exist.")
        return [_vector(text) for text in texts], "hash:1:0", 3

    async def close(self) -> None:
        await self.oracle.close()
        self.scratch.close()
        self._engine.close()

    def _apply(self, proposal: Proposal) -> tuple[Outcome, int]:
        with self._lock:
            self._index += 1
            entries = [(self._index, Group(int(time.time() * 1000), (proposal,)))]
            decided: tuple[Outcome, int] | None = None
            while (step := self._machine.next_step(entries)) is not None:
                try:
                    if isinstance(step.work, Resolve):
                        step = self._machine.resolved(step, self._engine.resolve(step.work))
                    elif isinstance(step.work, Remember):
                        step = self._machine.remembered(step, remember(self._engine, step.work))
                    elif isinstance(step.work, Call):
                        self._engine.apply(step.work)
                except Refusal as refusal:
                    body = {"error": refusal.error, "message": refusal.message}
                    step = self._machine.refused(step, Outcome(refusal.status, body))
                    if step is None:
                        continue
                self._machine.commit(step)
                for _, outcome, index in step.outcomes:
                    decided = (outcome, index)
            assert decided is not None
            return decided


def _vector(text: str) -> bytes:
    digest = hashlib.blake2b(text.encode(), digest_size=3).digest()
    return np.frombuffer(digest, dtype=np.uint8).astype("<f4").tobytes()


class SingleNode:
    """The service behind real HTTP on a loopback port, on an event loop in a thread of its own."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._stop = asyncio.Event()
        self.url = ""
        self.service: SingleService
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="single-node")

    def __enter__(self) -> SingleNode:
        self._thread.start()
        assert self._ready.wait(60)
        if self._error is not None:
            raise self._error
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(60)

    def _run(self) -> None:
        try:
            self._loop.run_until_complete(self._serve())
        except BaseException as error:
            self._error = error
        finally:
            self._ready.set()
            self._loop.close()

    async def _serve(self) -> None:
        self.service = SingleService(self._directory)
        runner = web.AppRunner(create_app(self.service), **SERVER_OPTIONS)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        port = runner.addresses[0][1]
        self.url = f"http://127.0.0.1:{port}"
        self._ready.set()
        await self._stop.wait()
        await runner.cleanup()
        await self.service.close()
