"""Grouping: at once when idle, together when busy, in order, bounded, and nothing lost."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.errors import Overloaded
from cluster.propose.grouping import GroupLimits, WaitingLine, admits, choose

LIMITS = GroupLimits(entry_bytes=100, entry_proposals=3, in_flight=2, queue_bytes=250)


@pytest.mark.parametrize(
    ("sizes", "in_flight", "expected"),
    [
        ([], 0, 0),
        ([10], 0, 1),
        ([10, 10], 1, 2),
        ([10, 10], 2, 0),
        ([1, 1, 1, 1], 0, 3),
        ([60, 40, 1], 0, 2),
        ([60, 41], 0, 1),
        ([500], 0, 1),
        ([500, 1], 0, 1),
        ([1, 500], 0, 1),
        ([0, 0, 0], 0, 3),
    ],
)
def test_how_many_go_now(sizes: list[int], in_flight: int, expected: int) -> None:
    assert choose(sizes, in_flight, LIMITS) == expected


@pytest.mark.parametrize(
    ("queued", "size", "expected"), [(0, 250, True), (0, 9999, True), (200, 50, True), (200, 51, False)]
)
def test_what_the_queue_admits(queued: int, size: int, expected: bool) -> None:
    assert admits(queued, size, LIMITS) is expected


def test_a_lone_write_goes_at_once_and_writes_gather_while_the_log_is_busy() -> None:
    line: WaitingLine[str] = WaitingLine(LIMITS)
    sent: list[list[str]] = []
    for name in "abcd":
        line.join(name, 10)
        sent.append(line.take())
    assert sent == [["a"], ["b"], [], []]
    line.landed()
    assert line.take() == ["c", "d"]
    assert line.take() == []


def test_a_full_queue_refuses_until_writes_are_applied() -> None:
    line: WaitingLine[str] = WaitingLine(LIMITS)
    line.join("a", 200)
    assert line.take() == ["a"]
    line.landed()
    with pytest.raises(Overloaded, match="nothing was changed") as caught:
        line.join("b", 51)
    assert caught.value.status == 429
    assert (len(line), line.queued_bytes) == (0, 200)
    line.finish(200)
    line.join("b", 51)
    assert line.take() == ["b"]


def test_a_withdrawn_write_is_never_sent_and_frees_its_room() -> None:
    line: WaitingLine[str] = WaitingLine(LIMITS)
    line.join("a", 200)
    line.join("b", 10)
    assert line.withdraw("a")
    assert line.queued_bytes == 10
    assert line.take() == ["b"]
    assert not line.withdraw("b")


def test_withdrawing_means_the_very_item_not_an_equal_one() -> None:
    line: WaitingLine[list[str]] = WaitingLine(LIMITS)
    first, second = ["same"], ["same"]
    line.join(first, 1)
    line.join(second, 1)
    assert line.withdraw(second)
    assert line.take()[0] is first


def test_accounts_that_do_not_add_up_are_errors() -> None:
    line: WaitingLine[str] = WaitingLine(LIMITS)
    with pytest.raises(ValueError, match="in flight"):
        line.landed()
    with pytest.raises(ValueError, match="queued"):
        line.finish(1)


@given(st.lists(st.tuples(st.sampled_from(["join", "land", "withdraw"]), st.integers(1, 150)), max_size=60))
def test_every_accepted_write_is_sent_once_in_order_within_bounds(turns: list[Any]) -> None:
    line: WaitingLine[int] = WaitingLine(LIMITS)
    sizes: dict[int, int] = {}
    sent: list[int] = []
    withdrawn: set[int] = set()

    def take() -> None:
        while group := line.take():
            sent.extend(group)
            total = sum(sizes[item] for item in group)
            assert len(group) <= LIMITS.entry_proposals
            assert total <= LIMITS.entry_bytes or len(group) == 1
        assert line.in_flight <= LIMITS.in_flight
        # Nothing waits while there is room in flight.
        assert not len(line) or line.in_flight == LIMITS.in_flight

    for n, (turn, size) in enumerate(turns):
        if turn == "join":
            item = 10_000 + n
            if line.queued_bytes and line.queued_bytes + size > LIMITS.queue_bytes:
                with pytest.raises(Overloaded):
                    line.join(item, size)
            else:
                sizes[item] = size
                line.join(item, size)
        elif turn == "land" and line.in_flight:
            line.landed()
        elif turn == "withdraw" and sizes:
            item = list(sizes)[size % len(sizes)]
            if line.withdraw(item):
                withdrawn.add(item)
        take()
    while line.in_flight:
        line.landed()
        take()
    assert sent == [item for item in sizes if item not in withdrawn]
    for item in sent:
        line.finish(sizes[item])
    assert (line.queued_bytes, len(line)) == (0, 0)
