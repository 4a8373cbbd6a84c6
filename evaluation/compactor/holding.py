"""From when to when a worker had the lock, or believed that it had. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Holding:
    """Times from the run's start."""

    worker: str
    token: int
    locked_ns: int
    expires_ns: int
    ended_ns: int | None
    """When it was done or gave up; None for one that was killed."""
    end: str
    """done, refused, idle, killed."""
    paused_ns: int | None = None
    awake_ns: int | None = None

    @property
    def is_disturbed(self) -> bool:
        """It outlived its lease, though nothing was done to its worker."""
        struck = self.paused_ns is not None or self.end == "killed"
        return not struck and (self.ended_ns is None or self.ended_ns > self.expires_ns)

    def in_words(self) -> str:
        lasted_ms = None if self.ended_ns is None else (self.ended_ns - self.locked_ns) / 1e6
        lease_ms = (self.expires_ns - self.locked_ns) / 1e6
        held = "until it was killed" if lasted_ms is None else f"for {lasted_ms:.0f} ms"
        return f"held lock {self.token} {held}, lease {lease_ms:.0f} ms: {self.end}"


def holdings(steps: list[dict[str, Any]], start_ns: int) -> list[Holding]:
    """Who had the lock when, from the workers' own reports."""
    open_: dict[str, dict[str, Any]] = {}
    found: list[Holding] = []

    def close(worker: str, ended_ns: int | None, end: str) -> None:
        known = open_.pop(worker, None)
        if known is not None:
            found.append(Holding(worker=worker, ended_ns=ended_ns, end=end, **known))

    for step in sorted(steps, key=lambda step: int(step["at_ns"])):
        at_ns, worker, what = int(step["at_ns"]) - start_ns, str(step["worker"]), str(step["step"])
        if what == "locked":
            expires_ns = at_ns + int(float(step["expires_in_ms"]) * 1e6)
            open_[worker] = {"token": step["token"], "locked_ns": at_ns, "expires_ns": expires_ns}
        elif what == "pause" and worker in open_:
            open_[worker]["paused_ns"] = at_ns
        elif what == "awake" and worker in open_:
            open_[worker]["awake_ns"] = at_ns
        elif what == "kill":
            close(worker, None, "killed")
        elif what in ("done", "refused", "idle"):
            close(worker, at_ns, what)
    return sorted(found, key=lambda holding: holding.locked_ns)
