"""Answers: field by field as Chroma sends them, floats as 32-bit floats."""

from __future__ import annotations

import json
import struct

from hypothesis import given
from hypothesis import strategies as st

from cluster.api.encode import encode_error, encode_neighbours, encode_records
from cluster.chroma.interface import Neighbours, Records

#: What the engine hands over: 32-bit floats widened to 64 bits.
WIDE = [struct.unpack("<f", struct.pack("<f", value))[0] for value in (3.1, 0.009999981, 1e-7)]


def test_records() -> None:
    found = Records(["a", "b"], [WIDE, [1.0, 2.0, 3.0]], ["x", None], None, [{"k": 1.0}, None])
    assert encode_records(found, ["embeddings", "documents", "metadatas"]) == (
        b'{"ids":["a","b"],"embeddings":[[3.1,0.009999981,1e-7],[1.0,2.0,3.0]],"documents":["x",null],"uris":null,'
        b'"metadatas":[{"k":1.0},null],"include":["embeddings","documents","metadatas"]}'
    )


def test_no_records() -> None:
    body = json.loads(encode_records(Records([], [], None, [], None), []))
    assert body == {
        "ids": [],
        "embeddings": [],
        "documents": None,
        "uris": [],
        "metadatas": None,
        "include": [],
    }


def test_neighbours() -> None:
    found = Neighbours([["a"], []], [[[WIDE[0]]], []], [["x"], []], None, [[None], []], [[WIDE[1]], []])
    assert encode_neighbours(found, ["distances"]) == (
        b'{"ids":[["a"],[]],"embeddings":[[[3.1]],[]],"documents":[["x"],[]],"uris":null,"metadatas":[[null],[]],'
        b'"distances":[[0.009999981],[]],"include":["distances"]}'
    )


def test_missing_vectors_and_distances() -> None:
    found = Neighbours([["a", "b"]], [[None, [WIDE[0]]]], None, None, None, [[None, WIDE[0]]])
    body = json.loads(encode_neighbours(found, []))
    assert body["embeddings"] == [[None, [3.1]]]
    assert body["distances"] == [[None, 3.1]]


def test_not_a_number_is_null() -> None:
    found = Neighbours([["a"]], None, None, None, None, [[float("nan")]])
    assert json.loads(encode_neighbours(found, []))["distances"] == [[None]]


@given(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1))
def test_floats_come_back_bit_for_bit(values: list[float]) -> None:
    body = json.loads(encode_records(Records(["a"], [values], None, None, None), []))
    count = len(values)
    assert struct.pack(f"<{count}f", *body["embeddings"][0]) == struct.pack(f"<{count}f", *values)


def test_errors() -> None:
    assert encode_error("NotFoundError", 'no "x"') == b'{"error":"NotFoundError","message":"no \\"x\\""}'
