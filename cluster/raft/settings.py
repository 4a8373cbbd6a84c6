"""The log's timing and limits, checked once with readable messages."""

from __future__ import annotations

from dataclasses import dataclass

from cluster.staleness import MAX_DRIFT

MIB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class RaftSettings:
    """Raises ValueError at construction when the values cannot work together."""

    election_timeout_ms: tuple[int, int] = (1000, 2000)
    heartbeat_ms: int = 100
    early_election_ms: tuple[int, int] = (20, 150)
    """How long to wait before standing when no leader is there or its connection broke."""
    append_bytes: int = 1 * MIB
    """About how many bytes of entries go in one message (one entry may be larger)."""
    inflight_bytes: int = 8 * MIB
    """How many bytes of entries may be under way to one follower before an ack must come."""
    pending_bytes: int = 128 * MIB
    """How many bytes of proposals may wait for their commit before `Overloaded`."""
    max_frame_bytes: int = 64 * MIB
    """The largest message on the wire; a proposal must leave room for its envelope in it."""
    fragment_bytes: int = 256 * 1024
    """Messages longer than this are cut, so that heartbeats go between the pieces."""
    journal_budget_bytes: int = 256 * MIB
    """Old entries that all members hold are dropped only while the journal holds more than this."""
    log_retention_bytes: int = 1024 * MIB
    """Beyond this, or the size of the newest snapshot if that is larger, no absent member is waited for."""
    cache_bytes: int = 64 * MIB
    max_drift: float = MAX_DRIFT
    """The most by which the clocks of two nodes may differ in rate."""
    catch_up_entries: int = 1000
    """A learner that lacks no more entries than these may become a voter."""
    auto_replace: bool = True
    """Whether a leader lets a member in again by itself whose journal was lost or is an old one."""

    def __post_init__(self) -> None:
        low, high = self.election_timeout_ms
        if self.heartbeat_ms < 1:
            raise ValueError(f"heartbeat_ms is {self.heartbeat_ms}; it must be at least 1")
        if low < 3 * self.heartbeat_ms:
            raise ValueError(
                f"election_timeout_ms starts at {low}, less than three heartbeats of {self.heartbeat_ms} ms: "
                "one late heartbeat would start an election; raise it or lower heartbeat_ms"
            )
        if high <= low:
            raise ValueError(
                f"election_timeout_ms is ({low}, {high}); the second must be larger than the first, or nodes "
                "would keep standing for election at the same moment"
            )
        early_low, early_high = self.early_election_ms
        if not 0 <= early_low < early_high <= high:
            raise ValueError(
                f"early_election_ms is ({early_low}, {early_high}); want 0 <= first < second <= {high}"
            )
        for name in (
            "log_retention_bytes",
            "append_bytes",
            "inflight_bytes",
            "pending_bytes",
            "fragment_bytes",
            "cache_bytes",
        ):
            if getattr(self, name) < 1024:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 1024")
        if self.max_frame_bytes < self.fragment_bytes:
            raise ValueError(
                f"max_frame_bytes ({self.max_frame_bytes}) is below fragment_bytes ({self.fragment_bytes})"
            )

    @property
    def max_payload_bytes(self) -> int:
        """The largest payload that `propose` takes."""
        return self.max_frame_bytes - 4096

    @property
    def dead_after_ms(self) -> int:
        """A silent connection is dropped, and a leader without a majority steps down, after this long."""
        return sum(self.election_timeout_ms) // 2

    @property
    def heartbeat_s(self) -> float:
        return self.heartbeat_ms / 1000

    @property
    def election_low_s(self) -> float:
        """A leader that was heard within this time is alive."""
        return self.election_timeout_ms[0] / 1000

    @property
    def election_high_s(self) -> float:
        return self.election_timeout_ms[1] / 1000

    @property
    def dead_after_s(self) -> float:
        return self.dead_after_ms / 1000
