"""A write to each entry, again and again while a fault lasts, whatever became of the last one.

Clients wait for their answers, some of them as long as they can: they would tell late that an entry takes
writes again, or that it refuses them. Each probe writes a document of its own.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from evaluation.history import Action
from evaluation.traffic.decision import Decision, Session

if TYPE_CHECKING:
    from collections.abc import Mapping

    from evaluation.traffic.driver import Driver
    from evaluation.traffic.recorder import Recorder

#: Begins the names of the probes' sessions and of their documents.
PREFIX = "probe"


class Probes:
    """From `start` to `stop`. They count as operations of the workload `register`."""

    def __init__(
        self, recorder: Recorder, drivers: Mapping[str, Driver], run: str, ack: str, pause_s: float = 0.3
    ) -> None:
        self._recorder = recorder
        self._drivers = drivers
        self._run = run
        self._ack = ack
        self._pause_s = pause_s
        self._tasks: set[asyncio.Task[None]] = set()
        self._ticking: list[asyncio.Task[None]] = []
        self._keys: list[str] = []

    def start(self) -> None:
        self._ticking = [asyncio.create_task(self._tick(entry)) for entry in self._drivers]

    async def stop(self) -> None:
        """Probes under way are waited for."""
        for task in self._ticking:
            task.cancel()
        await asyncio.gather(*self._ticking, return_exceptions=True)
        await asyncio.gather(*self._tasks)
        self._ticking = []

    def final(self) -> list[Decision]:
        """The reads that show what became of them."""
        return [Decision("register", Action.GET, key) for key in self._keys]

    async def _tick(self, entry: str) -> None:
        while True:
            task = asyncio.create_task(self._probe(entry))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
            await asyncio.sleep(self._pause_s)

    async def _probe(self, entry: str) -> None:
        number = len(self._keys)
        key = f"{PREFIX}-{number}"
        self._keys.append(key)
        # A session of its own too: a session has one operation under way.
        session = Session(f"{key}-{entry}", 0, entry, "default", self._ack)
        decision = Decision("register", Action.UPSERT, key, f"p{number}")
        request_id = f"{self._run}.p{number}"
        operation = self._recorder.invoke(session, self._recorder.new_process(), decision, request_id)
        self._recorder.complete(operation, await self._drivers[entry].do(session, decision, request_id))
