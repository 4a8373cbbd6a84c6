"""A process that this command started, and how it ended."""

from __future__ import annotations

import signal
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cluster.cli.logs import log_tail
from cluster.cli.plan import BALANCER

if TYPE_CHECKING:
    import subprocess
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class Child:
    """A process that this supervisor started, and where in its log it began to write."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path
    log_start: int

    def death(self) -> Death | None:
        """How it ended, or None while it runs."""
        code = self.process.poll()
        return None if code is None else Death(self.name, code, log_tail(self.log, self.log_start))


@dataclass(frozen=True, slots=True)
class Death:
    """How a process ended: exit code (below 0: minus the signal) and the end of what it printed."""

    name: str
    code: int
    tail: str

    def __str__(self) -> str:
        if self.code < 0:
            how = f"was killed by {signal.Signals(-self.code).name}"
        else:
            how = f"ended with exit code {self.code}"
        name = "The balancer" if self.name == BALANCER else self.name
        return f"{name} {how}" + (f"; the end of its log:\n{self.tail}" if self.tail else "")
