"""Filters, values, elections and leases of the Postgres system: decisions without a server."""

from __future__ import annotations

import json
import struct
from typing import Any

import numpy as np
import orjson
import pytest

from evaluation.systems.postgres import values
from evaluation.systems.postgres.election import Candidate, choose, lease_over, needed, parse_lsn
from evaluation.systems.postgres.filters import Parameters, Unreadable, condition, to_postgres_regex
from evaluation.systems.postgres.profiles import PROFILES
from evaluation.systems.postgres.routing import Primary, Readers, Supervised, Word


def _condition(where: Any = None, where_document: Any = None) -> tuple[str, list[Any]]:
    parameters = Parameters()
    texts = (None if each is None else json.dumps(each) for each in (where, where_document))
    return condition(*texts, parameters)[0], parameters.values


def test_values_never_enter_the_statement() -> None:
    evil = "'; DROP TABLE x; --"
    text, given = _condition({"$and": [{evil: evil}, {evil: {"$gt": 1}}]}, {"$contains": evil})
    assert evil not in text
    assert f"%{evil}%" in given


def test_no_filter_is_true() -> None:
    assert _condition() == ("true", [])
    assert _condition({"$and": []})[0] == "true"
    assert _condition({"$or": []})[0] == "false"


def test_like_is_taken_literally() -> None:
    assert _condition(None, {"$contains": "50%_\\"})[1] == ["%50\\%\\_\\\\%"]


@pytest.mark.parametrize(
    "where",
    [
        [],
        {},
        {"a": 1, "b": 2},
        {"a": None},
        {"a": {"$gt": "text"}},
        {"a": {"$x": 1}},
        {"$gt": 1},
        {"a": {"$in": []}},
        {"a": {"$in": [1, "x"]}},
        {"a": {"$in": [1, 1.5]}},
        {"a": {"$in": 5}},
        {"$and": {"a": 1}},
        {"a": 2**63},
        {"a": {"$regex": "x"}},
        {"a": {"$eq": [1]}},
    ],
)
def test_what_chroma_does_not_read_either(where: Any) -> None:
    with pytest.raises(Unreadable):
        _condition(where)


@pytest.mark.parametrize("where", [[], {}, {"$contains": 5}, {"$x": "a"}, {"$and": "x"}])
def test_unreadable_document_filters(where: Any) -> None:
    with pytest.raises(Unreadable):
        _condition(None, where)


def test_regular_expressions_are_reported_and_translated() -> None:
    parameters = Parameters()
    _, patterns = condition(None, '{"$regex": "x.y"}', parameters)
    assert (patterns, parameters.values) == (["x.y"], ["(?p)x.y"])
    assert to_postgres_regex(r"(?i)\bone\b(?P<n>x)\\b") == r"(?ip)\yone\y(x)\\b"


@pytest.mark.parametrize("number", [1.0, -2.5, 1e16, 1e300, 1.7976931348623157e308, 5e-324, 1e-7, 123456.75])
def test_floats_stay_floats_in_jsonb(number: float) -> None:
    text = values.metadata_text({"k": number, "list": [number]})
    assert text is not None
    assert "." in text or "e-" in text
    assert orjson.loads(text) == {"k": number, "list": [number]}


def test_zero_characters_are_refused() -> None:
    assert values.metadata_text({"a": "\\u0000"}) == '{"a":"\\\\u0000"}'
    for metadata in ({"a": "x\x00"}, {"x\x00": 1}, {"a": ["\x00"]}):
        with pytest.raises(values.Unstorable):
            values.metadata_text(metadata)


def test_vectors_survive() -> None:
    row = struct.pack("<3f", 1.5, -0.0, 3e38)
    encoded = values.encode_vector(row)
    assert encoded[:4] == b"\x00\x03\x00\x00"
    assert np.array_equal(values.decode_vector(encoded), np.frombuffer(row, dtype="<f4"))


# ---------------------------------------------------------------------------------- elections


def test_the_most_advanced_replica_is_chosen() -> None:
    found = [Candidate("pg-2", 10), Candidate("pg-3", 12)]
    assert choose(found, 2, 0) == choose(found, 2, 1) == choose(found, 2, 2) == "pg-3"
    assert choose([Candidate("pg-3", 5), Candidate("pg-2", 5)], 2, 0) == "pg-2"


def test_one_replica_is_not_enough_where_any_one_may_have_acknowledged() -> None:
    only = [Candidate("pg-2", 10)]
    assert needed(2, 1) == 2
    assert choose(only, 2, 1) is None
    assert choose(only, 2, 0) == choose(only, 2, 2) == "pg-2"
    assert choose([], 2, 0) is None


def test_positions_are_compared_as_numbers() -> None:
    assert parse_lsn("1/0") > parse_lsn("0/FFFFFFFF") > parse_lsn("0/9") > parse_lsn(None)


def test_names_of_the_replicas() -> None:
    assert PROFILES["postgres-async"].standby_names("pg-1") == ""
    assert PROFILES["postgres-quorum"].standby_names("pg-2") == 'ANY 1 ("pg-1","pg-3")'
    assert PROFILES["postgres-all"].standby_names("pg-1") == 'ANY 2 ("pg-2","pg-3")'


# ------------------------------------------------------------------------------------- routing


def test_a_word_is_a_lease() -> None:
    now = 100.0
    route = Supervised("api-1", "http://x", 0.7, lambda: now)
    assert route.primary() is None
    route.hear(Word("pg-1", 3, ("pg-1", "pg-2"), 100.0))
    assert route.primary() == Primary("pg-1", 3)
    now = 100.7
    assert route.primary() is None
    assert route.readable() == ("pg-1", "pg-2")


def test_the_supervisor_waits_for_all_leases() -> None:
    assert lease_over([], 5.0, 0.7)
    assert not lease_over([1.0, 4.5], 5.0, 0.7)
    assert lease_over([1.0, 4.2], 5.0, 0.7)


def test_reads_go_round_and_avoid_who_was_silent() -> None:
    members = ("pg-1", "pg-2", "pg-3")
    route = Supervised("api-1", "http://x", 0.7, lambda: 0.0)
    readers = Readers(members, "pg-2", "spread")
    assert [readers.order(route, 0.0)[0] for _ in range(4)] == ["pg-1", "pg-2", "pg-3", "pg-1"]
    readers.avoid("pg-2", 0.0)
    assert readers.order(route, 0.5) == ["pg-3", "pg-1", "pg-2"]
    assert Readers(members, "pg-2", "local").order(route, 0.0)[0] == "pg-2"
    route.hear(Word("pg-3", 1, ("pg-1", "pg-3"), 0.0))
    assert Readers(members, "pg-2", "primary").order(route, 0.0) == ["pg-3", "pg-1"]
    with pytest.raises(ValueError, match="reads"):
        Readers(members, "pg-2", "nearest")
