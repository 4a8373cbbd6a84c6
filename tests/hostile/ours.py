"""What only this project has: its request headers, and the routes below /cluster; pure."""

from __future__ import annotations

from typing import Any, Final

from tests.hostile.case import C, Call, Case, Door, Required, lazily, post, request
from tests.hostile.records import records

KIND: Final = "ours"

KEYS: Final[dict[str, str | bytes]] = {
    "empty": "",
    "255": "x" * 255,
    "256": "x" * 256,
    "60000": "x" * 60_000,
    "space": "a b",
    "tab": "a\tb",
    "control": "a\x7fb",
    "latin": b"a\xe9b",
    "utf-8": "a\u00e9b".encode(),
    "surrogate": b"a\xed\xa0\x80",
    "like-ours": "lb-" + "0" * 32,
    "prefix": "k:r:x",
    "quote": "'\"\\;--",
    "format": "%s%n{0}{}",
}
INDICES: Final[dict[str, str | bytes]] = {
    "0": "0",
    "1": "1",
    "empty": "",
    "negative": "-1",
    "plus": "+1",
    "fraction": "1.0",
    "text": "x",
    "zeros": "0" * 5_000,
    "other-script": "\u0663".encode(),
    "max": str(2**63 - 1),
    "over-max": str(2**63),
    "20-digits": "9" * 20,
    "5000-digits": "9" * 5_000,
    "60000-digits": "9" * 60_000,
    "list": "1, 2",
}
LEVELS: Final[dict[str, str | bytes]] = {
    "linearizable": "linearizable",
    "eventual": "eventual",
    "upper": "SESSION",
    "empty": "",
    "unknown": "x",
    "long": "x" * 60_000,
    "latin": b"\xe9",
}
STALENESS: Final[dict[str, str | bytes]] = {
    "0": "0",
    "max": "9" * 15,
    "16-digits": "9" * 16,
    "5000-digits": "9" * 5_000,
    "negative": "-1",
    "nan": "nan",
    "fraction": "0.5",
}
ACKS: Final[dict[str, str | bytes]] = {
    "committed": "committed",
    "empty": "",
    "unknown": "x" * 60_000,
    "latin": b"\xe9",
    "control": "a\x7f",
}
FORWARDED: Final[dict[str, str | bytes]] = {"1": "1", "0": "0", "long": "x" * 60_000}

#: Values that no header of that name may have, whoever reads it first.
_INVALID: Final[dict[str, tuple[str, ...]]] = {
    "key": ("empty", "256", "60000", "space", "tab", "control", "latin", "utf-8", "surrogate"),
    "ack": ("empty", "unknown", "latin", "control"),
    "index": (*(name for name in INDICES if name not in ("0", "1", "max")),),
    "level": ("empty", "unknown", "long", "latin"),
    "staleness": ("16-digits", "5000-digits", "negative", "nan", "fraction"),
}

#: Which requests show what a header does.
_WRITE: Final = lazily(records, 2)
_HEADERS: Final[dict[str, tuple[str, dict[str, str | bytes], str]]] = {
    "key": ("Idempotency-Key", KEYS, "add"),
    "ack": ("X-Chroma-Ack", ACKS, "add"),
    "index": ("X-Chroma-Min-Index", INDICES, "get"),
    "index-of-write": ("X-Chroma-Min-Index", INDICES, "add"),
    "level": ("X-Chroma-Consistency", LEVELS, "get"),
    "staleness": ("X-Max-Staleness-Ms", STALENESS, "get"),
    "forwarded": ("X-Chroma-Forwarded", FORWARDED, "add"),
}

#: Routes below /cluster for those who know the cluster's secret, and the header that proves it.
_OF_MEMBERS: Final = (
    "suspect",
    "check",
    "progress",
    "members",
    "verify",
    "repair",
    "digests",
    "verdict",
    "snapshots",
    "snapshot-part",
    "hold-log",
)
_PROOF: Final = "X-Chroma-Cluster-Proof"

