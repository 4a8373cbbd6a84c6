"""Vector clocks: what has been seen is replaced, what has not is kept beside."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from evaluation.systems.naive.manual import ManualQueue, resolved
from evaluation.systems.naive.records import Change, Stamp
from evaluation.systems.naive.strategy import Queue, Spread
from evaluation.systems.naive.vector_clock import VectorClocks, dominates, join
from tests.unit.merging import STEPS, Members, assert_semilattice, assert_survives_storage

CLOCKS = st.dictionaries(st.sampled_from("abc"), st.integers(1, 3))
LEFT = Change({"document": "left"})
RIGHT = Change({"document": "right"})


@given(CLOCKS, CLOCKS)
def test_a_join_has_seen_both_and_no_more(a: dict[str, int], b: dict[str, int]) -> None:
    joined = join((a, b))
    assert dominates(joined, a)
    assert dominates(joined, b)
    assert all(joined[node] in (a.get(node), b.get(node)) for node in joined)


@given(STEPS)
def test_merging_is_a_semilattice(steps: list[tuple[str, str, int, int]]) -> None:
    clocks = VectorClocks()
    states = Members(clocks).run(steps).three()
    if states is not None:
        assert_semilattice(clocks, states)
        for state in states:
            assert_survives_storage(clocks, state)


@given(STEPS)
def test_siblings_have_not_seen_each_other(steps: list[tuple[str, str, int, int]]) -> None:
    for state in Members(VectorClocks()).run(steps).states.values():
        for one in state:
            assert not any(other is not one and dominates(other.clock, one.clock) for other in state)


def test_concurrent_writes_are_both_kept_and_one_is_shown() -> None:
    clocks = VectorClocks()
    base = clocks.write(None, Change({"document": "base"}), Stamp(1, 0, "a"))
    left = clocks.write(base, LEFT, Stamp(2, 0, "a"))
    right = clocks.write(base, RIGHT, Stamp(3, 0, "b"))

    both = clocks.merge(left, right)

    assert clocks.shown(both) == {"document": "right"}
    assert clocks.conflicts(both) == 1
    assert {version.fields["document"] for version in both if version.fields} == {"left", "right"}


def test_a_write_ends_the_siblings_its_member_holds() -> None:
    clocks = VectorClocks()
    left = clocks.write(None, LEFT, Stamp(1, 0, "a"))
    right = clocks.write(None, RIGHT, Stamp(1, 0, "b"))
    both = clocks.merge(left, right)

    after = clocks.write(both, Change({"document": "new"}), Stamp(2, 0, "a"))

    assert clocks.conflicts(after) == 0
    assert clocks.merge(after, right) == after


def test_a_delete_that_saw_the_document_wins_and_one_that_did_not_is_a_sibling() -> None:
    clocks = VectorClocks()
    written = clocks.write(None, LEFT, Stamp(1, 0, "a"))
    seen = clocks.delete(written, Stamp(2, 0, "b"))
    unseen = clocks.delete(None, Stamp(2, 0, "b"))
    assert seen is not None
    assert unseen is not None
    assert clocks.shown(clocks.merge(written, seen)) is None
    assert clocks.shown(clocks.merge(written, unseen)) == {"document": "left"}


def test_manual_changes_nobody_in_a_conflict_and_everybody_after_the_decision() -> None:
    manual = ManualQueue()
    left = manual.write(None, LEFT, Stamp(1, 0, "a"))
    right = manual.write(None, RIGHT, Stamp(2, 0, "b"))
    states = {"a": left, "b": right}

    assert manual.decide(states) == Queue(states)
    assert manual.merge(left, right) == left
    assert manual.merge(right, left) == right

    decided = resolved(states, "a")
    assert manual.shown(manual.merge(right, decided)) == {"document": "left"}
    assert manual.decide({"a": manual.merge(left, decided), "b": decided}) == Spread(decided)


def test_manual_copies_what_is_not_in_conflict() -> None:
    manual = ManualQueue()
    old = manual.write(None, LEFT, Stamp(1, 0, "a"))
    new = manual.write(old, RIGHT, Stamp(2, 0, "b"))
    assert manual.decide({"a": old, "b": new}) == Spread(new)
    assert manual.merge(old, new) == new
    assert manual.merge(new, old) == new
