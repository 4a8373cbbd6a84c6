"""The leader raises the command level when all members understand it; nothing above it is proposed."""

from __future__ import annotations

from concurrent.futures import Future
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

import pytest

from cluster.errors import NotLeader, Unavailable
from cluster.levels import Levels
from cluster.raft.interface import Configuration, Member, RaftStatus
from cluster.service.leveling import Leveling
from cluster.state.commands import Reset, Verify

if TYPE_CHECKING:
    from cluster.raft.interface import Position

NEW, OLD = Levels(1, 2, 1), Levels(1, 1, 1)
MEMBERS = Configuration(0, (Member("a"), Member("b"), Member("c", is_voter=False)))


class Bench:
    """The leader a of a, b and the learner c; all but what a test changes understand level 2."""

    def __init__(self) -> None:
        self.own = NEW
        self.raft_status = RaftStatus(
            "a", "leader", 1, "a", 1, 1, 1, 0.0, levels={"b": NEW, "c": NEW}, configuration=MEMBERS
        )
        self.proposed: list[tuple[int, Future[Position]]] = []
        settings = type("Settings", (), {"node_id": "a", "peers": {}})()
        self.leveling = Leveling(cast("Any", settings), cast("Any", self), lambda: self.own, self.propose)

    def status(self) -> RaftStatus:
        return self.raft_status

    def set(self, **changes: Any) -> None:
        self.raft_status = replace(self.raft_status, **changes)

    def propose(self, level: int) -> Future[Position]:
        self.proposed.append((level, Future()))
        return self.proposed[-1][1]

    @property
    def levels(self) -> list[int]:
        self.leveling.look()
        return [level for level, _ in self.proposed]


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_the_level_is_raised_once_all_members_understand_it(bench: Bench) -> None:
    assert bench.levels == [2]
    assert bench.levels == [2], "it is under way"
    bench.proposed[0][1].set_result(cast("Any", None))
    assert bench.levels == [2], "it is committed, and not applied here yet"
    bench.own = replace(NEW, in_force=2)
    assert bench.levels == [2]


@pytest.mark.parametrize(
    "changes",
    [
        {"levels": {"b": NEW}},
        {"levels": {"b": NEW, "c": OLD}},
        {"levels": {"b": OLD, "c": NEW}},
        {"role": "follower"},
        {"role": "candidate"},
        {"configuration_committed": False},
        {"configuration": Configuration(1, (*MEMBERS.members, Member("d")))},
    ],
)
def test_it_is_not_raised_before(bench: Bench, changes: dict[str, Any]) -> None:
    bench.set(**changes)
    assert bench.levels == []


def test_who_is_removed_is_not_asked(bench: Bench) -> None:
    bench.set(levels={"c": NEW})
    assert bench.levels == []
    bench.set(configuration=Configuration(1, (Member("a"), Member("c"))))
    assert bench.levels == [2]


def test_a_raise_that_failed_or_was_another_terms_is_proposed_again(bench: Bench) -> None:
    assert bench.levels == [2]
    bench.proposed[0][1].set_exception(NotLeader(None))
    assert bench.levels == [2, 2]
    bench.set(term=2)
    assert bench.levels == [2, 2, 2]


def test_nothing_above_the_level_in_force_is_proposed(bench: Bench) -> None:
    bench.leveling.require(Reset())
    bench.set(levels={"b": OLD})
    assert not bench.leveling.permits(Verify("r", None))
    with pytest.raises(Unavailable) as refused:
        bench.leveling.require(Verify("r", None))
    assert refused.value.message == (
        "This needs command level 2, and the cluster is at level 1. It rises by itself once every member is "
        "connected and understands it; it waits for b (it understands level 1), c (it is away). Upgrade or "
        "start them, or remove them from the cluster. Nothing was changed; try again then."
    )
    bench.own = replace(NEW, in_force=2)
    bench.leveling.require(Verify("r", None))


def test_the_status_says_who_holds_the_level(bench: Bench) -> None:
    said = {"in_force": 1, "oldest": 1, "newest": 2, "waits_for": {}}
    assert bench.leveling.as_json() == said
    bench.set(levels={"c": NEW})
    assert bench.leveling.as_json() == {**said, "waits_for": {"b": "it is away"}}
    bench.own = OLD
    bench.set(levels={"b": NEW, "c": NEW})
    waits = {"a": "it understands level 1"}
    assert bench.leveling.as_json() == {**said, "newest": 1, "waits_for": waits}
