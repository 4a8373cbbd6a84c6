"""Asks a system ten times a second what its members say of themselves, and writes down what changed."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

from evaluation.record import Event

if TYPE_CHECKING:
    from collections.abc import Iterable

    from evaluation.systems.interface import Observation, System

LEADING = frozenset({"leader", "primary"})


class Observer:
    """Events of one run, from `start` to `stop`."""

    def __init__(self, system: System, start_ns: int, pause_s: float = 0.1) -> None:
        self._system = system
        self._start_ns = start_ns
        self._pause_s = pause_s
        self._last: dict[str, Observation] = {}
        self._task: asyncio.Task[None] | None = None
        self.events: list[Event] = []

    def start(self) -> None:
        self._task = asyncio.create_task(self._watch())

    async def stop(self) -> None:
        """Raises what went wrong while observing: `observe` answers for dead members, it does not fail."""
        if self._task is not None:
            if not self._task.done():
                self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
            self._task = None

    async def _watch(self) -> None:
        while True:
            for observation in await self._system.observe():
                self.events += changes(self._last.get(observation.member), observation, self._start_ns)
                self._last[observation.member] = observation
            await asyncio.sleep(self._pause_s)


def changes(before: Observation | None, now: Observation, start_ns: int) -> Iterable[Event]:
    """What is new in an observation, as events. Pure."""
    at_ns = now.at_ns - start_ns
    if before is None or (before.role, before.term) != (now.role, now.term):
        kind = "leader" if now.role in LEADING else "role"
        yield Event(
            at_ns=at_ns, kind=kind, member=now.member, text=now.detail[:200], term=now.term, role=now.role
        )
    if before is not None and before.healthy != now.healthy:
        text = "healthy" if now.healthy else f"not healthy: {now.detail[:200]}"
        yield Event(at_ns=at_ns, kind="health", member=now.member, text=text, term=now.term, role=now.role)
