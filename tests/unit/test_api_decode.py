"""Bodies to values: what is read, what is left to Chroma, what is refused once the collection is known."""

from __future__ import annotations

import base64
import json
import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.api.decode import (
    check_read_level,
    decode_collection_change,
    decode_delete,
    decode_get,
    decode_name,
    decode_new_collection,
    decode_page,
    decode_query,
    decode_records,
)
from cluster.api.fields import ASK, Undecodable
from cluster.errors import Refusal


def packed(*values: float) -> bytes:
    return struct.pack(f"<{len(values)}f", *values)


def records(kind: Any = "add", **body: Any) -> Any:
    return decode_records(kind, json.dumps(body).encode())


def refusal(found: Any) -> str:
    assert isinstance(found.problem, Refusal)
    assert found.problem.status == 400
    return found.problem.message


def test_json_vectors_become_float32_bytes() -> None:
    found = records(ids=["a", "b"], embeddings=[[1, 2.5], [3.1, -0.0]])
    assert found.vectors.rows == (packed(1, 2.5), packed(3.1, -0.0))
    assert found.vectors.dimension == 2
    assert (found.problem, found.uneven, found.text_only) == (None, False, False)


def test_base64_vectors_become_the_same_bytes() -> None:
    text = base64.b64encode(packed(1, 2.5)).decode()
    assert records(ids=["a"], embeddings=[text]).vectors == records(ids=["a"], embeddings=[[1, 2.5]]).vectors


@given(st.lists(st.lists(st.floats(-3e38, 3e38), min_size=2, max_size=2), min_size=1, max_size=5))
def test_vectors_are_rounded_once(rows: list[list[float]]) -> None:
    found = records(ids=["a"] * len(rows), embeddings=rows)
    assert found.vectors.rows == tuple(np.array(row, dtype="<f4").tobytes() for row in rows)


@pytest.mark.parametrize(
    ("embeddings", "words"),
    [
        ([[]], "Each embedding must have at least 1 dimension"),
        ([[1], []], "Each embedding must have at least 1 dimension"),
        ([[1e39]], "must not contain NaN or Infinity"),
        ([[1], [1, 1e39]], "must not contain NaN or Infinity"),
        ([""], "Each embedding must have at least 1 dimension"),
        (["AACAPwAAAEAAAA=="], "Invalid byte length: 10 bytes"),
        ([base64.b64encode(packed(1, float("nan"))).decode()], "at embedding index 1: NaN"),
        ([base64.b64encode(packed(float("-inf"))).decode()], "at embedding index 0: -inf"),
    ],
)
def test_what_is_wrong_with_vectors(embeddings: Any, words: str) -> None:
    assert words in refusal(records(ids=["a"], embeddings=embeddings))


@pytest.mark.parametrize("text", ["****", "AACAP", "AAAAAAAAAAAAAAB=", "é", " AACAPw==", "AACAPw"])
def test_broken_base64_is_worded_by_chroma(text: str) -> None:
    assert records(ids=["a"], embeddings=[text]).problem == ASK


@pytest.mark.parametrize(
    "embeddings",
    [[[True]], [[None]], [["1"]], [None], [1], {}, "x", [[1], "AACAPw=="], [[[1]]], [{"a": 1}]],
)
def test_what_are_no_vectors(embeddings: Any) -> None:
    with pytest.raises(Undecodable):
        records(ids=["a"], embeddings=embeddings)


def test_ragged_and_uneven() -> None:
    assert records(ids=["a", "b"], embeddings=[[1], [1, 2]]).vectors.ragged
    assert records(ids=["a"], embeddings=[]).uneven
    assert records(ids=["a"], embeddings=[[1]], documents=["x", "y"]).uneven
    assert not records(ids=[], embeddings=[]).uneven


def test_updates_may_leave_vectors_out() -> None:
    found = records("update", ids=["a", "b"], embeddings=[None, [1, 2]])
    assert found.vectors.rows == (None, packed(1, 2))
    assert found.vectors.dimension == 2
    assert records("update", ids=["a"]).vectors is None
    assert records("update", ids=["a"], embeddings=[None]).vectors.dimension is None


