"""How long entries are kept that an absent member would need, and what a node does when it cannot drop any.

What all members hold is dropped beyond a small budget (`CorrectedNode._compact`). Beyond that the log is
bounded by bytes, whatever an absent member does: who falls out of it is filled by a snapshot.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from cluster.raft.core import Core

#: A fetch of a snapshot holds the log from the snapshot's index on, up to so many times its usual bound.
_HELD: Final = 2
#: With so many times the bound in the log nothing of it could be dropped for long: the applier is too slow.
_LEADER_FULL: Final = 2
_FOLLOWER_FULL: Final = 3


class Retention:
    """The bound of one node's log in bytes, and who needs more of it for a while."""

    def __init__(self, core: Core) -> None:
        self.core = core
        self.snapshot_bytes = 0
        """Size of the newest snapshot: a log that is smaller is cheaper to send."""
        self._holds: dict[str, tuple[int, float]] = {}

    @property
    def bound_bytes(self) -> int:
        return max(self.core.settings.log_retention_bytes, self.snapshot_bytes)

    def hold(self, who: str, index: int, seconds: float) -> None:
        """Keep what comes after `index`, for `who` is being filled with a snapshot of it; renewed or over."""
        self._holds[who] = (index, self.core.clock() + seconds)

    def compact(self, applied: int) -> None:
        """Drop what is applied here, oldest first, down to the bound."""
        journal = self.core.journal
        if journal.bytes_held <= self.bound_bytes:
            return
        now = self.core.clock()
        # Who was not waited for needs another snapshot.
        self._holds = {
            who: it for who, it in self._holds.items() if it[1] > now and it[0] >= journal.base_index
        }
        held = min((index for index, _ in self._holds.values()), default=applied)
        if held < applied and journal.bytes_held <= _HELD * self.bound_bytes:
            journal.compact(held, self.bound_bytes)
        else:
            journal.compact(applied, self.bound_bytes)

    def is_full(self, applied: int, *, leading: bool) -> bool:
        """Whether the log holds so much that is not applied here that it may not grow further.

        A leader then refuses writes; a follower, somewhat later, stores nothing more: a quorum of slow
        appliers slows the leader down, and a single one falls out of the log and is filled by a snapshot.
        """
        bound = _LEADER_FULL * self.bound_bytes
        if not leading:
            # What a leader took before it refused must find room: an agreement may be in it.
            bound = _FOLLOWER_FULL * self.bound_bytes + self.core.settings.pending_bytes
        has_work = self.core.commit_index > applied
        return has_work and self.core.journal.bytes_held > bound
