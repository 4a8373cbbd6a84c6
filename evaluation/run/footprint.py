"""What a running system takes: processes, memory, bytes on disk."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import psutil

if TYPE_CHECKING:
    from pathlib import Path

    from evaluation.systems.interface import System


def footprint(system: System) -> dict[str, Any]:
    """Of each member and every other process of the system; what two of them share counts once."""
    memory: dict[str, float] = {}
    processes: dict[str, int] = {}
    counted: set[int] = set()
    threads = 0
    for participant in participants(system):
        pids = set(system.pids(participant)) - counted
        counted |= pids
        if pids:
            processes[participant] = len(pids)
            memory[participant] = round(sum(_memory_mib(pid) for pid in pids), 1)
            threads += sum(_threads(pid) for pid in pids)
    sizes: dict[str, int] = {}
    seen: set[Path] = set()
    for member in system.members:
        folder = system.disk(member).resolve()
        if folder not in seen:  # the workers of `shared-dir` have one folder together
            seen.add(folder)
            sizes[member] = disk_bytes(folder)
    return {"memory_mib": memory, "processes": processes, "threads": threads, "disk_bytes": sizes}


def participants(system: System) -> list[str]:
    """Members first, then whoever else of the system has processes."""
    named = [*system.members]
    for link in system.links:
        named += [link.dialer, link.acceptor]
    named += [*system.beside, "balancer", "agent", "supervisor"]
    found: list[str] = []
    for name in dict.fromkeys(named):
        # Clients take part too, but are no processes of the system, which therefore does not know them.
        with contextlib.suppress(KeyError):
            if system.pids(name):
                found.append(name)
    return found


def disk_bytes(folder: Path) -> int:
    """Allocated bytes of all files below a folder; of files that vanish meanwhile, nothing."""
    total = 0
    for path in folder.rglob("*"):
        with contextlib.suppress(OSError):
            if path.is_file() and not path.is_symlink():
                total += path.stat().st_blocks * 512
    return total


def _memory_mib(pid: int) -> float:
    """What the process has for itself: pages that several processes share count once, in parts."""
    try:
        return psutil.Process(pid).memory_full_info().pss / 2**20
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return 0.0


def _threads(pid: int) -> int:
    try:
        return psutil.Process(pid).num_threads()
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return 0
