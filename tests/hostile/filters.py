"""Filters: wide, deep, of odd types, and regular expressions that cost much; pure."""

from __future__ import annotations

import json
from typing import Any, Final

from tests.hostile.case import Call, Case, Quantity, lazily, post

KIND: Final = "filters"

_FIXED: Final[dict[str, dict[str, Any]]] = {
    "get": {},
    "query": {"query_embeddings": [[1, 2, 3]], "n_results": 2},
    "delete": {},
}
WIDTHS: Final = (0, 1, 2, 100, 984, 992, 1_000, 6_000, 8_250, 10_000, 100_000)
DEPTHS: Final = (1, 20, 40, 60, 62, 63, 64, 126, 10_000, 1_000_000)


def _read(verb: str, **fields: Any) -> Call:
    """`fields` may be functions that make them when they are sent."""

    def build() -> dict[str, Any]:
        return _FIXED[verb] | {name: value() if callable(value) else value for name, value in fields.items()}

    return post(verb, lazily(build))


def _deep(verb: str, levels: int, field: str, leaf: str) -> Call:
    """`levels` of $and, made as text: no JSON library would."""

    def build() -> bytes:
        fixed = json.dumps(_FIXED[verb])[1:-1]
        head = "{" + fixed + ("," if fixed else "") + f'"{field}":'
        return (head + '{"$and":[' * levels + f"{leaf},{leaf}" + "]}" * levels + "}").encode()

    return post(verb, build)


def _quantities(verb: str) -> list[Quantity]:
    return [
        *(
            Quantity(
                f"{verb}.{name[1:]}",
                WIDTHS,
                lambda n, name=name: [_read(verb, where=lambda: {name: [{"n": at} for at in range(n)]})],
            )
            for name in ("$or", "$and")
        ),
        Quantity(
            f"{verb}.or-of-texts",
            WIDTHS[:-1],
            lambda n: [
                _read(verb, where_document=lambda: {"$or": [{"$contains": f"w{at}"} for at in range(n)]})
            ],
        ),
        Quantity(
            f"{verb}.in",
            (0, 1, 32_766, 32_767, 10**6),
            lambda n: [_read(verb, where=lambda: {"n": {"$in": list(range(n))}})],
        ),
        Quantity(
            f"{verb}.nin", (0, 40_000), lambda n: [_read(verb, where=lambda: {"n": {"$nin": list(range(n))}})]
        ),
        Quantity(f"{verb}.depth", DEPTHS, lambda n: [_deep(verb, n, "where", '{"n":1}')]),
        Quantity(
            f"{verb}.depth-of-texts",
            DEPTHS[4:],
            lambda n: [_deep(verb, n, "where_document", '{"$contains":"a"}')],
        ),
        Quantity(
            f"{verb}.contains-length",
            (0, 1, 2, 3, 50_000, 60_000, 2**20),
            lambda n: [_read(verb, where_document=lambda: {"$contains": "x" * n})],
        ),
    ]


def _other_quantities() -> list[Quantity]:
    return [
        Quantity(
            "get.key-length", (0, 1, 70_000, 2**21), lambda n: [_read("get", where=lambda: {"x" * n: 1})]
        ),
        Quantity(
            "get.value-length", (0, 1, 70_000, 2**21), lambda n: [_read("get", where=lambda: {"k": "x" * n})]
        ),
        Quantity(
            "get.number",
            (0, 2**63 - 1, 2**63, -(2**63) - 1, 10**400, 1e308, -0.0),
            lambda n: [_read("get", where=lambda: {"n": {"$gt": n}})],
        ),
        Quantity(
            "get.keys",
            (0, 1, 2, 10_000),
            lambda n: [_read("get", where=lambda: {f"k{at}": at for at in range(n)})],
        ),
        Quantity(
            "get.tree-of-60-levels", (2, 8, 32, 64, 200), lambda n: [_read("get", where=lambda: _tree(60, n))]
        ),
        Quantity(
            "delete.tree-of-60-levels", (8, 64), lambda n: [_read("delete", where=lambda: _tree(60, n))]
        ),
        Quantity(
            "get.regexes",
            (1, 16, 500, 1_000, 10_000),
            lambda n: [
                _read("get", where_document=lambda: {"$or": [{"$regex": f"a{at}.b"} for at in range(n)]})
            ],
        ),
        Quantity(
            "get.regex-length",
            (1, 325_000, 437_500, 10**7),
            lambda n: [_read("get", where_document=lambda: {"$regex": "x" * n})],
        ),
        Quantity(
            "get.both-widths",
            (1, 500, 900, 4_500),
            lambda n: [
                _read(
                    "get",
                    where=lambda: {"$or": [{"n": at} for at in range(n)]},
                    where_document=lambda: {"$or": [{"$contains": f"w{at}"} for at in range(n)]},
                )
            ],
        ),
        Quantity(
            "get.in-of-texts",
            (1, 32_750, 32_812, 10**6),
            lambda n: [_read("get", where=lambda: {"w": {"$in": [f"w{at}" for at in range(n)]}})],
        ),
        Quantity(
            "get.nested-in",
            (100, 1_000),
            lambda n: [_read("get", where=lambda: {"$or": [_in(at, n) for at in range(n)]})],
        ),
    ]


