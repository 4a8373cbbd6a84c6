"""Digests: equal if and only if what a client can read is, and by bucket, whatever the order."""

from __future__ import annotations

import math
import struct
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.chroma.digesting import PARTS, bucket_of, canonical, digest_records
from cluster.chroma.interface import Records
from cluster.verify.digest import CollectionDigest, Tally, differing_buckets, header_of


def one(
    record_id: str = "a",
    vector: list[float] | None = None,
    document: str | None = "text",
    metadata: dict[str, Any] | None = None,
    uri: str | None = None,
) -> Records:
    return Records([record_id], [vector or [1.0, 2.0]], [document], [uri], [metadata])


def parts_that_differ(before: Records, after: Records) -> list[str]:
    [first], [second] = digest_records(before), digest_records(after)
    assert (first.whole == second.whole) == (first.parts == second.parts and first.id == second.id)
    return [
        part
        for at, part in enumerate(PARTS)
        if first.parts[at * 8 : at * 8 + 8] != second.parts[at * 8 : at * 8 + 8]
    ]


def next_float32(value: float) -> float:
    """The number whose lowest bit differs."""
    return struct.unpack("<f", struct.pack("<I", struct.unpack("<I", struct.pack("<f", value))[0] ^ 1))[0]


@pytest.mark.parametrize(
    ("changed", "part"),
    [
        ({"vector": [1.0, next_float32(2.0)]}, "vector"),
        ({"vector": [1.0, -2.0]}, "vector"),
        ({"document": "texT"}, "document"),
        ({"document": None}, "document"),
        ({"document": ""}, "document"),
        ({"uri": "file"}, "uri"),
        ({"metadata": {"i": 2}}, "metadata"),
        ({"metadata": {"i": 1.0}}, "metadata"),
        ({"metadata": {"i": True}}, "metadata"),
        ({"metadata": {"i": "1"}}, "metadata"),
        ({"metadata": {"j": 1}}, "metadata"),
        ({"metadata": {"i": 1, "j": None}}, "metadata"),
        ({"metadata": {"i": [1]}}, "metadata"),
        ({"metadata": None}, "metadata"),
    ],
    ids=str,
)
def test_a_change_of_any_part_is_that_part_s_digest(changed: dict[str, Any], part: str) -> None:
    known: dict[str, Any] = {"metadata": {"i": 1}}
    assert parts_that_differ(one(**known), one(**(known | changed))) == [part]


def test_the_order_of_keys_does_not_count() -> None:
    assert parts_that_differ(one(metadata={"a": 1, "b": 2}), one(metadata={"b": 2, "a": 1})) == []


def test_no_metadata_is_empty_metadata() -> None:
    """Chroma answers with either, by how the record was written."""
    assert parts_that_differ(one(metadata=None), one(metadata={})) == []


SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
)


def alike(one: Any, other: Any) -> bool:
    """Whether two values are the same, kinds and bits included."""
    if type(one) is not type(other):
        return False
    if isinstance(one, float):
        return math.copysign(1, one) == math.copysign(1, other) and one == other
    if isinstance(one, list):
        items = cast("list[Any]", one)
        return len(items) == len(other) and all(map(alike, items, other))
    if isinstance(one, dict):
        pairs = cast("dict[str, Any]", one)
        return pairs.keys() == other.keys() and all(alike(pairs[key], other[key]) for key in pairs)
    return bool(one == other)


@given(VALUES, VALUES)
def test_canonical_bytes_stand_for_one_value_only(one: Any, other: Any) -> None:
    assert (canonical(one) == canonical(other)) == alike(one, other)


@given(st.lists(st.text(min_size=1), unique=True, max_size=30), st.randoms())
def test_a_tally_does_not_know_the_order(ids: list[str], draw: Any) -> None:
    digests = [digest for name in ids for digest in digest_records(one(name, [float(len(name)), 1.0]))]
    shuffled = list(digests)
    draw.shuffle(shuffled)
    tallies = [Tally(), Tally()]
    tallies[0].add(digests)
    tallies[1].add(shuffled)
    assert tallies[0].root({}) == tallies[1].root({})
    assert differing_buckets([tally.told() for tally in tallies]) == []


def test_one_record_more_or_twice_is_another_sum_in_its_bucket() -> None:
    [first], [second] = digest_records(one("a")), digest_records(one("b"))
    tallies = [Tally(), Tally(), Tally()]
    tallies[0].add([first])
    tallies[1].add([first, second])
    tallies[2].add([first, first])
    assert len({tally.root({}) for tally in tallies}) == 3
    assert differing_buckets([tallies[0].told(), tallies[1].told()]) == [bucket_of("b")]
    assert differing_buckets([tallies[0].told(), tallies[2].told()]) == [bucket_of("a")]


def test_a_header_has_a_digest_for_each_part() -> None:
    known = {
        "tenant": "t",
        "database": "d",
        "name": "n",
        "metadata": {"a": 1},
        "configuration_json": {"hnsw": {"space": "l2"}},
        "schema": None,
        "dimension": 3,
    }
    before = header_of(known)
    for field, part in (
        ("name", "name"),
        ("metadata", "metadata"),
        ("schema", "configuration"),
        ("dimension", "dimension"),
    ):
        after = header_of(known | {field: "other"})
        assert [one for one in before if before[one] != after[one]] == [part]


def test_what_is_told_is_understood() -> None:
    digest = CollectionDigest("ab", 3, {"name": "cd"}, None, "why", 10, 9)
    assert CollectionDigest.decode(digest.encode()) == digest
    for wrong in (None, [], [1, 2], {"root": 1}):
        with pytest.raises((ValueError, TypeError)):
            CollectionDigest.decode(wrong)
