"""NUL, lone surrogates and their kin in every string of every request, and in every name of a path; pure."""

from __future__ import annotations

import json
from typing import Any, Final

from lb.paths import is_reserved
from tests.hostile.case import API, COLLECTIONS, DATABASES, C, Call, Case
from tests.hostile.records import records

KIND: Final = "strings"

#: What stands between the quotes of a JSON string, in bytes: JSON's own escapes, or what is no UTF-8.
STRINGS: Final[dict[str, bytes]] = {
    "nul": b"a\\u0000bc",
    "lone-high": b"abc\\ud800",
    "lone-low": b"\\udc00abc",
    "raw-surrogate": b"abc\xed\xa0\x80",
    "no-utf8": b"abc\xff\xfe",
    "overlong": b"abc\xc0\x80",
    "controls": b"a\\u0001\\u001b[31m\\u007f\\u0085\\u202e\\ufeff\\uffff",
}
_MARK: Final = "MARK"


def _record(**fields: Any) -> dict[str, Any]:
    return records() | fields


#: A body for each string that a request may hold, with a mark in its place.
FIELDS: Final[dict[str, tuple[str, str, Any]]] = {
    "tenant.name": ("POST", f"{API}/tenants", {"name": _MARK}),
    "tenant.resource-name": ("PATCH", f"{API}/tenants/default_tenant", {"resource_name": _MARK}),
    "database.name": ("POST", DATABASES, {"name": _MARK}),
    "collection.name": ("POST", COLLECTIONS, {"name": _MARK}),
    "collection.metadata-key": ("POST", COLLECTIONS, {"name": "made", "metadata": {_MARK: 1}}),
    "collection.metadata-value": ("POST", COLLECTIONS, {"name": "made", "metadata": {"k": _MARK}}),
    "collection.function": (
        "POST",
        COLLECTIONS,
        {
            "name": "made",
            "configuration": {"embedding_function": {"type": "known", "name": _MARK, "config": {}}},
        },
    ),
    "collection.function-value": (
        "POST",
        COLLECTIONS,
        {
            "name": "made",
            "configuration": {
                "embedding_function": {"type": "known", "name": "mine", "config": {"k": _MARK}}
            },
        },
    ),
    "collection.schema-key": (
        "POST",
        COLLECTIONS,
        {"name": "made", "schema": {"defaults": {}, "keys": {_MARK: {"string": {}}}}},
    ),
    "change.name": ("PUT", C, {"new_name": _MARK}),
    "change.metadata": ("PUT", C, {"new_metadata": {_MARK: _MARK}}),
    **{
        f"{verb}.{field}": ("POST", f"{C}/{verb}", body)
        for verb in ("add", "upsert", "update")
        for field, body in {
            "id": _record(ids=[_MARK]),
            "document": _record(documents=[_MARK]),
            "uri": _record(uris=[_MARK]),
            "metadata-key": _record(metadatas=[{_MARK: 1}]),
            "metadata-value": _record(metadatas=[{"k": _MARK}]),
            "metadata-list": _record(metadatas=[{"k": [_MARK, "b"]}]),
        }.items()
        if verb == "add" or field in ("id", "document", "metadata-value")
    },
    "add.token": (
        "POST",
        f"{C}/add",
        _record(metadatas=[{"k": {"indices": [1], "values": [0.5], "tokens": [_MARK]}}]),
    ),
    "add.embedding": ("POST", f"{C}/add", _record(embeddings=[_MARK])),
    "add.field": ("POST", f"{C}/add", _record(**{_MARK: 1})),
    **{
        f"{verb}.{field}": ("POST", f"{C}/{verb}", fixed | body)
        for verb, fixed in (("get", {}), ("query", {"query_embeddings": [[1, 2, 3]]}), ("delete", {}))
        for field, body in {
            "id": {"ids": [_MARK]},
            "where-key": {"where": {_MARK: 1}},
            "where-value": {"where": {"k": _MARK}},
            "where-in": {"where": {"k": {"$in": [_MARK]}}},
            "document-contains": {"where_document": {"$contains": _MARK}},
            "document-regex": {"where_document": {"$regex": _MARK}},
        }.items()
        if verb == "get" or field in ("id", "where-value", "document-contains")
    },
    "get.include": ("POST", f"{C}/get", {"include": [_MARK]}),
    "search.key": ("POST", f"{C}/search", {"searches": [{"select": {"keys": [_MARK]}}]}),
    "fork.name": ("POST", f"{C}/fork", {"new_name": _MARK}),
    "attach.name": (
        "POST",
        f"{C}/functions/attach",
        {"name": _MARK, "function_id": "record_counter", "output_collection": "o"},
    ),
    "add.texts": ("POST", f"{C}/add", {"ids": ["t"], "documents": [_MARK]}),
    "query.texts": ("POST", f"{C}/query", {"query_texts": [_MARK]}),
}
_NAMED: Final = {"add.texts": "text only add", "query.texts": "text only query"}

