"""Bounds follow the size of a write, and whoever waits further out waits longer."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from wire.patience import body_bound_s, write_bound_s

MIB = 1024 * 1024


def test_a_small_write_has_the_base_and_a_large_one_minutes() -> None:
    assert write_bound_s(30.0, 0, 0) == 30.0
    assert 30.0 < write_bound_s(30.0, 300, 1) < 30.1
    assert 50 < write_bound_s(30.0, 100_000, 5_000) < 70
    assert write_bound_s(30.0, 30 * MIB, 5_000) > 300


@given(st.integers(0, 2**40), st.integers(0, 10**7))
def test_no_size_waits_for_ever(size: int, records: int) -> None:
    assert write_bound_s(30.0, size, records) <= 630.0
    assert body_bound_s(30.0, size) <= 630.0


@given(st.integers(0, 5461), st.integers(40, 8000))
def test_who_sees_only_the_body_waits_at_least_as_long(records: int, record_bytes: int) -> None:
    body = records * record_bytes
    # Vectors are at most as large in the log as in a body: base64 has a third more, text a multiple.
    inner = write_bound_s(30.0, body * 3 // 4, records)
    assert body_bound_s(120.0, body) >= inner
    assert body_bound_s(45.0, body) >= inner
