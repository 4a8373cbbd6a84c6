"""Processes of the systems under test: started with a log file, known by pid, always stopped and reaped."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import subprocess
import time
from typing import TYPE_CHECKING

import psutil

from cluster.cli.ports import choose_ports, leave_port, shuffled_ports, take_port

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence
    from pathlib import Path


_REMEMBERED = 2_000
"""So many ports are given before one is given again: those of some fifty runs."""

_given: dict[int, None] = {}


def free_port() -> int:
    """A port that was free a moment ago, below the range of outgoing connections; not again for a long time.

    For as long no other process that asks here, nor an `up` that founds a cluster, gets it.

    In that range, while the server is down, an outgoing connection could sit on its port, and who dials it
    could even be connected to itself.
    """
    port = choose_ports(
        1, shuffled_ports(random.Random()), lambda port: port not in _given and take_port(port)
    )[0]
    _given[port] = None
    if len(_given) > _REMEMBERED:  # a campaign of many runs must not end for want of ports
        oldest = next(iter(_given))
        del _given[oldest]
        leave_port(oldest)
    return port


def free_ports(count: int) -> list[int]:
    """So many of them."""
    return [free_port() for _ in range(count)]


class Child:
    """One child process with its descendants, its output in `log`."""

    def __init__(
        self,
        command: Sequence[str],
        log: Path,
        env: Mapping[str, str] | None = None,
        *,
        cwd: Path | None = None,
        uid: int | None = None,
    ) -> None:
        """Starts it at once. `uid`: run as this user (only where the caller is root)."""
        self.command = tuple(command)
        self.log = log
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as output:
            self._popen = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=None if env is None else dict(env),
                cwd=cwd,
                start_new_session=True,
                user=uid,
                group=uid,
                extra_groups=None if uid is None else [],
            )
        self._known: dict[int, psutil.Process] = {}

    @property
    def pid(self) -> int:
        return self._popen.pid

    @property
    def returncode(self) -> int | None:
        return self._popen.poll()

    def pids(self) -> list[int]:
        """Itself and all descendants that live. Remembers them: those of a killed parent are still found."""
        with contextlib.suppress(psutil.NoSuchProcess):
            parent = psutil.Process(self.pid)
            for process in [parent, *parent.children(recursive=True)]:
                self._known.setdefault(process.pid, process)
        alive = [pid for pid, process in self._known.items() if _lives(process)]
        if self.pid not in alive:
            # It is a zombie at most: nobody may ask again, and it must not stay one.
            self._popen.wait(timeout=10)
        return alive

    def signal(self, signum: int) -> None:
        """To the whole tree, parent first."""
        for pid in self.pids():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signum)

    def kill(self, deadline_s: float = 10.0) -> None:
        """kill -9 of the whole tree, and reap it."""
        end = time.monotonic() + deadline_s
        while self.pids():
            self.signal(signal.SIGKILL)
            if time.monotonic() > end:
                raise TimeoutError(f"processes {self.pids()} of {self.command[0]} outlive SIGKILL")
            time.sleep(0.01)
        self._popen.wait(timeout=deadline_s)

    def stop(self, deadline_s: float = 10.0) -> None:
        """SIGTERM to the parent, SIGKILL to what is left after the deadline; paused ones are woken first."""
        self.signal(signal.SIGCONT)
        self._popen.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._popen.wait(timeout=deadline_s)
        self.kill()

    def log_tail(self, lines: int = 30) -> str:
        text = self.log.read_text(errors="replace") if self.log.exists() else ""
        return "\n".join(text.splitlines()[-lines:])


def _lives(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


async def wait_until(
    what: str,
    condition: Callable[[], Awaitable[bool]],
    deadline_s: float,
    *,
    pause_s: float = 0.05,
    context: Callable[[], str] = lambda: "",
) -> None:
    """Ask `condition` until it holds.

    Raises:
        TimeoutError: it did not within `deadline_s`; the message has `what` and `context()`.
    """
    end = time.monotonic() + deadline_s
    while not await condition():
        if time.monotonic() > end:
            raise TimeoutError(f"waited {deadline_s} s for {what}. {context()}".rstrip())
        await asyncio.sleep(pause_s)
