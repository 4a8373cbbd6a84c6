"""Simulated time: one queue of events, and clocks that each run at an offset and a rate of their own."""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


class Scheduler:
    """True time of the simulation. Events of one moment run in the order in which they were planned."""

    def __init__(self) -> None:
        self.now = 0.0
        self.steps = 0
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._count = 0

    def at(self, when_s: float, call: Callable[[], None]) -> None:
        self._count += 1
        heapq.heappush(self._events, (max(when_s, self.now), self._count, call))

    def after(self, delay_s: float, call: Callable[[], None]) -> None:
        self.at(self.now + delay_s, call)

    def run_until(self, end_s: float, done: Callable[[], bool] | None = None) -> bool:
        """Run events up to `end_s`, or until `done` holds after one: whether it does."""
        events = self._events
        while events and events[0][0] <= end_s:
            when, _, call = heapq.heappop(events)
            self.now = when
            self.steps += 1
            call()
            if done is not None and done():
                return True
        self.now = end_s
        return False


class NodeClock:
    """A monotonic clock as one machine has it; `stall_s` is time its process has spent in this step."""

    def __init__(self, scheduler: Scheduler, offset_s: float, rate: float) -> None:
        self._scheduler = scheduler
        self._offset_s = offset_s
        self._rate = rate
        self.stall_s = 0.0

    def __call__(self) -> float:
        return self._offset_s + (self._scheduler.now + self.stall_s) * self._rate

    def true_time(self, local_s: float) -> float:
        """When this clock will show `local_s`."""
        return (local_s - self._offset_s) / self._rate