#: What is posted to a route that expects {"collection_id", "texts", "query"}.
EMBEDS: Final[dict[str, Any]] = {
    "empty": b"",
    "garbage": b"\x00\xff\xfe",
    "null": b"null",
    "array": b"[]",
    "number": b"1",
    "no-fields": {},
    "unknown-collection": {"collection_id": "x", "texts": ["a"], "query": False},
    "null-collection": {"collection_id": None, "texts": ["a"], "query": False},
    "texts-null": {"collection_id": "x", "texts": None, "query": False},
    "texts-number": {"collection_id": "x", "texts": 5, "query": False},
    "texts-text": {"collection_id": "x", "texts": "abc", "query": False},
    "texts-mixed": {"collection_id": "x", "texts": [1, None, {"a": []}], "query": {}},
    "nul": {"collection_id": "\x00", "texts": ["\x00"], "query": True},
    "surrogate": b'{"collection_id":"\\ud800","texts":["\\ud800"],"query":true}',
    "deep": lazily(lambda: b'{"collection_id":' + b"[" * 10**6 + b"]" * 10**6 + b"}"),
    "many": lazily(lambda: {"collection_id": "x", "texts": ["a"] * 10**6, "query": False}),
    "large": lazily(lambda: b" " * (41 * 2**20)),
}
_BY_DOOR: Final[dict[Door, Required]] = {
    "balancer": "refused",
    "leader": "answered",
    "follower": "unavailable",
}


def _required(door: Door, name: str, text: str) -> Required:
    if (name, text) in (("index", "max"), ("staleness", "0")):
        return "unavailable"  # no node ever has that index, nor an answer that is not old at all
    if (door, name) == ("follower", "forwarded"):
        return "unavailable"  # it may not send on what another node has sent
    return "refused" if text in _INVALID.get(name, ()) else "answered"


def _headers() -> list[Case]:
    found: list[Case] = []
    for name, (header, values, verb) in _HEADERS.items():
        for text, value in values.items():
            for door in ("balancer", "follower"):
                body = _WRITE if verb == "add" else {}
                found.append(
                    Case(
                        f"{KIND}/{door}.{name}={text}",
                        KIND,
                        (post(verb, body, (header, value)),),
                        _required(door, name, text),
                        door,
                    )
                )
    twice = [
        ("key", (("Idempotency-Key", "one"), ("Idempotency-Key", "two"))),
        ("index", (("X-Chroma-Min-Index", "1"), ("X-Chroma-Min-Index", "2"))),
        ("level", (("X-Chroma-Consistency", "eventual"), ("X-Chroma-Consistency", "linearizable"))),
    ]
    found += [
        Case(f"{KIND}/{door}.twice.{name}", KIND, (post("upsert", _WRITE, *pairs),), "answered", door)
        for name, pairs in twice
        for door in ("balancer", "follower")
    ]
    found += [
        Case(
            f"{KIND}/key-used-again.{name}",
            KIND,
            (
                post("add", _WRITE, ("Idempotency-Key", f"again-{name}")),
                post(verb, body, ("Idempotency-Key", f"again-{name}")),
            ),
            "answered",
        )
        for name, verb, body in (
            ("same", "add", _WRITE),
            ("other-body", "add", lazily(records, 3)),
            ("other-route", "upsert", _WRITE),
            ("bad-body", "add", b"{"),
        )
    ]
    return found


def _statuses(door: Door) -> list[Case]:
    """What may always be asked, of anybody."""
    return [
        Case(f"{KIND}/{door}.status.post", KIND, (Call("POST", "/cluster/status", b"{}"),), "refused", door),
        Case(f"{KIND}/{door}.status", KIND, (Call("GET", "/cluster/status"),), "accepted", door),
        Case(
            f"{KIND}/{door}.status.body",
            KIND,
            (Call("GET", "/cluster/status", b"x" * 10**5),),
            "accepted",
            door,
        ),
        Case(
            f"{KIND}/{door}.status.watched-50-times",
            KIND,
            tuple(Call("GET", "/cluster/status?watch=1", stream=True) for _ in range(50)),
            "accepted" if door == "balancer" else "refused",
            door,
        ),
        Case(
            f"{KIND}/{door}.status.parameters",
            KIND,
            (Call("GET", f"/cluster/status?{'watch=0&' * 500}watch=%ff"),),
            "accepted",
            door,
        ),
    ]


