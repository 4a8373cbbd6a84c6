"""The closed loop by which all costs are measured: so many clients, each with one request under way."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    Call: TypeAlias = Callable[[int, int], Awaitable[str]]
    """One request of a client's turn, timed as it is awaited: "" if it was answered, else what went wrong."""


@dataclass
class Measured:
    """Requests that were answered, their latencies (ms), and how often what else came back."""

    seconds: float
    latencies_ms: list[float] = field(default_factory=list[float])
    errors: dict[str, int] = field(default_factory=dict[str, int])

    @property
    def per_second(self) -> float:
        return len(self.latencies_ms) / self.seconds

    def percentile(self, q: float) -> float:
        """Interpolated between the two nearest latencies, unlike `evaluation.quantiles`: so that figures stay
        comparable with those of results that were saved before."""
        return float(np.percentile(self.latencies_ms, q)) if self.latencies_ms else float("nan")


async def drive(clients: int, seconds: float, call: Call) -> Measured:
    """Each client begins its next turn at the answer, until the time is over; then all are waited for."""
    measured = Measured(seconds)
    began = time.monotonic()

    async def one(client: int) -> None:
        turn = 0
        while time.monotonic() < began + seconds:
            request = call(client, turn)
            turn += 1
            start = time.monotonic()
            error = await request
            if error:
                measured.errors[error] = measured.errors.get(error, 0) + 1
            else:
                measured.latencies_ms.append((time.monotonic() - start) * 1000)

    await asyncio.gather(*(one(client) for client in range(clients)))
    measured.seconds = time.monotonic() - began
    return measured
