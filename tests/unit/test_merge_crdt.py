"""The observed-remove set with registers: converges, adds win, and one of two values of a field is lost."""

from __future__ import annotations

from hypothesis import given

from evaluation.systems.naive.clock import following
from evaluation.systems.naive.crdt import ObservedRemove
from evaluation.systems.naive.records import Change, Stamp
from tests.unit.merging import STEPS, Members, assert_semilattice, assert_survives_storage, same


@given(STEPS)
def test_merging_is_a_semilattice(steps: list[tuple[str, str, int, int]]) -> None:
    crdt = ObservedRemove()
    states = Members(crdt).run(steps).three()
    if states is not None:
        assert_semilattice(crdt, states)
        for state in states:
            assert_survives_storage(crdt, state)


@given(STEPS)
def test_members_agree_after_one_round_in_any_order(steps: list[tuple[str, str, int, int]]) -> None:
    crdt = ObservedRemove()
    states = Members(crdt).run(steps).three()
    if states is not None:
        a, b, c = states
        first = crdt.merge(a, crdt.merge(b, c))
        second = crdt.merge(crdt.merge(c, a), crdt.merge(b, a))
        assert same(crdt, first, second)


@given(STEPS)
def test_live_dots_are_in_the_context(steps: list[tuple[str, str, int, int]]) -> None:
    for state in Members(ObservedRemove()).run(steps).states.values():
        assert all(state.seen(dot) for dot in state.live)


def test_a_delete_removes_what_it_saw_and_an_unseen_write_survives_it() -> None:
    crdt = ObservedRemove()
    base = crdt.write(None, Change({"document": "d", "m:a": 1}), Stamp(1, 0, "a"))
    deleted = crdt.delete(base, Stamp(5, 0, "b"))
    written = crdt.write(base, Change({"m:a": 2}), Stamp(2, 0, "a"))
    assert deleted is not None

    assert crdt.shown(crdt.merge(base, deleted)) is None
    # Earlier by the clock, and yet it lives, with the fields that its member knew.
    assert crdt.shown(crdt.merge(written, deleted)) == {"document": "d", "m:a": 2}


def test_a_delete_of_what_is_not_known_here_does_nothing() -> None:
    assert ObservedRemove().delete(None, Stamp(1, 0, "a")) is None


def test_concurrent_writes_merge_by_field_and_one_value_of_a_field_is_lost() -> None:
    crdt = ObservedRemove()
    base = crdt.write(None, Change({"document": "d", "m:a": 0}), Stamp(1, 0, "a"))
    left = crdt.write(base, Change({"m:a": 1, "m:left": True}), Stamp(2, 0, "a"))
    right = crdt.write(base, Change({"m:a": 2}), Stamp(3, 0, "b"))

    merged = crdt.merge(left, right)

    assert crdt.shown(merged) == {"document": "d", "m:a": 2, "m:left": True}
    assert crdt.conflicts(merged) == 1
    assert crdt.conflicts(crdt.write(merged, Change({"m:a": 3}), Stamp(4, 0, "a"))) == 0


def test_written_again_after_a_delete_it_has_nothing_of_before() -> None:
    crdt = ObservedRemove()
    base = crdt.write(None, Change({"document": "d", "m:a": 0}), Stamp(1, 0, "a"))
    gone = crdt.delete(base, Stamp(2, 0, "a"))
    again = crdt.write(gone, Change({"m:b": 1}), Stamp(3, 0, "a"))
    assert crdt.shown(again) == {"m:b": 1}
    assert crdt.shown(crdt.merge(base, again)) == {"m:b": 1}


def test_hybrid_time_never_goes_back() -> None:
    last = Stamp(100, 4, "a")
    assert following(last, 50, "a") == Stamp(100, 5, "a")
    assert following(last, 100, "a") == Stamp(100, 5, "a")
    assert following(last, 101, "a") == Stamp(101, 0, "a")
