"""A look at another process through /proc: does it run, is it stopped, what has it done."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from cluster.chroma.watchdog import Sample

#: Of a `stat` file, behind the name: as far as the processor times.
_FIELDS: Final = 13


def glance(pid: int) -> Sample | None:
    """Whether the process is stopped, and no more: one file is read. None if it is gone."""
    state = _state(Path(f"/proc/{pid}/stat"))
    return None if state is None else Sample(0, stopped=state[0] == "T")


def look(pid: int) -> Sample | None:
    """What all threads of the process do and have done; None if it is gone."""
    states: list[str] = []
    work = 0
    try:
        tasks = os.listdir(f"/proc/{pid}/task")
    except OSError:
        return None
    for task in tasks:
        state = _state(Path(f"/proc/{pid}/task/{task}/stat"))
        if state is not None:
            states.append(state[0])
    whole = _state(Path(f"/proc/{pid}/stat"))
    if whole is None or not states:
        return None
    work = whole[1] + _io(pid)
    return Sample(work, all(state == "T" for state in states), "R" in states, "D" in states)


def _state(path: Path) -> tuple[str, int] | None:
    """State and processor time (clock ticks) from a `stat` file."""
    try:
        # The name in parentheses may have any character in it.
        fields = path.read_text().rpartition(")")[2].split()
    except OSError:
        return None
    if len(fields) < _FIELDS:
        return None  # it ended while it was looked at
    return fields[0], int(fields[11]) + int(fields[12])


def _io(pid: int) -> int:
    """Bytes and calls of reading and writing; 0 where they are not shown."""
    try:
        lines = Path(f"/proc/{pid}/io").read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.rpartition(" ")[2]) for line in lines)
