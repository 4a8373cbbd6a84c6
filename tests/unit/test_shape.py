"""What a JSON body is made of, against a reader that goes byte by byte; too much of it is not even read."""

from __future__ import annotations

import json
import random
from typing import Any

import orjson
import pytest

from cluster.api import fields, limits, shape
from cluster.api.decode import decode_get, decode_new_collection, decode_records
from cluster.errors import Refusal

WORDS = ["", "ids", '"ids"', "\\", '\\"', "[{:", "a\\\\", "\u00e9]", "where"]


def some(chance: random.Random, depth: int) -> Any:
    kind = chance.randrange(6 if depth < 4 else 4)
    if kind < 2:
        return chance.choice(WORDS)
    if kind < 4:
        return chance.choice([0, 1.5, None, True])
    inner = [some(chance, depth + 1) for _ in range(chance.randrange(4))]
    return inner if kind == 4 else {chance.choice(WORDS): one for one in inner}


def counted(value: Any) -> int:
    if isinstance(value, dict):
        return 1 + len(value) + sum(map(counted, value.values()))
    return 1 + sum(map(counted, value)) if isinstance(value, list) else 0


@pytest.mark.parametrize("seed", range(200))
def test_parts_are_those_that_a_reader_finds_wherever_pieces_begin(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    chance = random.Random(seed)
    monkeypatch.setattr(shape, "_PIECE", chance.randrange(1, 9))
    value = some(chance, 0)
    body = json.dumps(value, ensure_ascii=chance.random() < 0.5, indent=chance.choice([None, 1])).encode()
    assert shape.parts(body, -1) == counted(value)


@pytest.mark.parametrize("seed", range(200))
def test_outermost_names_that_come_twice_are_found(seed: int) -> None:
    chance = random.Random(seed)
    pairs = [(chance.choice(["ids", "where", "x"]), some(chance, 1)) for _ in range(chance.randrange(5))]
    gap = chance.choice(["", " ", "\n\t "])
    text = ",".join(f"{gap}{json.dumps(name)}{gap}:{json.dumps(value)}" for name, value in pairs)
    names = [name for name, _ in pairs]
    twice = any(names.count(name) > 1 for name in ("ids", "where"))
    body = f"{{{text}{gap}}}".encode()
    assert shape.names_twice(body, ("ids", "where"), chance.randrange(1, 9)) is twice


def test_few_parts_are_not_counted_one_by_one() -> None:
    assert shape.parts(b'{"a":"[[["}', 100) == 5
    assert shape.parts(b'{"a":"[[["}', 4) == 2
    assert shape.parts(b"", -1) == 0


@pytest.mark.parametrize(
    "body",
    [
        b'{"ids":[' + b"[]," * 1_000_001 + b"1]}",
        b'{"schema":{' + b'"a":1,' * 1_000_001 + b'"b":1}}',
        b'{"where":[' + b"{}," * 1_000_001 + b"1]",  # never closed
    ],
    ids=["lists", "names", "objects"],
)
def test_a_body_of_too_many_parts_is_refused_before_it_is_read(
    body: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read(_: bytes) -> Any:
        raise AssertionError("it was read")

    monkeypatch.setattr(fields.orjson, "loads", read)
    for decode in (decode_get, decode_new_collection, lambda told: decode_records("add", told)):
        with pytest.raises(Refusal, match="Over a limit: lists, objects and named values") as refusal:
            decode(body)
        assert refusal.value.status == 400


def test_a_text_full_of_brackets_is_no_part() -> None:
    text = '[{:\\"' * 500_000
    body = orjson.dumps({"ids": ["a"], "embeddings": [[1.0]], "documents": [text]})
    assert decode_records("add", body).documents == (text,)


def test_as_many_records_as_a_request_may_have_are_below_the_limit() -> None:
    values, records = limits.METADATA_VALUES.most, limits.RECORDS.most
    metadatas = [{f"k{at}": [1] for at in range(values // records)}] * records
    body = orjson.dumps(
        {
            "ids": [str(at) for at in range(records)],
            "embeddings": [[1.0]] * records,
            "metadatas": metadatas,
        }
    )
    assert shape.parts(body, -1) <= limits.PARTS.most
