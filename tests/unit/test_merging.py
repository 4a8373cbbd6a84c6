"""Neighbouring writes as one call, and one write as several: no record is lost, added or moved."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.state.commands import DeleteRecords, WriteRecords
from cluster.state.merging import alike, merge, part_of


def write(*ids: str, kind: Any = "add", home: str = "c1", dimension: int | None = 2, **columns: Any) -> Any:
    vectors = None if dimension is None else tuple(name.encode() for name in ids)
    given = {"metadatas": None, "documents": None, "uris": None, **columns}
    return WriteRecords(kind, home, ids, dimension, vectors, **given)


def delete(*ids: str, home: str = "c1", where: str | None = None) -> DeleteRecords:
    return DeleteRecords(home, ids or None, where, None, None)


@pytest.mark.parametrize(
    ("first", "second", "together"),
    [
        (write("a"), write("b"), True),
        (write("a"), write("b", documents=("text",)), True),
        (write("a"), write("b", kind="upsert"), False),
        (write("a"), write("b", home="c2"), False),
        (write("a"), write("b", dimension=3), False),
        (write("a", kind="update"), write("b", kind="update", dimension=None), False),
        (write("a"), delete("b"), False),
        (delete("a"), write("b"), False),
        (delete("a"), delete("b"), True),
        (delete("a"), delete("b", home="c2"), False),
        (delete("a"), delete(where='{"k": 1}'), False),
    ],
)
def test_only_what_means_the_same_in_one_call_is_alike(first: Any, second: Any, together: bool) -> None:
    assert alike(first, second) is together


def test_a_column_that_one_write_lacks_is_none_for_its_records() -> None:
    merged = merge([write("a", "b"), write("c", documents=("text",)), write("d", model="m:1:2")])
    assert merged == write("a", "b", "c", "d", documents=(None, None, "text", None), model="m:1:2")


def test_deletes_are_merged_in_order() -> None:
    assert merge([delete("b"), delete("a", "c")]) == delete("b", "a", "c")


@given(st.integers(1, 40), st.integers(1, 12))
def test_the_parts_of_a_write_merge_to_it(count: int, size: int) -> None:
    names = [f"id{number}" for number in range(count)]
    whole = write(*names, documents=tuple(names), metadatas=tuple({"n": at} for at in range(count)))
    parts = [part_of(whole, first, first + size) for first in range(0, count, size)]
    assert all(len(part.ids) <= size for part in parts)
    assert merge(list(parts)) == whole