def test_text_without_vectors() -> None:
    for kind in ("add", "upsert", "update"):
        found = records(kind, ids=["a"], documents=["x"])
        assert found.text_only
        assert found.vectors is None
    assert records("add", ids=["a"], documents=["x"], embeddings=None).text_only
    # Chroma has this one, and its meaning stays.
    assert not records("update", ids=["a"], documents=["x"], embeddings=None).text_only
    for documents in (None, [], [None], ["x", None]):
        with pytest.raises(Undecodable):
            records("add", ids=["a"], documents=documents)


@pytest.mark.parametrize(
    ("value", "read"),
    [
        (1, 1),
        (True, True),
        (1.5, 1.5),
        ("x", "x"),
        (2**63, float(2**63)),
        (-(2**63), -(2**63)),
        ([1, 2], [1, 2]),
        ([1, 2.5], [1.0, 2.5]),
        ([True], [True]),
        (["a"], ["a"]),
        ({"indices": [1], "values": [2]}, {"#type": "sparse_vector", "indices": [1], "values": [2]}),
    ],
)
def test_metadata_values(value: Any, read: Any) -> None:
    found = records(ids=["a"], embeddings=[[1]], metadatas=[{"k": value}])
    assert found.metadatas == ({"k": read},)
    assert type(found.metadatas[0]["k"]) is type(read)
    assert found.problem is None


@pytest.mark.parametrize(
    "value",
    [
        {},
        {"a": 1},
        [None],
        [[1]],
        [1, "a"],
        [True, 1],
        {"indices": [1], "values": ["x"]},
        {"indices": [-1], "values": [1]},
        {"indices": [1.0], "values": [1]},
        {"#type": "x", "indices": [1], "values": [1]},
    ],
)
def test_metadata_values_that_chroma_does_not_read(value: Any) -> None:
    with pytest.raises(Undecodable):
        records(ids=["a"], embeddings=[[1]], metadatas=[{"k": value}])


def test_null_in_metadata_is_for_updates() -> None:
    with pytest.raises(Undecodable):
        records("add", ids=["a"], embeddings=[[1]], metadatas=[{"k": None}])
    assert records("upsert", ids=["a"], embeddings=[[1]], metadatas=[{"k": None}]).metadatas == ({"k": None},)


def test_an_empty_list_leaves_no_trace() -> None:
    assert records("add", ids=["a"], embeddings=[[1]], metadatas=[{"k": []}]).metadatas == ({},)
    assert records("update", ids=["a"], metadatas=[{"k": []}]).metadatas == ({"k": None},)


@pytest.mark.parametrize(
    "metadata",
    [
        {"": 1},
        {"#a": 1},
        {"$a": 1},
        {"s": {"indices": [2, 1], "values": [1, 1]}},
        {"s": {"indices": [1], "values": []}},
        {"s": {"indices": [1], "values": [1], "tokens": []}},
    ],
)
def test_metadata_that_chroma_finds_invalid(metadata: Any) -> None:
    found = records(ids=["a", "b"], embeddings=[[1], [2]], metadatas=[None, metadata])
    assert refusal(found) == "Validation error: metadatas: Invalid metadata at index 1"


def test_two_objections_at_once() -> None:
    found = records(ids=["a"], embeddings=[[]], metadatas=[{"#a": 1}])
    assert refusal(found).split("\n") == [
        "Validation error: embeddings: Each embedding must have at least 1 dimension",
        "metadatas: Invalid metadata at index 0",
    ]


@pytest.mark.parametrize("value", [1, True, 1.5, ["x"], {"indices": [1], "values": [1]}])
def test_what_would_break_chroma_is_refused(value: Any) -> None:
    harmful = {"chroma:document": value}
    for documents in (None, [None]):
        found = records("upsert", ids=["a"], embeddings=[[1]], metadatas=[harmful], documents=documents)
        assert "chroma:document" in refusal(found)
    assert records(ids=["a"], embeddings=[[1]], metadatas=[harmful], documents=["x"]).problem is None
    assert records(ids=["a"], embeddings=[[1]], metadatas=[{"chroma:document": "x"}]).problem is None


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"null",
        b"[]",
        b"5",
        b'{"ids":["a"],"ids":["b"],"embeddings":[[1]]}',
        b'{"ids":["\xff"]}',
        b'{"ids":[1],"embeddings":[[1]]}',
        b'{"ids":null,"embeddings":[[1]]}',
        b'{"ids":["a"],"embeddings":[[NaN]]}',
    ],
)
def test_bodies_left_to_chroma(body: bytes) -> None:
    with pytest.raises(Undecodable):
        decode_records("add", body)


