"""How fast something goes, and how fast it may go; pure."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Final

_WINDOW_S: Final = 5.0
_BURST_S: Final = 0.25


@dataclass(slots=True)
class Limit:
    """At most `rate` bytes a second (0: no limit), over all who ask."""

    rate: int
    _free_at: float = 0.0

    def wait_s(self, size: int, now: float) -> float:
        """How long to wait before `size` bytes may be sent; they count as sent then."""
        if self.rate <= 0:
            return 0.0
        begin = max(self._free_at, now - _BURST_S)
        self._free_at = begin + size / self.rate
        return max(0.0, begin - now)


@dataclass(slots=True)
class Speed:
    """Bytes a second over the last seconds."""

    _seen: deque[tuple[float, int]] = field(default_factory=deque[tuple[float, int]])

    def note(self, now: float, total: int) -> None:
        """So many bytes are done."""
        self._seen.append((now, total))
        while len(self._seen) > 2 and now - self._seen[0][0] > _WINDOW_S:
            self._seen.popleft()

    def rate(self) -> float | None:
        """None: not known yet."""
        if len(self._seen) < 2:
            return None
        (began, first), (ended, last) = self._seen[0], self._seen[-1]
        return (last - first) / (ended - began) if ended > began else None


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a node is with being filled, for its status."""

    phase: str
    reason: str
    donor: str | None = None
    snapshot: str | None = None
    index: int | None = None
    bytes: int = 0
    total: int | None = None
    rate: float | None = None
    trouble: str | None = None

    @property
    def remaining_s(self) -> float | None:
        """Seconds until all is fetched, at the rate of the last seconds; None: not known."""
        if self.total is None or not self.rate:
            return None
        return max(0.0, self.total - self.bytes) / self.rate

    def as_json(self) -> dict[str, object]:
        """`filling` in a node's status."""
        remaining = self.remaining_s
        return {
            "phase": self.phase,
            "reason": self.reason,
            "donor": self.donor,
            "snapshot": self.snapshot,
            "index": self.index,
            "bytes": self.bytes,
            "total": self.total,
            "rate": None if self.rate is None else round(self.rate),
            "remaining_s": None if remaining is None else round(remaining, 1),
            "trouble": self.trouble,
        }

    def __str__(self) -> str:
        match self.phase:
            case "asking":
                text = f"{self.donor} takes a snapshot for it" if self.donor else "it looks for a donor"
            case "fetching":
                text = f"it fetches {self.bytes:,} of {self.total or 0:,} bytes from {self.donor}"
                if self.rate:
                    text += f", {self.rate / 1e6:.1f} MB/s"
                if self.remaining_s is not None:
                    text += f", about {self.remaining_s:.0f} s to go"
            case "installing":
                text = f"it installs the snapshot of {self.donor} at index {self.index}"
            case _:
                text = "it waits before it tries again"
        return text if self.trouble is None else f"{text} (the last try failed: {self.trouble.rstrip('.')})"
