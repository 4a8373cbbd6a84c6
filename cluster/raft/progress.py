"""How far one follower is, as its leader knows it: what to send next, what is under way, what is verified."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field


@dataclass(slots=True)
class Progress:
    """Probing: one message at a time until the logs are known to meet. Else entries stream, bounded in bytes.

    `match` only counts what this follower acknowledged in this term over this connection.
    """

    next_index: int
    match: int = 0
    probing: bool = True
    probe_due_s: float = 0.0
    """While probing: the next probe goes out at this time, or when the last was answered."""
    contact_s: float = 0.0
    """When this follower last answered."""
    commit_sent: int = 0
    inflight_bytes: int = 0
    moved_s: float = 0.0
    """When the stream last moved: sent into an empty pipe, or acknowledged."""
    inflight: deque[tuple[int, int]] = field(default_factory=deque[tuple[int, int]])

    def sent(self, last_index: int, size: int, now_s: float) -> None:
        """Entries up to `last_index` went out in the stream."""
        if not self.inflight:
            self.moved_s = now_s
        self.inflight.append((last_index, size))
        self.inflight_bytes += size
        self.next_index = last_index + 1

    def accepted(self, match: int, now_s: float) -> None:
        """The follower verified its log up to `match`."""
        self.match = max(self.match, match)
        self.moved_s = now_s
        while self.inflight and self.inflight[0][0] <= match:
            self.inflight_bytes -= self.inflight.popleft()[1]
        if self.probing:
            self.probing = False
            self.next_index = self.match + 1
        else:
            self.next_index = max(self.next_index, match + 1)

    def is_stale_rejection(self, prev_index: int) -> bool:
        """It says nothing any more: about a message before the last step back, or before an ack."""
        return prev_index != self.next_index - 1 if self.probing else prev_index <= self.match

    def step_back(self, next_index: int, prev_index: int) -> None:
        """The logs do not meet at prev_index: probe at next_index, always lower than before."""
        self.restart(max(self.match + 1, min(next_index, prev_index)))

    def restart(self, next_index: int) -> None:
        """Probe from `next_index` on; nothing is under way any more."""
        self.next_index = next_index
        self.probing = True
        self.probe_due_s = 0.0
        self.inflight.clear()
        self.inflight_bytes = 0