def test_a_field_named_twice_inside_is_no_field_named_twice() -> None:
    body = b'{"ids":["ids"],"embeddings":[[1]],"metadatas":[{"ids":"x","embeddings":"y"}],"ids ":[]}'
    assert decode_records("add", body).ids == ("ids",)


def test_get() -> None:
    found = decode_get(b"{}")
    assert (found.ids, found.where, found.limit, found.offset) == (None, None, None, 0)
    assert found.include == ["documents", "metadatas"]
    found = decode_get(b'{"ids":["a"],"where":{"a":1.0},"limit":5,"offset":2,"include":["uris","uris"]}')
    assert (found.where, found.limit, found.offset, found.include) == ('{"a":1.0}', 5, 2, ["uris", "uris"])


@pytest.mark.parametrize(
    "body",
    [
        {"limit": -1},
        {"limit": 2**32},
        {"limit": 1.0},
        {"limit": True},
        {"limit": "1"},
        {"include": None},
        {"include": ["data"]},
        {"ids": "a"},
        {"ids": [1]},
        {"offset": []},
    ],
)
def test_gets_left_to_chroma(body: Any) -> None:
    with pytest.raises(Undecodable):
        decode_get(json.dumps(body).encode())


def nested(levels: int) -> bytes:
    return b'{"where":' + b"[" * levels + b"]" * levels + b"}"


def test_depth_is_chromas() -> None:
    assert decode_get(nested(126)).where is not None
    for levels in (127, 500, 1000):
        with pytest.raises(Undecodable):
            decode_get(nested(levels))


def test_query() -> None:
    found = decode_query(b'{"query_embeddings":[[1,2],[3]],"n_results":0}')
    assert [row.tolist() for row in found.rows or []] == [[1, 2], [3]]
    assert (found.n_results, found.texts) == (0, None)
    found = decode_query(b'{"query_texts":["x"]}')
    assert (found.rows, found.texts, found.n_results) == (None, ["x"], 10)
    assert decode_query(b'{"query_texts":["x"],"query_embeddings":[]}').rows == []
    for body in (
        b"{}",
        b'{"query_texts":"x"}',
        b'{"query_embeddings":["AACAPw=="]}',
        b'{"query_embeddings":null}',
    ):
        with pytest.raises(Undecodable):
            decode_query(body)


def test_delete() -> None:
    found = decode_delete(b'{"ids":["a"],"where":null,"limit":1}')
    assert (found.ids, found.where, found.where_document, found.limit) == (("a",), None, None, 1)


def test_collections() -> None:
    found = decode_new_collection(b'{"name":"x","metadata":{"a":[1]},"configuration":{"hnsw":null},"more":1}')
    assert (found.name, found.metadata, found.configuration) == ("x", {"a": [1]}, '{"hnsw":null}')
    assert not found.get_or_create
    for body in (
        b'{"name":"x","get_or_create":null}',
        b'{"name":5}',
        b'{"name":"x","metadata":{"a":null}}',
        b'{"name":"x","schema":[]}',
    ):
        with pytest.raises(Undecodable):
            decode_new_collection(body)
    change = decode_collection_change(b'{"new_metadata":{"a":null}}')
    assert (change.new_name, change.new_metadata, change.new_configuration) == (None, {"a": None}, None)


def test_names() -> None:
    assert decode_name(b'{"name":"x","y":1}') == "x"
    assert decode_name(b'{"new_name":"x"}', "new_name") == "x"
    with pytest.raises(Undecodable):
        decode_name(b'{"name":null}')


def test_pages() -> None:
    assert (decode_page("").limit, decode_page("").offset) == (None, 0)
    page = decode_page("limit=%2B3&offset=2&other=x")
    assert (page.limit, page.offset) == (3, 2)
    for query in (
        "limit=",
        "limit=-1",
        "limit=1.5",
        "limit=4294967296",
        "limit=1&limit=2",
        "offset=x",
        "limit=٣",
    ):
        with pytest.raises(Undecodable):
            decode_page(query)


def test_read_levels() -> None:
    check_read_level("read_level=index_only")
    with pytest.raises(Undecodable):
        check_read_level("read_level=x")
