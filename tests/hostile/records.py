"""Bodies of add, upsert and update with as much of one thing as asked; pure."""

from __future__ import annotations

import base64
from typing import Any

from tests.hostile.case import Call, lazily, post


def records(count: int = 1, dimension: int = 3, **more: Any) -> dict[str, Any]:
    """`count` records; `more` are values of further fields, of one record each, repeated."""
    # No two are at the same distance of anything asked for: an answer has one right order.
    rest = [0.5] * (dimension - 1)
    rows = [[0.5 + at, *rest] if dimension else [] for at in range(count)]
    body: dict[str, Any] = {"ids": [f"n{at}" for at in range(count)], "embeddings": rows}
    return body | {name: [value] * count for name, value in more.items()}


def write(verb: str, count: int = 1, dimension: int = 3, **more: Any) -> Call:
    """One write of `count` records."""
    return post(verb, lazily(lambda: records(count, dimension, **more)))


def one(verb: str, build: Any, *arguments: Any) -> Call:
    """One write of one record, some of its fields made by `build` when it is sent."""
    return post(verb, lazily(lambda: records() | build(*arguments)))


def metadata(value: Any) -> dict[str, Any]:
    """The fields of one record with this metadata."""
    return {"metadatas": [value]}


def keys(count: int) -> dict[str, int]:
    """Metadata of `count` keys."""
    return {f"k{at}": at for at in range(count)}


def sparse(count: int) -> dict[str, Any]:
    """A sparse vector of `count` places."""
    return {"#type": "sparse_vector", "indices": list(range(count)), "values": [0.5] * count}


def raw_vector(size: int) -> str:
    """Base64 of `size` bytes, a float for each four."""
    return base64.b64encode(bytes(size)).decode()


def padded(verb: str, size: int) -> Call:
    """A write whose body has exactly `size` bytes, by blanks after it."""

    def build() -> bytes:
        body = b'{"ids":["n0"],"embeddings":[[0.5,0.5,0.5]]}'
        return body + b" " * (size - len(body))

    return post(verb, build)
