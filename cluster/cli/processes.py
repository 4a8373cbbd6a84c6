"""Processes that are surely ours: a pid file names one by pid and start, and only that one is signalled.

A pid alone may by now belong to a stranger (reuse, or a reboot). The moment at which the process was
started, as the kernel tells it, makes it unique.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

POLL_S: Final = 0.02


@dataclass(frozen=True, slots=True)
class Identity:
    """One process: its pid, and when it started in the kernel's own words."""

    pid: int
    started: str

    @property
    def alive(self) -> bool:
        """Does exactly this process still run?"""
        return identify(self.pid) == self


def identify(pid: int) -> Identity | None:
    """Who runs under `pid` now, or None: nobody, or a zombie (dead, but not yet collected by its parent)."""
    if pid <= 0:
        return None
    started = _started_by_proc(pid) if Path("/proc/self/stat").exists() else _started_by_ps(pid)
    return Identity(pid, started) if started else None


def _started_by_proc(pid: int) -> str | None:
    try:
        text = Path(f"/proc/{pid}/stat").read_text(errors="replace")
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return None
    return parse_stat(text, boot)


def parse_stat(text: str, boot: str) -> str | None:
    """The start of the process that this `/proc/PID/stat` is about, or None if it is dead."""
    # The second field is the command's name in parentheses, which may itself hold blanks and parentheses.
    fields = text.rpartition(")")[2].split()
    if len(fields) < 20 or fields[0] in "ZXx":
        return None
    return f"{boot}/{fields[19]}"


def _started_by_ps(pid: int) -> str | None:
    """As /proc tells on Linux, by `ps` where there is no /proc (macOS, BSD)."""
    command = ["ps", "-o", "stat=,lstart=", "-p", str(pid)]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    state, _, started = answer.stdout.strip().partition(" ")
    return started.strip() if state and not state.startswith("Z") else None


def write_pid_file(path: Path, process: Identity) -> None:
    """Record `process` in `path`, at once or not at all. The first line is the pid."""
    temporary = path.with_suffix(".tmp")
    temporary.write_text(f"{process.pid}\n{process.started}\n")
    os.replace(temporary, path)


def recorded(path: Path) -> Identity | None:
    """The process that a pid file names, whether it still runs or not; None without a readable file."""
    try:
        pid, started, *_ = path.read_text().splitlines()
        return Identity(int(pid), started)
    except (OSError, ValueError):
        return None


def running(path: Path) -> Identity | None:
    """The process that a pid file names, if exactly that process runs."""
    process = recorded(path)
    return process if process is not None and process.alive else None


def send(process: Identity, number: signal.Signals) -> bool:
    """Signal exactly this process; False if it does not run any more."""
    if hasattr(os, "pidfd_open"):
        # The descriptor keeps to the process: between the look and the signal no stranger can take the pid.
        try:
            descriptor = os.pidfd_open(process.pid)
        except ProcessLookupError:
            return False
        except OSError:
            pass  # an old kernel or a strict sandbox: the plain way below
        else:
            try:
                if not process.alive:
                    return False
                signal.pidfd_send_signal(descriptor, number)
                return True
            except ProcessLookupError:
                return False
            finally:
                os.close(descriptor)
    if not process.alive:
        return False
    try:
        os.kill(process.pid, number)
    except ProcessLookupError:
        return False
    return True


def stop(
    processes: Iterable[Identity],
    *,
    timeout_s: float,
    hurry: Callable[[], bool] = lambda: False,
) -> tuple[Identity, ...]:
    """Ask all to end, wait, and kill the rest at the deadline or when `hurry()`; those that were killed.

    On return none of them runs.

    Raises:
        PermissionError: one of them belongs to another user.
        TimeoutError: the kernel does not let one of them die (it waits on a dead disk, for example).
    """
    waiting = [process for process in processes if send(process, signal.SIGTERM)]
    for process in waiting:
        send(process, signal.SIGCONT)  # a suspended process could not hear SIGTERM
    deadline = time.monotonic() + timeout_s
    while waiting and time.monotonic() < deadline and not hurry():
        time.sleep(POLL_S)
        waiting = [process for process in waiting if process.alive]
    killed = tuple(process for process in waiting if send(process, signal.SIGKILL))
    deadline = time.monotonic() + 10
    while any(process.alive for process in killed):
        if time.monotonic() > deadline:
            pids = ", ".join(str(process.pid) for process in killed if process.alive)
            raise TimeoutError(f"pid {pids} got SIGKILL and still exists after 10 s")
        time.sleep(POLL_S)
    return killed


def forget(path: Path) -> None:
    """Remove a pid file."""
    with contextlib.suppress(FileNotFoundError):
        path.unlink()
