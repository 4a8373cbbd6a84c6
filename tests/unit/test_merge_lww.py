"""Last write wins: it converges, and what it discards had been acknowledged."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from evaluation.systems.naive.lww import LastWriteWins
from evaluation.systems.naive.records import Change, Stamp
from evaluation.systems.naive.strategy import Spread
from tests.unit.merging import STEPS, Members, assert_semilattice, assert_survives_storage


def write(wall_us: int, node: str, value: str) -> object:
    return LastWriteWins().write(None, Change({"document": value}), Stamp(wall_us, 0, node))


@given(STEPS, st.booleans())
def test_merging_is_a_semilattice(steps: list[tuple[str, str, int, int]], tombstones: bool) -> None:
    lww = LastWriteWins(tombstones=tombstones)
    states = Members(lww).run(steps).three()
    if states is not None:
        assert_semilattice(lww, states)
        for state in states:
            assert_survives_storage(lww, state)


def test_of_two_writes_the_later_one_remains() -> None:
    lww = LastWriteWins()
    early, late = write(1, "b", "early"), write(2, "a", "late")
    assert lww.merge(early, late) == lww.merge(late, early) == late


def test_a_sequential_write_at_a_slow_clock_is_discarded() -> None:
    lww = LastWriteWins()
    first = write(5_000_000, "fast", "first")
    second = lww.write(first, Change({"document": "second"}), Stamp(1_000_000, 0, "slow"))
    assert lww.shown(second) == {"document": "second"}, "its member acknowledges and shows it"
    assert lww.merge(second, first) == first, "until the agent comes"


def test_without_tombstones_a_delete_is_undone_by_who_has_not_seen_it() -> None:
    lww = LastWriteWins()
    kept = write(1, "a", "kept")
    assert lww.delete(kept, Stamp(2, 0, "b")) is None
    assert lww.decide({"a": kept}) == Spread(kept)


def test_with_tombstones_the_later_delete_wins() -> None:
    lww = LastWriteWins(tombstones=True)
    kept = write(1, "a", "kept")
    gone = lww.delete(kept, Stamp(2, 0, "b"))
    assert gone is not None
    assert lww.shown(lww.merge(kept, gone)) is None