#: Names in paths, percent-encoded or not.
PATHS: Final[dict[str, str]] = {
    "nul": "a%00bc",
    "no-utf8": "a%ff%fe",
    "surrogate": "a%ed%a0%80",
    "percent": "a%",
    "half-percent": "a%2",
    "no-hex": "a%zz",
    "slash": "..%2f..%2fetc%2fpasswd",
    "dots": "../../../cluster/status",
    "newline": "a%0d%0aX-Chroma-Forwarded:%201",
    "quote": "a%22%27;--",
    "format": "{}%25s%25n",
    "raw-bytes": "a\udcff\udcfe",
    "empty": "",
}
PLACES: Final[dict[str, tuple[str, str]]] = {
    "tenant": ("GET", f"{API}/tenants/{{}}"),
    "tenant-changed": ("PATCH", f"{API}/tenants/{{}}"),
    "databases-of": ("GET", f"{API}/tenants/{{}}/databases"),
    "database": ("GET", f"{DATABASES}/{{}}"),
    "database-deleted": ("DELETE", f"{DATABASES}/{{}}"),
    "collections-of": ("GET", f"{DATABASES}/{{}}/collections"),
    "counted-of": ("GET", f"{DATABASES}/{{}}/collections_count"),
    "collection": ("GET", f"{COLLECTIONS}/{{}}"),
    "collection-deleted": ("DELETE", f"{COLLECTIONS}/{{}}"),
    "by-id": ("GET", f"{COLLECTIONS}/by-id/{{}}"),
    "records-of": ("GET", f"{COLLECTIONS}/{{}}/count"),
    "written-to": ("POST", f"{COLLECTIONS}/{{}}/add"),
    "crn": ("GET", f"{API}/collections/{{}}"),
}
_SHOWN_EVERYWHERE: Final = ("nul", "no-utf8", "newline")


_NULS: Final = {
    (f"{verb}.document-contains", "nul"): "NUL in a text to look for" for verb in ("get", "query", "delete")
}


def _body(value: Any, mark: bytes) -> bytes:
    return json.dumps(value).encode().replace(_MARK.encode(), mark)


def cases() -> list[Case]:
    """Every string with every content, and every place with the names that differ there."""
    found = [
        Case(
            f"{KIND}/{field}.{name}",
            KIND,
            (Call(method, target, _body(value, content)),),
            "answered" if field in _NAMED else "refused" if (field, name) in _NULS else "as chroma",
            difference=_NAMED.get(field, _NULS.get((field, name), "")),
        )
        for field, (method, target, value) in FIELDS.items()
        for name, content in STRINGS.items()
        if field not in _NAMED or name in ("nul", "lone-high", "controls")
    ]
    for place, (method, template) in PLACES.items():
        body = {"PATCH": b'{"resource_name":"x"}', "POST": b'{"ids":["n"],"embeddings":[[1,1,1]]}'}.get(
            method
        )
        found += [
            Case(
                f"{KIND}/path.{place}.{name}",
                KIND,
                (Call(method, template.format(text), body),),
                # What anybody could read as the nodes' own, the balancer refuses in words of its own.
                "refused" if is_reserved(template.format(text)) else "as chroma",
                setup="none",
            )
            for name, text in PATHS.items()
            if place in ("collection", "tenant") or name in _SHOWN_EVERYWHERE
        ]
    return found
