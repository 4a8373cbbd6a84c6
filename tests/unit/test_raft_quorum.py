"""The arithmetic of quorums against brute force: every subset of one to seven members."""

from __future__ import annotations

import itertools
import random

import pytest

from cluster.raft.quorum import VoteResult, majority, reached, vote_result

SIZES = range(1, 8)


def quorums(members: int, quorum: int) -> list[tuple[int, ...]]:
    return list(itertools.combinations(range(members), quorum))


@pytest.mark.parametrize("members", SIZES)
def test_any_two_majorities_share_a_member_and_no_smaller_sets_do(members: int) -> None:
    sets = [set(each) for each in quorums(members, majority(members))]
    assert all(one & other for one in sets for other in sets)
    smaller = [set(each) for each in quorums(members, majority(members) - 1)]
    assert not all(one & other for one in smaller for other in smaller)


@pytest.mark.parametrize("members", SIZES)
def test_reached_is_the_best_that_some_quorum_has(members: int) -> None:
    rng = random.Random(members)
    for _ in range(200):
        values = [rng.randrange(5) for _ in range(members)]
        for quorum in range(1, members + 1):
            best = max(min(values[each] for each in group) for group in quorums(members, quorum))
            assert reached(values, quorum) == best


@pytest.mark.parametrize("members", SIZES)
def test_reached_does_not_depend_on_the_order(members: int) -> None:
    values = list(range(members))
    expected = members - majority(members)
    for order in itertools.permutations(values):
        assert reached(order, majority(members)) == expected


def test_reached_takes_times_and_what_was_never() -> None:
    never = float("-inf")
    assert reached([5.5, never, 2.5], 2) == 2.5
    assert reached([5.5, never, never], 2) == never
    assert reached(iter([5.5]), 1) == 5.5


@pytest.mark.parametrize(("count", "quorum"), [(0, 1), (1, 2), (3, 4), (3, 0)])
def test_a_quorum_that_cannot_be_is_an_error(count: int, quorum: int) -> None:
    with pytest.raises(ValueError, match="quorum"):
        reached([1] * count, quorum)


@pytest.mark.parametrize("members", SIZES)
def test_an_election_is_decided_as_soon_as_the_open_votes_cannot_change_it(members: int) -> None:
    quorum = majority(members)
    for state in itertools.product((True, False, None), repeat=members):
        votes = {str(number): vote for number, vote in enumerate(state) if vote is not None}
        outcomes = {
            sum(votes.values()) + sum(rest) >= quorum
            for rest in itertools.product((True, False), repeat=state.count(None))
        }
        expected = {
            frozenset({True}): VoteResult.WON,
            frozenset({False}): VoteResult.LOST,
            frozenset({True, False}): VoteResult.PENDING,
        }[frozenset(outcomes)]
        assert vote_result(votes, members, quorum) is expected
