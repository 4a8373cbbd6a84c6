"""Bugs of snapshots: what is taken, how it is installed, what the log makes of it, how long it is kept."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from cluster.raft.journal import Journal
from cluster.raft.retention import Retention
from tests.simulation.filling import STATE, Installer, copied

if TYPE_CHECKING:
    from tests.simulation.disk import Snapshot
    from tests.simulation.process import Process


class InstallNotAtomic(Installer):
    """Nothing says that an install is under way: one that was killed is not gone on with."""

    def run(self) -> None:
        self.disk.decided = False
        super().run()


class StateBeforeLog(Installer):
    """Only the files change places; the log goes on from where it was."""

    def open_journal(self) -> Journal:
        journal = super().open_journal()
        journal.reset_to = lambda index, term, configuration=b"": False  # type: ignore[method-assign]
        return journal


class TermForgotten(Journal):
    """A reset takes the term of the snapshot for the node's own, and its vote for not given."""

    def reset_to(self, index: int, term: int, configuration: bytes = b"") -> bool:
        was_reset = super().reset_to(index, term, configuration)
        if was_reset:
            self._meta = replace(self._meta, term=term, vote=None)
        return was_reset


class CompactBeyondApplied(Retention):
    """The bound of the log counts for more than what is applied."""

    def compact(self, applied: int) -> None:
        super().compact(self.core.commit_index)


def forgets_requests(process: Process, name: str) -> Snapshot | None:
    """The remembered requests are not in the snapshot."""
    found = copied(process, name)
    parts = tuple(
        (key, {at: value for at, value in part.items() if not at.startswith("r/")} if key == STATE else part)
        for key, part in found.parts
    )
    return replace(found, parts=parts) if process.is_at_rest else None


def lacks_a_collection(process: Process, name: str) -> Snapshot | None:
    """The first collection is left out."""
    found = copied(process, name)
    return replace(found, parts=found.parts[:1] + found.parts[2:]) if process.is_at_rest else None


def forgets_configuration(process: Process, name: str) -> Snapshot | None:
    """Who the members are is not in the snapshot."""
    return replace(copied(process, name), configuration=b"") if process.is_at_rest else None
