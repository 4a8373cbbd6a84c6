"""Bodies in every encoding: of content, of text, of JSON, of transfer; pure."""

from __future__ import annotations

import functools
import gzip
import json
import zlib
from typing import Any, Final

from tests.hostile.case import API, COLLECTIONS, Body, C, Call, Case, Required, lazily, request
from tests.hostile.records import records

KIND: Final = "bodies"

_GOOD: Final = json.dumps(records()).encode()
_ADD: Final = f"{C}/add"

#: What a POST to each of these routes would take; how a body is read differs by route in Chroma.
ROUTES: Final[dict[str, tuple[str, bytes]]] = {
    "add": (_ADD, _GOOD),
    "get": (f"{C}/get", b'{"ids":["r0"]}'),
    "tenant": (f"{API}/tenants", b'{"name":"encoded-tenant"}'),
    "search": (f"{C}/search", b'{"searches":[{}]}'),
}


@functools.cache
def _zeros(size: int) -> bytes:
    """`size` bytes of gzip-compressed blanks around a good body, made piece by piece."""
    packer = zlib.compressobj(6, zlib.DEFLATED, 31)
    parts = [packer.compress(_GOOD)]
    block = b" " * 2**20
    parts += [packer.compress(block) for _ in range(size // len(block))]
    return b"".join([*parts, packer.flush()])


#: Content-Encoding and what is sent under it; Chroma unpacks nothing.
ENCODINGS: Final[dict[str, tuple[str, Body]]] = {
    "gzip": ("gzip", lambda: gzip.compress(_GOOD)),
    "gzip-plain": ("gzip", _GOOD),
    "gzip-garbage": ("gzip", b"\x1f\x8b" + b"\xff" * 100),
    "gzip-cut": ("gzip", lambda: gzip.compress(_GOOD)[:-9]),
    "gzip-empty": ("gzip", b""),
    "gzip-twice": ("gzip, gzip", lambda: gzip.compress(gzip.compress(_GOOD))),
    "gzip-bomb-50MiB": ("gzip", lambda: _zeros(50 * 2**20)),
    "gzip-bomb-1.5GiB": ("gzip", lambda: _zeros(1536 * 2**20)),
    "x-gzip": ("x-gzip", lambda: gzip.compress(_GOOD)),
    "upper": ("GZIP", lambda: gzip.compress(_GOOD)),
    "deflate": ("deflate", lambda: zlib.compress(_GOOD)),
    "deflate-raw": ("deflate", lambda: zlib.compress(_GOOD)[2:-4]),
    "deflate-plain": ("deflate", _GOOD),
    "deflate-bomb": ("deflate", lambda: zlib.compress(b" " * 200 * 2**20, 9)),
    "br-plain": ("br", _GOOD),
    "br-garbage": ("br", b"\xff" * 50),
    "zstd-plain": ("zstd", _GOOD),
    "zstd-garbage": ("zstd", b"\x28\xb5\x2f\xfd" + b"\xff" * 50),
    "identity": ("identity", _GOOD),
    "unknown": ("x-nothing", _GOOD),
    "empty": ("", _GOOD),
    "long": ("gzip, " * 1_000 + "gzip", _GOOD),
}

CONTENT_TYPES: Final[dict[str, str | bytes]] = {
    "none": "",
    "text": "text/plain",
    "form": "application/x-www-form-urlencoded",
    "multipart": "multipart/form-data; boundary=x",
    "multipart-no-boundary": "multipart/form-data",
    "utf-16": "application/json; charset=utf-16",
    "utf-7": "application/json; charset=utf-7",
    "no-charset": "application/json; charset=",
    "unknown-charset": "application/json; charset=nothing",
    "quoted": 'application/json; charset="utf-8',
    "twice": "application/json, text/plain",
    "suffix": "application/x+json",
    "upper": "APPLICATION/JSON",
    "star": "*/*",
    "half": "application/",
    "slash": "/",
    "latin": b"application/json\xe9",
    "long": "application/json; " + "x=y; " * 1_000,
    "null": "application/json; a=\x7f",
}

#: JSON that is none, or hardly: as the body of an add.
TEXTS: Final[dict[str, Body]] = {
    "empty": b"",
    "blank": b" \n\t",
    "nul": b"\x00",
    "nul-inside": _GOOD.replace(b'"n0"', b'"n\x000"'),
    "nul-after": _GOOD + b"\x00",
    "bom": b"\xef\xbb\xbf" + _GOOD,
    "utf-16": _GOOD.decode().encode("utf-16"),
    "utf-16-be": _GOOD.decode().encode("utf-16-be"),
    "utf-32": _GOOD.decode().encode("utf-32"),
    "latin-1": _GOOD.replace(b"n0", b"\xe9"),
    "null": b"null",
    "true": b"true",
    "number": b"5",
    "text": b'"x"',
    "array-empty": b"[]",
    "array-of-null": b"[null,null,null,null,null]",
    "two": _GOOD + _GOOD,
    "cut": _GOOD[:-1],
    "cut-in-escape": b'{"ids":["\\u12',
    "comma": _GOOD[:-1] + b",}",
    "comment": _GOOD + b"/* */",
    "single-quotes": _GOOD.replace(b'"', b"'"),
    "duplicate": _GOOD[:-1] + b',"ids":["n1"]}',
    "duplicate-metadata": _GOOD[:-1] + b',"metadatas":[{"a":1,"a":2}]}',
    "newline-in-text": _GOOD.replace(b"n0", b"n\n0"),
    "leading-zero": _GOOD.replace(b"0.5", b"00.5"),
    "plus": _GOOD.replace(b"0.5", b"+5"),
    "hex": _GOOD.replace(b"0.5", b"0x5"),
    "digits": lambda: _GOOD.replace(b"0.5", b"9" * 2**20, 1),
    "exponent": _GOOD.replace(b"0.5", b"1e99999999999999999999", 1),
    "fraction": lambda: _GOOD.replace(b"0.5", b"0." + b"1" * 2**20, 1),
    "deep-arrays-127": b"[" * 127 + b"]" * 127,
    "deep-arrays-128": b"[" * 128 + b"]" * 128,
    "deep-arrays": lambda: b"[" * 10**6 + b"]" * 10**6,
    "deep-open": lambda: b"[" * 10**7,
    "deep-objects": lambda: b'{"a":' * 10**6,
    "deep-unknown": lambda: _GOOD[:-1] + b',"x":' + b"[" * 10**6 + b"]" * 10**6 + b"}",
    "wide-objects": lambda: b"{" + b",".join(b'"%d":{}' % at for at in range(500_000)) + b"}",
    "wide-arrays": lambda: b'{"ids":[' + b",".join([b"[]"] * 2_000_000) + b'],"embeddings":[]}',
    "many-blanks": lambda: b" " * (8 * 2**20) + _GOOD,
    "binary": lambda: bytes(range(256)) * 4_096,
}

#: A body for every route that takes one, of a shape that it does not expect.
_WRONG: Final[dict[str, Any]] = {
    "null": None,
    "array": [],
    "number": 1,
    "wrong-types": {"name": [], "ids": 5},
}
_WITH_BODY: Final[dict[str, tuple[str, str]]] = {
    "tenants": ("POST", f"{API}/tenants"),
    "tenant": ("PATCH", f"{API}/tenants/default_tenant"),
    "databases": ("POST", f"{API}/tenants/default_tenant/databases"),
    "collections": ("POST", COLLECTIONS),
    "collection": ("PUT", C),
    **{
        verb: ("POST", f"{C}/{verb}")
        for verb in ("upsert", "update", "delete", "get", "query", "search", "fork", "functions/attach")
    },
    "detach": ("POST", f"{C}/attached_functions/f/detach"),
}
#: Routes without a body, given one.
_WITHOUT_BODY: Final[dict[str, tuple[str, str]]] = {
    "heartbeat": ("GET", f"{API}/heartbeat"),
    "root": ("GET", API),
    "version": ("GET", f"{API}/version"),
    "healthcheck": ("GET", f"{API}/healthcheck"),
    "pre-flight-checks": ("GET", f"{API}/pre-flight-checks"),
    "identity": ("GET", f"{API}/auth/identity"),
    "count": ("GET", f"{C}/count"),
    "fork-count": ("GET", f"{C}/fork_count"),
    "indexing-status": ("GET", f"{C}/indexing_status"),
    "function": ("GET", f"{C}/functions/f"),
    "collections": ("GET", COLLECTIONS),
    "reset": ("POST", f"{API}/reset"),
    "openapi": ("GET", "/openapi.json"),
    "docs": ("GET", "/docs"),
    "v1": ("POST", f"{API[:-1]}1/collections"),
}
_TIMES: Final = ("heartbeat", "root")


def _encoded(name: str) -> list[Case]:
    encoding, body = ENCODINGS[name]
    routes = ROUTES if name in ("gzip", "gzip-bomb-50MiB", "br-plain", "unknown") else {"add": ROUTES["add"]}
    return [
        Case(
            f"{KIND}/encoding.{name}.{route}",
            KIND,
            (Call("POST", target, body, (("Content-Encoding", encoding),)),),
        )
        for route, (target, _) in routes.items()
    ]


_DIFFERENT: Final = {name: "body as an array" for name in TEXTS if name.startswith("array")} | {
    "deep-unknown": "deep in an unknown field"
}
_REQUIRED: Final[dict[str, Required]] = dict.fromkeys(_DIFFERENT, "refused")


def _large(chunked: bool) -> list[Case]:
    """At Chroma's limit of 40 MiB, and one byte above it, without a length that says so."""
    sizes: dict[int, Required] = {40 * 2**20: "as chroma", 40 * 2**20 + 1: "refused", 100 * 2**20: "refused"}
    return [
        Case(
            f"{KIND}/{'chunked' if chunked else 'plain'}.{route}={size}",
            KIND,
            (Call("POST", target, lazily(_padded, body, size), chunked=chunked),),
            required,
            difference="too large" if required == "refused" else "",
        )
        for route, (target, body) in ROUTES.items()
        if route in ("add", "tenant")
        for size, required in sizes.items()
    ]


def _padded(body: bytes, size: int) -> bytes:
    return body + b" " * (size - len(body))


def cases() -> list[Case]:
    """All of them."""
    found = [case for name in ENCODINGS for case in _encoded(name)]
    found += [
        Case(f"{KIND}/type.{name}", KIND, (Call("POST", _ADD, _GOOD, (("Content-Type", value),)),))
        for name, value in CONTENT_TYPES.items()
    ]
    found += [
        Case(
            f"{KIND}/json.{name}",
            KIND,
            (Call("POST", _ADD, body),),
            _REQUIRED.get(name, "as chroma"),
            difference=_DIFFERENT.get(name, ""),
        )
        for name, body in TEXTS.items()
    ]
    found += [
        Case(
            f"{KIND}/shape.{route}.{name}",
            KIND,
            (request(method, target, json.dumps(value).encode()),),
            "answered" if name == "array" else "as chroma",
            difference="body as an array" if name == "array" else "",
        )
        for route, (method, target) in _WITH_BODY.items()
        for name, value in _WRONG.items()
    ]
    found += [
        Case(
            f"{KIND}/unwanted.{route}",
            KIND,
            (Call(method, target, b"x" * 100_000),),
            "answered" if route in (*_TIMES, "reset") else "as chroma",
            difference="heartbeat"
            if route in _TIMES
            else "reset is allowed there"
            if route == "reset"
            else "",
        )
        for route, (method, target) in _WITHOUT_BODY.items()
    ]
    return [*found, *_large(chunked=False), *_large(chunked=True)]
