"""Members that come and go while everything fails: seeds, and courses that must end well."""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from typing import TYPE_CHECKING

import pytest

from tests.simulation.bugs import members as bugs
from tests.simulation.cluster import Result
from tests.simulation.courses import members
from tests.simulation.mutations import MUTATIONS, Mutation
from tests.simulation.parts import Parts, node_of
from tests.simulation.run import Failure, run_seed

if TYPE_CHECKING:
    from collections.abc import Callable

    from cluster.raft.node import CorrectedNode
    from tests.simulation.invariants import Violation

SEEDS = 150


@pytest.mark.timeout(600)
def test_no_seed_with_changes_of_members_breaks_a_promise() -> None:
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        results = list(pool.map(partial(run_seed, changes=True), range(SEEDS), chunksize=5))
    failures = [result.text for result in results if isinstance(result, Failure)]
    assert not failures, "\n\n".join(failures)
    done = [result for result in results if isinstance(result, Result)]
    # A run in which nothing happens proves nothing.
    assert sum(result.changes for result in done) > 4 * SEEDS
    assert sum(result.refused_changes for result in done) > SEEDS
    assert sum(result.crashes for result in done) > SEEDS


@pytest.mark.parametrize(
    "course", [members.wiped_of_two, members.leader_removes_itself, members.no_vote_to_lend]
)
def test_the_course_ends_well(course: Callable[[], Violation | None]) -> None:
    assert course() is None


@pytest.mark.parametrize(
    ("course", "parts"),
    [
        (members.wiped_of_two, node_of(standings=bugs.NeededByNobody)),
        (members.leader_removes_itself, bugs.LeadsThoughRemoved),
        (members.no_vote_to_lend, node_of(standings=bugs.VoteIsLent)),
    ],
)
def test_the_course_does_not_end_without_its_rule(
    course: Callable[[str], Violation | None], parts: type[CorrectedNode], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(MUTATIONS, "planted", Mutation("planted", "", "", Parts(node=parts)))
    with pytest.raises(AssertionError, match="does not come about"):
        course("planted")


def test_the_same_seed_is_the_same_run_with_changes() -> None:
    one, other = (run_seed(7, changes=True, hashing=True) for _ in range(2))
    assert isinstance(one, Result)
    assert one == other
