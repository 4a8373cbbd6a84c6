"""Bugs of membership: whose majority decides, from when on, and who may change it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cluster.raft.configuration import electorates
from cluster.raft.election import Election
from cluster.raft.journal import Journal
from cluster.raft.meta import Standing
from cluster.raft.node import CorrectedNode
from cluster.raft.standing import Standings

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cluster.raft.configuration import Circumstances
    from cluster.raft.interface import Configuration


class ChangeAtCommit(Journal):
    """A configuration is in force once it is known to be committed."""

    @property
    def configuration(self) -> Configuration:
        return self.committed_configuration

    @property
    def former_configuration(self) -> Configuration | None:
        return None


class TwoChangesAtOnce(CorrectedNode):
    """A leader makes a change while the former one is under way."""

    def may_change(self) -> bool:
        return self.is_leader


class ChangeBeforeOwnCommit(CorrectedNode):
    """The published rule for changes of one voter, as it was before its error was found."""

    @property
    def electorates(self) -> tuple[frozenset[str], ...]:
        return electorates(self.configuration, None)

    def may_change(self) -> bool:
        index = self.journal.configuration_index
        return self.is_leader and (self.commit_index >= index or self.journal.term_at(index) < self.term)


class PromoteAnybody(CorrectedNode):
    """A learner becomes a voter whatever it lacks."""

    def _circumstances(self, in_settings: Mapping[str, tuple[str, str]]) -> Circumstances:
        found = super()._circumstances(in_settings)
        everybody = dict.fromkeys(found.match, found.last_index)
        return type(found)(
            found.is_committed,
            found.present.union(found.match),
            everybody,
            found.last_index,
            found.catch_up_entries,
            found.in_settings,
        )


class LearnersCount(CorrectedNode):
    """The word of a learner is one of a majority's."""

    @property
    def electorates(self) -> tuple[frozenset[str], ...]:
        return (frozenset(self.configuration.ids),)


class ListenToRemoved(Standings):
    def is_removed(self, peer: str) -> bool:
        return False


class StandAtOnce(Election):
    """Without pre-votes, and as if the leader had asked for it."""

    def stand(self, now: float) -> None:
        self.elect(transfer=True)


class Disturbing(CorrectedNode):
    """Removed or not, a node stands for election, and the others listen to it."""

    election_type = StandAtOnce
    standings_type = ListenToRemoved

    @property
    def may_stand(self) -> bool:
        return True


class TruncationKeepsConfiguration(Journal):
    """An entry that is cut off again leaves its configuration in force."""

    def truncate_from(self, index: int) -> None:
        held = list(self._configurations)
        super().truncate_from(index)
        self._configurations = held


class CompactionForgetsConfiguration(Journal):
    """What is compacted away is forgotten: the founders are the members again."""

    def compact(self, limit: int, budget_bytes: int) -> int:
        first = self._configurations[0]
        base = super().compact(limit, budget_bytes)
        self._configurations[0] = first
        return base


class NeededByThree(Standings):
    """One of three voters takes itself for one that is in every majority."""

    def is_needed(self) -> bool:
        voters = self.core.configuration.voters
        return self.core.journal.standing is Standing.VOTER and len(voters) <= 3


class NeededByNobody(Standings):
    """One of two voters does not know that it has everything."""

    def is_needed(self) -> bool:
        return False


class VoteIsLent(Standings):
    """Who is in every majority changes the members by the word of those who have no vote."""

    def has_vote(self, peer: str) -> bool:
        return self.counts(peer)


class LeadsThoughRemoved(CorrectedNode):
    """A leader that was removed goes on leading."""

    def _step_down_if_removed(self) -> None:
        return None
