"""What a document holds, as a flat map of fields, and how Chroma's writes change it. Pure."""

from __future__ import annotations

import base64
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import orjson

Fields: TypeAlias = Mapping[str, Any]
"""`document`, `embedding`, `uri`, and `m:<key>` for each metadata key. No field is None."""

METADATA = "m:"
"""Prefix that keeps metadata keys apart from the other fields."""


@dataclass(frozen=True, slots=True, order=True)
class Stamp:
    """When and where a write was accepted. Totally ordered; the node breaks ties."""

    wall_us: int
    count: int
    node: str

    def to_json(self) -> list[Any]:
        return [self.wall_us, self.count, self.node]

    @staticmethod
    def from_json(raw: Any) -> Stamp:
        wall_us, count, node = raw
        return Stamp(wall_us, count, node)


@dataclass(frozen=True, slots=True)
class Change:
    """What one upsert, add or update says of one document: fields it sets; None takes a field away."""

    fields: Mapping[str, Any]

    def on(self, before: Fields | None) -> Fields:
        """The document after it. Like Chroma: what is not named stays, metadata merges by key."""
        merged = {**(before or {}), **self.fields}
        return {name: value for name, value in merged.items() if value is not None}


def change_of(payload: Mapping[str, Any], position: int) -> Change:
    """The change that a request's record at `position` asks for."""
    fields: dict[str, Any] = {}
    for name, key in (("embedding", "embeddings"), ("document", "documents"), ("uri", "uris")):
        column = payload.get(key)
        if column is not None and column[position] is not None:
            value = column[position]
            # Chroma's own client sends vectors as base64 of little-endian floats.
            fields[name] = vector(value) if key == "embeddings" else value
    metadatas = payload.get("metadatas")
    if metadatas is not None and metadatas[position] is not None:
        for key, value in metadatas[position].items():
            fields[METADATA + key] = value
    return Change(fields)


def vector(value: list[float] | str) -> list[float]:
    if isinstance(value, str):
        raw = base64.b64decode(value)
        return list(struct.unpack(f"<{len(raw) // 4}f", raw))
    return value


def metadata_of(fields: Fields) -> dict[str, Any]:
    return {name[len(METADATA) :]: value for name, value in fields.items() if name.startswith(METADATA)}


def canonical(value: Any) -> bytes:
    """The same bytes for equal values on every member: breaks ties and makes digests."""
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
