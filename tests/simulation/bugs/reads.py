"""Bugs of reads: too early, without proof, or without waiting."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from cluster.raft.node import CorrectedNode
from cluster.raft.read_rounds import ReadRounds
from tests.simulation.stepped import SteppedApplier

if TYPE_CHECKING:
    from collections.abc import Callable

    from cluster.reads import Guarantee
    from cluster.state.work import Call


class ReuseReadIndex(ReadRounds):
    """An index that was proven within the last heartbeats is given to later reads too."""

    proven: tuple[float, int] = (float("-inf"), 0)

    def begin_for_reads(self, now: float) -> None:
        if self.new_reads and now - self.proven[0] < 5 * self.core.settings.heartbeat_s:
            waiting, self.new_reads = self.new_reads, []
            for answer in waiting:
                answer(self.proven[1])
        elif self.new_reads and self.core.commit_index >= self.first_own_index:
            self.proven = (now, self.core.commit_index)
        super().begin_for_reads(now)


class ReadOnOldAcks(ReadRounds):
    """A leader that a majority has answered lately serves reads without a new round."""

    def begin_for_reads(self, now: float) -> None:
        if (
            self.new_reads
            and self.replication.has_quorum(now)
            and self.core.commit_index >= self.first_own_index
        ):
            waiting, self.new_reads = self.new_reads, []
            for answer in waiting:
                answer(self.core.commit_index)
        super().begin_for_reads(now)


class ReadWithoutQuorum(CorrectedNode):
    def read_index(self, answer: Callable[[int | None], None]) -> None:
        answer(self.commit_index if self.is_leader else None)


class ReadBeforeOwnCommit(ReadRounds):
    """A new leader does not wait for the commit of its first entry."""

    def begin_for_reads(self, now: float) -> None:
        held, self.first_own_index = self.first_own_index, 0
        super().begin_for_reads(now)
        self.first_own_index = held


def read_at_own_commit(guarantee: Guarantee, read_index: int | None, commit_index: int) -> int:
    """A linearizable read waits only for what this node knows to be committed."""
    return max(commit_index, guarantee.min_index)


def ignore_token(guarantee: Guarantee, read_index: int | None, commit_index: int) -> int:
    """A session read does not wait for its token."""
    return read_index or 0


class TokenIsApplied(SteppedApplier):
    """A read's token is the applied index, though a call under way may show already."""

    def started_index(self, collection_id: str | None) -> int:
        return self.applied_index


class TokenFromMarker(SteppedApplier):
    """After a restart tokens begin at the applied index, though a part of the next entry may show."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._floor = self._applied


class DropNotesNoToken(SteppedApplier):
    """A collection's deletion is not noted: who finds it gone gets the token of what was before."""

    def _note_start(self, call: Call) -> None:
        super()._note_start(replace(call, dropped=()))
