"""Bugs of the containment: who decides that a write is refused, from what, and what is remembered of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cluster.apply.agreement import agreements_in
from cluster.apply.containment import Verdict
from cluster.apply.deliberation import Deliberation, agreement
from cluster.state.machine import Machine
from cluster.state.refusals import NOTE, RefusalTable
from tests.simulation.stepped import SteppedApplier

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from cluster.apply.containment import Question, Stuck, View
    from cluster.errors import EngineDied, Fault
    from cluster.state.catalog import Change
    from cluster.state.machine import Limits, LogEntry, Step


class RefuseAlone(SteppedApplier):
    """A stuck node does not ask anybody."""

    def _failed(self, step: Step, failure: EngineDied | Fault) -> tuple[Step, Sequence[Change]] | None:
        found = super()._failed(step, failure)
        if self.impasse.at is not None:
            self._machine.refusals.expect(agreement(self.impasse.at, ()))
        return found


class LookAtUncommitted(SteppedApplier):
    """An agreement counts as soon as it is in this node's log."""

    def _may_go_on(self) -> bool:
        journal = self._raft._journal
        assert journal is not None
        if self.impasse.at is not None and self._scanned < journal.last_index:
            for entry in journal.entries(self._scanned + 1, journal.last_index, 1 << 20):
                for found in agreements_in(entry.payload, entry.index):
                    self._machine.refusals.expect(found)
        return super()._may_go_on()


class ProposeThoughApplied(Deliberation):
    """A leader that is stuck with a majority does not care that somebody else has applied the write."""

    def _judge(self, stuck: Stuck, views: Sequence[View], *, leads: bool) -> Verdict:
        verdict = super()._judge(stuck, views, leads=leads)
        return Verdict.PROPOSE if leads and verdict is Verdict.LOCAL else verdict

    def _all_hold(self, stuck: Stuck, views: Sequence[View]) -> bool:
        return True


class NoHold(Deliberation):
    """A leader proposes as soon as it judges: whoever is stuck may just be trying again, with success."""

    def _hold_or_propose(self, stuck: Stuck, question: Question, views: Sequence[View]) -> None:
        self._proposed = self._propose(agreement(stuck, views))


class NoLookAhead(SteppedApplier):
    """Of what is committed only what is taken at once is looked through before any of it is applied."""

    def _next_batch(self, commit: int) -> list[LogEntry]:
        return self._take()


class _NeverGood(RefusalTable):
    def forget(self, collection_ids: Iterable[str]) -> list[Change]:
        return []


class CountNotReset(Machine):
    def __init__(self, limits: Limits | None = None) -> None:
        super().__init__(limits)
        self.refusals = _NeverGood()


class BlameTheFirst(Machine):
    """A call merged from several writes is not taken apart."""

    def narrow(self, step: Step) -> bool:
        return False


def note_not_durable(items: list[tuple[str, bytes]], limits: Limits) -> Machine:
    return Machine.load([pair for pair in items if not pair[0].startswith(NOTE)], limits)


def count_not_reset(items: list[tuple[str, bytes]], limits: Limits) -> Machine:
    return CountNotReset.load(items, limits)


def blame_the_first(items: list[tuple[str, bytes]], limits: Limits) -> Machine:
    return BlameTheFirst.load(items, limits)
