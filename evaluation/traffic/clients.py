"""Closed-loop clients: each session has one operation under way, paced, until it is told to stop."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from evaluation.history import Fate
from evaluation.traffic.decision import Session

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from evaluation.systems.interface import Entry
    from evaluation.traffic.driver import Driver
    from evaluation.traffic.mix import Mix
    from evaluation.traffic.recorder import Recorder


_PAUSE_AFTER_FAILURE_S = 0.4


@dataclass(frozen=True, slots=True)
class Pace:
    """How many clients, and how fast in all."""

    balancer_clients: int = 9
    direct_clients: int = 3
    """At each direct entry."""
    per_second: float = 140.0
    """Operations begun by all clients together, if the system keeps up."""


def sessions(entries: Sequence[Entry], levels: Sequence[str], pace: Pace) -> list[Session]:
    """Every entry has clients of every read level; one in three has its writes answered at `committed`."""
    found: list[Session] = []
    leveled = tuple(levels) != ("default",)
    for entry in entries:
        for turn in range(pace.balancer_clients if entry.member is None else pace.direct_clients):
            number = len(found)
            level = levels[turn % len(levels)]
            # Not in step with the levels: each level has sessions of both kinds of ack.
            ack = ("committed" if number % 4 == 1 else "applied") if leveled else "default"
            found.append(Session(f"s{number}-{entry.name}", number, entry.name, level, ack))
    return found


class Clients:
    """All clients of a run. `start`, then `stop`; each operation under way is waited for.

    `run` names the run: it seeds every decision, and begins every request id.
    """

    def __init__(
        self,
        mix: Mix,
        drivers: Mapping[str, Driver],
        sessions: Sequence[Session],
        recorder: Recorder,
        *,
        run: str,
        per_second: float,
    ) -> None:
        self._mix = mix
        self._drivers = drivers
        self._sessions = sessions
        self._recorder = recorder
        self._run_name = run
        self._pause_s = len(sessions) / per_second
        self._stopping = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        self._tasks = [asyncio.create_task(self._run(session)) for session in self._sessions]

    def failed(self) -> BaseException | None:
        """A client's own error, which would spoil the run."""
        for task in self._tasks:
            if task.done() and not task.cancelled() and task.exception() is not None:
                return task.exception()
        return None

    async def stop(self, deadline_s: float = 30.0) -> None:
        """After this nobody sends anything. Raises a client's own error."""
        self._stopping.set()
        if not self._tasks:
            return
        _, late = await asyncio.wait(self._tasks, timeout=deadline_s)
        for task in late:
            task.cancel()
        done = await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks = []
        for outcome in done:
            if isinstance(outcome, Exception):
                raise outcome

    async def _run(self, session: Session) -> None:
        rng = random.Random(f"{self._run_name}/{session.number}")
        driver = self._drivers[session.entry]
        process = self._recorder.new_process()
        due = time.monotonic() + rng.random() * self._pause_s
        while not self._stopping.is_set():
            wait_s = due - time.monotonic()
            if wait_s > 0:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._stopping.wait(), wait_s)
                if self._stopping.is_set():
                    return
            # Not faster after a slow answer: a closed loop that catches up would make bursts.
            due = max(due, time.monotonic() - self._pause_s) + self._pause_s * rng.uniform(0.5, 1.5)
            decision = self._mix.next(session, rng)
            request_id = f"{self._run_name}.{len(self._recorder.operations)}"
            operation = self._recorder.invoke(session, process, decision, request_id)
            answer = await driver.do(session, decision, request_id)
            done = self._recorder.complete(operation, answer)
            self._mix.answered(session, decision, done.outcome, answer.value)
            if done.is_write and done.outcome is Fate.UNKNOWN:
                process = self._recorder.new_process()
            if done.outcome is not Fate.OK:
                # Who fails at once would ask again at once: that is load, not traffic, and each unknown
                # write makes the history harder to judge.
                due = max(due, time.monotonic() + _PAUSE_AFTER_FAILURE_S)
