"""Bugs of applying: order, markers, intents, request ids and answers."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from cluster.state.commands import Group
from cluster.state.machine import Machine, Step
from tests.simulation.stepped import SteppedApplier, SteppedRaft

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cluster.raft.interface import Entry
    from cluster.raft.node import CorrectedNode
    from cluster.state.catalog import Change
    from cluster.state.machine import Limits, LogEntry


class ApplyOutOfOrder(SteppedApplier):
    def _take(self) -> list[LogEntry]:
        return [
            (index, None if group is None else Group(group.time_ms, group.proposals[::-1]))
            for index, group in super()._take()
        ]


class ApplyUncommitted(SteppedRaft):
    """What is in the journal is applied, committed or not."""

    @property
    def commit_index(self) -> int:
        return self._journal.last_index if self._journal is not None else 0

    def entries(self, start: int, max_bytes: int) -> list[Entry]:
        assert self._journal is not None
        return self._journal.entries(start, self._journal.last_index, max_bytes)


class MarkBeforeCall(SteppedApplier):
    """The step is made durable before the engine's call: a crash in between loses the call."""

    def _do(self, step: Step) -> tuple[Step, Sequence[Change]] | None:
        if step.work is not None:
            self._store.write(step.changes, step.index, step.position)
        return super()._do(step)


class MemoryBeforeStore(SteppedApplier):
    """A step is this node's state, and told to others, before it is durable."""

    def _finish(self, step: Step, local: Sequence[Change]) -> None:
        self._machine.commit(step)
        super()._finish(step, local)


class NoIntent(Machine):
    """The ids that a delete by filter found are kept in memory, not in the store."""

    def resolved(self, step: Step, ids: Sequence[str]) -> Step:
        self._intent = tuple(ids)
        return step


class SkipAnEntry(SteppedApplier):
    """After a restart applying goes on one entry too late, if the log has more."""

    def start(self) -> None:
        super().start()
        if 0 < self._applied < self._raft.commit_index:
            cursor = self._machine._cursor
            self._machine._cursor = replace(cursor, index=cursor.index + 1, position=0, part=0)
            self._applied += 1


def forget_requests(items: list[tuple[str, bytes]], limits: Limits) -> Machine:
    """Request ids do not survive a restart."""
    return Machine.load([pair for pair in items if not pair[0].startswith("r/")], limits)


def remember_few(items: list[tuple[str, bytes]], limits: Limits) -> Machine:
    """This node remembers fewer requests than the others."""
    return Machine.load(items, replace(limits, max_requests=3))


def no_intent(items: list[tuple[str, bytes]], limits: Limits) -> Machine:
    return NoIntent.load(items, limits)


class AnswerAtCommitOfAnything(SteppedRaft):
    """A proposal counts as committed when its index is, whoever's entry stands there."""

    def _on_commit(self, index: int) -> None:
        waiting = self._waiting
        self._waiting = type(waiting)(
            (at, self._journal.term_at(at) if self._journal.base_index < at <= index else term, proposal)  # type: ignore[union-attr]
            for at, term, proposal in waiting
        )
        super()._on_commit(index)

    def _settle(self, node: CorrectedNode) -> None:
        """Does not notice that leadership is gone."""
