"""Read guarantees: what a read waits for, what is too stale, and what is refused."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.errors import Refusal, Unavailable
from cluster.reads import (
    OUT_OF_TOUCH_MS,
    Guarantee,
    Level,
    behind,
    check_age,
    check_freshness,
    longest_wait_s,
    needs_read_index,
    parse_guarantee,
    wanted_index,
)

LINEARIZABLE, SESSION, EVENTUAL = Level.LINEARIZABLE, Level.SESSION, Level.EVENTUAL


def test_without_headers_a_read_has_the_default_level_and_no_bounds() -> None:
    assert parse_guarantee(None, None, None) == Guarantee(SESSION, 0, None)
    assert parse_guarantee(None, None, None, EVENTUAL) == Guarantee(EVENTUAL, 0, None)


def test_headers_say_what_the_read_asks_for() -> None:
    assert parse_guarantee("linearizable", " 17 ", None) == Guarantee(LINEARIZABLE, 17, None)
    assert parse_guarantee(" Eventual", None, "250") == Guarantee(EVENTUAL, 0, 250.0)
    assert parse_guarantee("session", str(2**63 - 1), "0") == Guarantee(SESSION, 2**63 - 1, 0.0)


@pytest.mark.parametrize("level", ["", "strong", "sessionx", "x" * 500])
def test_an_unknown_level_is_refused_with_the_levels_that_exist(level: str) -> None:
    with pytest.raises(Refusal) as caught:
        parse_guarantee(level, None, None)
    assert (caught.value.status, caught.value.error) == (400, "InvalidArgumentError")
    assert "`linearizable`, `session`, `eventual`" in caught.value.message
    assert len(caught.value.message) < 250


@pytest.mark.parametrize(
    "text", ["", "-1", "1.5", "abc", "1e3", "²", "٣", str(2**63), "9" * 5000, "1_0", "+1"]
)
def test_an_odd_number_is_refused(text: str) -> None:
    with pytest.raises(Refusal, match="X-Chroma-Min-Index"):
        parse_guarantee(None, text, None)
    if text != str(2**63):
        with pytest.raises(Refusal, match="X-Max-Staleness-Ms"):
            parse_guarantee(None, None, text)


@given(st.text(), st.text(), st.text())
def test_any_headers_parse_or_are_refused(level: str, index: str, staleness: str) -> None:
    with contextlib.suppress(Refusal):
        assert parse_guarantee(level, index, staleness).min_index >= 0


@pytest.mark.parametrize(
    ("guarantee", "read_index", "commit_index", "expected"),
    [
        (Guarantee(LINEARIZABLE), 10, 5, 10),
        (Guarantee(LINEARIZABLE, 12), 10, 5, 12),
        (Guarantee(LINEARIZABLE, 3), 10, 50, 10),
        (Guarantee(SESSION), None, 50, 0),
        (Guarantee(SESSION, 7), None, 5, 7),
        (Guarantee(SESSION, 7, 100), None, 9, 9),
        (Guarantee(SESSION, 7, 100), None, 3, 7),
        (Guarantee(EVENTUAL), None, 50, 0),
        (Guarantee(EVENTUAL, 7), None, 50, 0),
        (Guarantee(EVENTUAL, 7, 100), None, 50, 50),
    ],
)
def test_the_index_a_read_waits_for(
    guarantee: Guarantee, read_index: int | None, commit_index: int, expected: int
) -> None:
    assert wanted_index(guarantee, read_index, commit_index) == expected
    assert needs_read_index(guarantee) is (read_index is not None)


def test_a_linearizable_read_without_a_read_index_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="read index"):
        wanted_index(Guarantee(LINEARIZABLE), None, 5)


@pytest.mark.parametrize(
    ("guarantee", "contact_ms", "served"),
    [
        (Guarantee(EVENTUAL), 1e9, True),
        (Guarantee(EVENTUAL, 0, 100), 1e9, True),
        (Guarantee(SESSION), OUT_OF_TOUCH_MS, True),
        (Guarantee(SESSION), OUT_OF_TOUCH_MS + 1, False),
        (Guarantee(SESSION, 0, 1e6), OUT_OF_TOUCH_MS + 1, False),
        (Guarantee(SESSION, 0, 10), 11, True),
        (Guarantee(LINEARIZABLE), 1e9, True),
        (Guarantee(LINEARIZABLE, 0, 1), 1e9, True),
    ],
)
def test_who_may_be_served_after_how_long_without_a_majority(
    guarantee: Guarantee, contact_ms: float, served: bool
) -> None:
    if served:
        check_freshness(guarantee, contact_ms, "node-1")
    else:
        with pytest.raises(Unavailable, match="node-1") as caught:
            check_freshness(guarantee, contact_ms, "node-1")
        assert caught.value.status == 503


@pytest.mark.parametrize("level", Level)
def test_a_bound_holds_at_every_level(level: Level) -> None:
    check_age(Guarantee(level), float("inf"), "node-1")
    check_age(Guarantee(level, 0, 100), 100, "node-1")
    for age_ms in (100.1, float("inf")):
        with pytest.raises(Unavailable, match=r"node-1 .* allows 100 ms.*X-Max-Staleness-Ms") as caught:
            check_age(Guarantee(level, 0, 100), age_ms, "node-1")
        assert caught.value.status == 503


@pytest.mark.parametrize(
    ("bound_ms", "age_ms", "expected_s"), [(None, 1e9, 5), (300, 100, 0.2), (300, 400, 0), (1e9, 0, 5)]
)
def test_nobody_waits_longer_than_the_bound_allows(
    bound_ms: float | None, age_ms: float, expected_s: float
) -> None:
    assert longest_wait_s(Guarantee(EVENTUAL, 0, bound_ms), age_ms, 5) == pytest.approx(expected_s)


def test_the_answer_of_a_node_that_is_behind_names_both_indices() -> None:
    error = behind(20, 17, "node-3")
    assert error.status == 503
    assert "node-3" in error.message
    assert "17" in error.message
    assert "20" in error.message