def _tree(levels: int, width: int) -> dict[str, Any]:
    """Many leaves although no list is wide: what Chroma makes of it is not deep enough to be refused."""
    leaves: list[dict[str, Any]] = [{"n": at} for at in range(width)]
    found: dict[str, Any] = {"$or": leaves}
    for _ in range(levels - 1):
        found = {"$or": [*leaves[1:], found]}
    return found


def _in(at: int, count: int) -> dict[str, Any]:
    return {f"k{at}": {"$in": list(range(count))}}


QUANTITIES: Final[tuple[Quantity, ...]] = (
    *(quantity for verb in _FIXED for quantity in _quantities(verb)),
    *_other_quantities(),
)

#: What a regular expression can cost: states, repetitions, classes, depth, and what no engine reads.
PATTERNS: Final[dict[str, str]] = {
    "empty": "",
    "dot-star": ".*",
    "any": "[\\s\\S]*",
    "catastrophic": "(a+)+$",
    "catastrophic-2": "(x+x+)+y",
    "alternation": "(a|a)*b",
    "repeat-1000": "a{1000}",
    "repeat-huge": "a{1000000000}",
    "repeat-overflow": "a{99999999999999999999}",
    "repeat-nested": "((((a{100}){100}){100}){100})",
    "repeat-classes": "(\\pL{100}){100}",
    "nested-groups": "(" * 200 + "a" + ")" * 200,
    "nested-groups-deep": "(" * 100_000 + "a" + ")" * 100_000,
    "open-groups": "(" * 10_000,
    "unicode-classes": "[\\p{L}\\p{N}\\p{P}\\p{S}]{50}",
    "case-folding": "(?i)" + "\u017f" * 1_000,
    "look-ahead": "(?=a)b",
    "back-reference": "(a)\\1",
    "named-group": "(?P<x>a)(?P<x>b)",
    "flags": "(?xsmiuUR)a # b",
    "open-class": "[",
    "reversed-class": "[z-a]",
    "trailing-backslash": "a\\",
    "nul": "a\x00",
    "anchors": "^$|\\b\\B\\A\\z",
    "many-alternatives": "|".join(f"w{at}" for at in range(20_000)),
    "long-literal": "x" * 2**20,
    "many-classes": "[a-z0-9]" * 20_000,
    "optional": "a?" * 5_000 + "a" * 5_000,
    "bytes": "(?-u)\\xff",
    "surrogate": "\\u{d800}",
    "huge-codepoint": "\\x{110000}",
    "alternatives-product": "(a|b|c|d)" * 12,
    "digits": "\\d\\d\\d\\d" * 10,
}

#: Values of odd types and shapes.
SHAPES: Final[dict[str, Any]] = {
    "list": [],
    "text": "x",
    "number": 5,
    "two-operators": {"n": {"$gt": 1, "$lt": 2}},
    "unknown-operator": {"n": {"$foo": 1}},
    "unknown-logic": {"$foo": [{"n": 1}]},
    "and-of-object": {"$and": {"n": 1}},
    "and-of-null": {"$and": [None]},
    "and-of-text": {"$and": ["x"]},
    "in-of-mixed": {"n": {"$in": [1, "a", True, 0.5]}},
    "in-of-null": {"n": {"$in": [None]}},
    "in-of-lists": {"n": {"$in": [[1]]}},
    "in-of-text": {"n": {"$in": "abc"}},
    "gt-of-list": {"n": {"$gt": [1]}},
    "document": {"#document": {"$contains": "x"}},
    "document-regex": {"#document": {"$regex": "(a+)+$"}},
    "id": {"#id": {"$in": ["r0", "r1"]}},
    "embedding": {"#embedding": 1},
    "sparse": {"n": {"indices": [1], "values": [0.5]}},
    "contains-number": {"n": {"$contains": 1}},
    "regex-on-key": {"w": {"$regex": "a"}},
    "not": {"$not": {"n": 1}},
    "empty-key": {"": {"$eq": 1}},
    "null": {"n": None},
}


def cases() -> list[Case]:
    """All of them."""
    found = [case for quantity in QUANTITIES for case in quantity.cases(KIND)]
    found += [
        Case(f"{KIND}/{verb}.regex.{name}", KIND, (_read(verb, where_document={"$regex": pattern}),))
        for verb in _FIXED
        for name, pattern in PATTERNS.items()
        if verb == "get"
        or name in ("nul", "repeat-huge", "nested-groups-deep", "many-classes", "many-alternatives")
    ]
    found += [
        Case(f"{KIND}/{verb}.where.{name}", KIND, (_read(verb, where=value),))
        for name, value in SHAPES.items()
        for verb in (("get", "delete") if name in ("id", "in-of-mixed", "document-regex") else ("get",))
    ]
    return found
