"""Reads: of the engine in worker threads, of the catalogue at once, both after their guarantee is met."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Final, TypeVar

from cluster.errors import Hidden, Refusal
from cluster.reads import Guarantee
from cluster.state.refusals import set_aside

if TYPE_CHECKING:
    from collections.abc import Callable

    from cluster.apply.applier import Applier
    from cluster.chroma.interface import Engine
    from cluster.reads import Level
    from cluster.service.health import Health
    from cluster.service.waiting import Ready, Waiting
    from cluster.state.catalog import Catalog
    from cluster.verify.alarms import Alarms

T = TypeVar("T")

#: How long a read waits for a collection that is hidden, and how often it looks.
_HIDDEN_S: Final = 10.0
_LOOK_S: Final = 0.02


class Reads:
    """Invariant: a read's token covers everything that it may have seen, also work that was under way."""

    def __init__(
        self,
        engine: Engine,
        applier: Applier,
        waiting: Waiting,
        health: Health,
        threads: int,
        alarms: Alarms,
    ) -> None:
        self._alarms = alarms
        self._engine = engine
        self._applier = applier
        self._waiting = waiting
        self._health = health
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="read")
        self._seen_index = 0

    def observe(self, index: int) -> None:
        """An answer with this log index was passed on to a client here: later session reads include it."""
        self._seen_index = max(self._seen_index, index)

    async def read(
        self,
        level: Level,
        min_index: int | None,
        max_staleness_ms: float | None,
        collection_id: str | None,
        fn: Callable[[Engine], T],
    ) -> tuple[T, int]:
        """As `cluster.api.interface.Service.read`. A refusal is an answer too: judged like one."""
        ready = await self._guaranteed(level, min_index, max_staleness_ms)

        def checked(engine: Engine) -> T:
            # Not before it is the read's turn: meanwhile the collection may have been set aside.
            self._require_readable(collection_id)
            self._alarms.require_equal(collection_id)
            return fn(engine)

        try:
            result = await self.on_engine(checked)
        except Refusal as refusal:
            refusal.log_index = self._applier.started_index(collection_id)
            self._waiting.judge(ready)
            raise
        self._waiting.judge(ready)
        return result, self._applier.started_index(collection_id)

    async def look_up(
        self,
        level: Level,
        min_index: int | None,
        max_staleness_ms: float | None,
        collection_id: str | None,
        fn: Callable[[Catalog], T],
    ) -> tuple[T, int]:
        """As `cluster.api.interface.Service.look_up`."""
        ready = await self._guaranteed(level, min_index, max_staleness_ms)
        try:
            found = fn(self._applier.catalog)
        except Refusal:
            self._waiting.judge(ready)
            raise
        self._waiting.judge(ready)
        return found, self._applier.started_index(collection_id)

    async def read_back(self, index: int, fn: Callable[[Engine], T]) -> T:
        """What the answer to a write that was applied at `index` needs; also while this node is stopping.

        Raises:
            Fault: this node is broken.
            Unavailable: it has not applied the index in time.
        """
        self._health.require_no_fault()
        await self._waiting.applied(index)
        self._alarms.require_equal(None)
        return await self.on_engine(fn)

    async def on_engine(self, fn: Callable[[Engine], T]) -> T:
        """`fn` of the engine as it is, in a worker thread.

        While its collection is hidden it waits without one: that may last, and others need the threads.
        """
        loop = asyncio.get_running_loop()
        until = loop.time() + _HIDDEN_S
        while True:
            try:
                return await loop.run_in_executor(self._threads, fn, self._engine)
            except Hidden:
                if loop.time() >= until:
                    raise
            await asyncio.sleep(_LOOK_S)

    def _require_readable(self, collection_id: str | None) -> None:
        """Raises:
        Refusal: the collection could not be read after a write that the cluster refused; trying it again
            may take the engine down, and every other collection's reads with it.
        """
        trouble = None if collection_id is None else self._applier.trouble(collection_id)
        if collection_id is not None and trouble is not None and trouble.is_broken:
            raise set_aside(collection_id, trouble)

    async def _guaranteed(self, level: Level, min_index: int | None, max_staleness_ms: float | None) -> Ready:
        self._health.require_serving()
        # A client that talks to this node without a token has the session that this node remembers.
        floor = self._seen_index if min_index is None else min_index
        return await self._waiting.guaranteed(Guarantee(level, floor, max_staleness_ms))

    def close(self) -> None:
        """Wait for reads under way and stop the worker threads."""
        self._threads.shutdown(wait=True)