def _cluster_routes() -> list[Case]:
    """At the balancer, which has none but its own, at the leader, which does the work, and at a follower."""
    found: list[Case] = []
    for door in _BY_DOOR:
        # Followers make no vectors and have no index to give: they name the leader.
        required = _BY_DOOR[door]
        found += [
            Case(
                f"{KIND}/{door}.embed.{name}",
                KIND,
                (request("POST", "/cluster/embed", body),),
                required,
                door,
            )
            for name, body in EMBEDS.items()
        ]
        found += [
            Case(
                f"{KIND}/{door}.embed.own-collection",
                KIND,
                (
                    Call(
                        "POST",
                        "/cluster/embed",
                        b'{"collection_id":"{id}","texts":["a","\\u0000"],"query":false}',
                    ),
                ),
                required,
                door,
            ),
            Case(
                f"{KIND}/{door}.read-index.body",
                KIND,
                (Call("POST", "/cluster/read-index", b"x" * 10**6),),
                required,
                door,
            ),
            Case(
                f"{KIND}/{door}.read-index.get", KIND, (Call("GET", "/cluster/read-index"),), "refused", door
            ),
            Case(f"{KIND}/{door}.members.get", KIND, (Call("GET", "/cluster/members"),), "refused", door),
            *_statuses(door),
            Case(f"{KIND}/{door}.nothing", KIND, (Call("GET", "/cluster/nothing"),), "refused", door),
            Case(f"{KIND}/{door}.nothing-deleted", KIND, (Call("DELETE", "/cluster/"),), "refused", door),
        ]
    found.append(Case(f"{KIND}/balancer.healthz", KIND, (Call("GET", "/cluster/healthz?x=%ff"),), "accepted"))
    return found


def _member_routes() -> list[Case]:
    """What only members may ask: whoever cannot prove that he is one is refused, whatever he sends."""
    proofs: dict[str, str | bytes] = {"empty": "", "short": "ab", "zeros": "0" * 64, "latin": b"\xe9" * 64}
    bodies = ("empty", "garbage", "null", "no-fields", "surrogate", "deep", "large")
    found = [
        Case(
            f"{KIND}/{door}.{route}.{name}",
            KIND,
            (request("POST", f"/cluster/{route}", EMBEDS[name]),),
            "refused",
            door,
        )
        for route in _OF_MEMBERS
        for door in _BY_DOOR
        for name in bodies
    ]
    return found + [
        Case(
            f"{KIND}/{door}.{route}.proof-{name}",
            KIND,
            (request("POST", f"/cluster/{route}", {"collection_id": "x", "digest": "zz"}, (_PROOF, proof)),),
            "refused",
            door,
        )
        for route in _OF_MEMBERS
        for door in _BY_DOOR
        for name, proof in proofs.items()
    ]


def _forwarded_writes() -> list[Case]:
    """A follower brings odd requests to the leader too: a sample of each kind."""
    return [
        Case(f"{KIND}/follower.{name}", KIND, calls, "answered", "follower")
        for name, calls in {
            "lists": (post("add", lazily(lambda: records() | {"metadatas": [{"k": list(range(6_000))}]})),),
            "wide": (
                post("delete", lazily(lambda: {"where": {"$or": [{"n": at} for at in range(10_000)]}})),
            ),
            "large": (post("add", lazily(lambda: b'{"ids":[]}' + b" " * (40 * 2**20 - 10))),),
            "too-large": (post("add", lazily(lambda: b'{"ids":[]}' + b" " * (40 * 2**20)))),
            "garbage": (post("add", b"\x00\xff"),),
            "lone-surrogate": (post("add", b'{"ids":["\\ud800"],"embeddings":[[1,1,1]]}'),),
            "unencodable-path": (Call("DELETE", f"{C}%ff%00"),),
            "gzip": (post("add", b"\x1f\x8b\xff", ("Content-Encoding", "gzip")),),
        }.items()
        for calls in ((calls if isinstance(calls, tuple) else (calls,)),)
    ]


def cases() -> list[Case]:
    """All of them."""
    return [*_headers(), *_cluster_routes(), *_member_routes(), *_forwarded_writes()]
