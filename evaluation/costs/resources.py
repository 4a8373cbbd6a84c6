"""What a running system takes: processes, memory (PSS, so that shared pages count once), disk."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import psutil

if TYPE_CHECKING:
    from pathlib import Path

    from evaluation.systems.interface import System

_MIB = 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Resources:
    """By member or other participant, and in all."""

    memory_mib: dict[str, float]
    processes: dict[str, int]
    threads: int
    disk_mib: dict[str, float]


def participants(system: System) -> list[str]:
    """Members, then whoever else of the system has processes."""
    named = [*system.members]
    for link in system.links:
        named += [link.dialer, link.acceptor]
    named += list(system.beside)
    found: list[str] = []
    for name in dict.fromkeys(named):
        # A client is a participant too, but no process of the system: the system does not know it.
        with contextlib.suppress(KeyError):
            if system.pids(name):
                found.append(name)
    return found


def take(system: System) -> Resources:
    """Now. A process that ends meanwhile is left out."""
    memory: dict[str, float] = {}
    processes: dict[str, int] = {}
    threads = 0
    counted: set[int] = set()
    for name in participants(system):
        pids = [pid for pid in system.pids(name) if pid not in counted]
        counted.update(pids)
        total = 0
        for pid in pids:
            with contextlib.suppress(psutil.NoSuchProcess):
                process = psutil.Process(pid)
                total += process.memory_full_info().pss
                threads += process.num_threads()
        memory[name] = round(total / _MIB, 1)
        processes[name] = len(pids)
    return Resources(memory_mib=memory, processes=processes, threads=threads, disk_mib=_disks(system))


def _disks(system: System) -> dict[str, float]:
    sizes: dict[str, float] = {}
    seen: set[Path] = set()
    for member in system.members:
        folder = system.disk(member).resolve()
        if folder not in seen:
            seen.add(folder)
            sizes[member] = round(allocated(folder) / _MIB, 1)
    return sizes


def allocated(folder: Path) -> int:
    """Bytes on disk, as `du` counts them."""
    total = 0
    for path in folder.rglob("*"):
        with contextlib.suppress(FileNotFoundError):
            stat = path.lstat()
            total += stat.st_blocks * 512
    return total
