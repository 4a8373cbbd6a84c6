"""Closed-loop proposals to one raft node: so many under way at once, each timed from call to commit.

Not the driver of `evaluation.costs.closed_loop`: here a load is a number of proposals and not a time, and a
thread of the node says by callback how each has ended.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable

Done: TypeAlias = "Callable[[str | None], None]"
"""To be called once a proposal is committed (None) or failed (what the failure is called)."""


@dataclass(frozen=True)
class Load:
    """One way to drive a node."""

    in_flight: int
    size_bytes: int
    count: int

    @property
    def name(self) -> str:
        if self.size_bytes % (1 << 20):
            return f"{self.in_flight} x {self.size_bytes / 1024:.0f} KB"
        return f"{self.in_flight} x {self.size_bytes >> 20} MiB"


@dataclass(frozen=True)
class Driven:
    """What came of a load: `unanswered` proposals had neither a commit nor a failure in time."""

    latencies_ms: list[float]
    seconds: float
    errors: dict[str, int]
    unanswered: int

    @property
    def per_second(self) -> float:
        return len(self.latencies_ms) / self.seconds


def drive(propose: Callable[[Done], None], load: Load, timeout_s: float) -> Driven:
    """Keep `load.in_flight` proposals under way until all are answered or the time is over."""
    slots = threading.Semaphore(load.in_flight)
    lock = threading.Lock()
    latencies_ms: list[float] = []
    errors: Counter[str] = Counter()
    began = time.perf_counter()
    end = began + timeout_s

    def one() -> None:
        proposed = time.perf_counter()

        def done(error: str | None) -> None:
            took_ms = (time.perf_counter() - proposed) * 1000
            with lock:
                if error is None:
                    latencies_ms.append(took_ms)
                else:
                    errors[error] += 1
            slots.release()

        propose(done)

    def wait() -> bool:
        return slots.acquire(timeout=max(0.0, end - time.perf_counter()))

    is_in_time = True
    for _ in range(load.count):
        is_in_time = wait()
        if not is_in_time:
            break
        one()
    for _ in range(load.in_flight):
        is_in_time = is_in_time and wait()
    with lock:
        seconds = time.perf_counter() - began
        unanswered = load.count - len(latencies_ms) - errors.total()
        return Driven(latencies_ms.copy(), seconds, dict(errors), unanswered)
