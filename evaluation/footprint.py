"""What a running system takes: processes, memory, bytes on disk."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import psutil

if TYPE_CHECKING:
    from pathlib import Path

    from evaluation.systems.interface import System


def footprint(system: System) -> dict[str, Any]:
    """Of each member and every other process of the system."""
    memory: dict[str, float] = {}
    processes: dict[str, int] = {}
    participants = [*system.members, *(name for name in system.beside if name not in system.members)]
    for extra in ("balancer", "agent", "supervisor"):
        if extra not in participants:
            participants.append(extra)
    for participant in participants:
        try:
            pids = system.pids(participant)
        except KeyError:  # this system has no such process
            continue
        if pids:
            processes[participant] = len(pids)
            memory[participant] = round(sum(_memory_mib(pid) for pid in pids), 1)
    return {
        "memory_mib": memory,
        "processes": processes,
        "disk_bytes": {member: disk_bytes(system.disk(member)) for member in system.members},
    }


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
