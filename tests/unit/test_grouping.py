"""Grouping: at once when idle, together when busy, in order, bounded, and nothing lost."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.errors import Overloaded
from cluster.propose.grouping import GroupLimits, WaitingLine, admits, choose

LIMITS = GroupLimits(entry_bytes=100, entry_proposals=3, in_flight=2, queue_bytes=250, large_bytes=150)
TURNS = GroupLimits(entry_bytes=100, entry_proposals=3, in_flight=2, queue_bytes=10_000, large_bytes=90)


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
    line.landed(large=True)
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


def test_large_and_small_writes_take_turns() -> None:
    line: WaitingLine[str] = WaitingLine(TURNS)
    for name in ("L1", "L2", "L3", "s1", "s2", "s3", "s4"):
        line.join(name, 500 if name.startswith("L") else 10)
    assert [line.take(), line.take(), line.take()] == [["L1"], ["s1", "s2", "s3"], []]
    line.landed()
    # One large write at a time: the other place in flight is for the small ones.
    assert [line.take(), line.take()] == [["s4"], []]
    line.landed(large=True)
    assert line.take() == ["L2"]
    line.landed()
    assert line.take() == []
    line.join("s5", 10)
    assert line.take() == ["s5"]
    line.landed(large=True)
    assert line.take() == ["L3"]


@given(st.lists(st.integers(1, 500), min_size=1, max_size=40))
def test_no_write_waits_for_more_than_one_large_one_or_one_group(sizes: list[int]) -> None:
    line: WaitingLine[int] = WaitingLine(replace(TURNS, queue_bytes=10**6))
    for item, size in enumerate(sizes):
        line.join(item, size)
    entries: list[list[int]] = []
    flying: list[bool] = []
    while len(line) or flying:
        while group := line.take():
            entries.append(group)
            flying.append(line.is_large(sizes[group[0]]))
            assert flying.count(True) <= 1
        line.landed(large=flying.pop(0))
    kinds = [line.is_large(sizes[group[0]]) for group in entries]
    small = [n for n, large in enumerate(kinds) if not large]
    if small:
        assert not any(one and other for one, other in pairwise(kinds[: small[-1] + 1]))
    for large in (True, False):
        sent = [item for group in entries for item in group if line.is_large(sizes[item]) is large]
        assert sent == [item for item, size in enumerate(sizes) if line.is_large(size) is large]


def test_small_writes_that_came_meanwhile_go_before_the_next_large_one() -> None:
    line: WaitingLine[str] = WaitingLine(replace(TURNS, in_flight=1))
    for name in ("L1", "L2", "s1"):
        line.join(name, 500 if name.startswith("L") else 10)
    order: list[str] = []
    while group := line.take():
        order += group
        line.landed(large=group[0].startswith("L"))
    assert order == ["L1", "s1", "L2"]


def test_a_large_write_that_is_withdrawn_makes_room() -> None:
    line: WaitingLine[str] = WaitingLine(TURNS)
    line.join("L1", 5_000)
    line.join("L2", 5_000)
    assert line.take() == ["L1"]
    assert line.withdraw("L2")
    assert (line.queued_bytes, len(line)) == (5_000, 0)


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
