"""Every quantity of every route, from nothing over its limit to far beyond: a line each; pure.

Limits known: 40 MiB a body; 5,461 records a batch (`pre-flight-checks`); 32,766 variables of an SQLite
statement; 2**32 - 1 for `limit`, `offset` and `n_results`; 2**63 - 1 for integers in metadata; 128 levels of
JSON; 3 to 512 characters of a name.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from tests.hostile.case import API, COLLECTIONS, DATABASES, C, Call, Quantity, lazily, post, request
from tests.hostile.records import keys, metadata, one, padded, raw_vector, records, sparse, write

if TYPE_CHECKING:
    from collections.abc import Callable

MIB: Final = 2**20
WRITES: Final = ("add", "upsert", "update")
VECTOR: Final = [0.5, 0.5, 0.5]

BATCH: Final = (0, 1, 5_460, 5_461, 5_462, 20_000)
VARIABLES: Final = (0, 1, 5_461, 5_462, 6_000, 32_766, 32_767, 100_000)
LENGTHS: Final = (0, 1, 65_536, 2 * MIB)
HUGE: Final = 30 * MIB
NAMES: Final = (0, 1, 2, 3, 512, 513, 10_000, MIB)
DIMENSIONS: Final = (0, 1, 2, 3, 4, 4_096, 65_536, MIB)
U32: Final = (0, 1, 2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**63 - 1, 2**64, 10**30, -1, 1.0, 1.5, "1", True)
I64: Final = (0, 2**53 + 1, 2**63 - 1, 2**63, 2**64, -(2**63), -(2**63) - 1, 10**30, 10**308, 10**400)
PAGES: Final = ("0", "2", "4294967295", "4294967296", "9" * 30, "9" * 5_000, "-1", "1e3", "%00", "٣")


def _get(**fields: Any) -> list[Call]:
    return [post("get", lazily(lambda: fields))]


def _query(**fields: Any) -> list[Call]:
    return [post("query", lazily(lambda: {"query_embeddings": [VECTOR], **fields}))]


def _delete(**fields: Any) -> list[Call]:
    return [post("delete", lazily(lambda: fields))]


def _ids(count: int) -> list[str]:
    return [f"r{at}" for at in range(count)]


def _made(fields: Callable[[], dict[str, Any]]) -> list[Call]:
    """A collection is created, written to and queried: some settings do harm only then."""
    return [
        request("POST", COLLECTIONS, lazily(lambda: {"name": "made", **fields()})),
        request("GET", f"{COLLECTIONS}/made"),
    ]


def _written(verb: str) -> list[Quantity]:
    return [
        Quantity(f"{verb}.records", BATCH, lambda n: [write(verb, n)]),
        Quantity(f"{verb}.dimension", DIMENSIONS, lambda n: [write(verb, 1, n)], setup="empty"),
        Quantity(f"{verb}.other-dimension", DIMENSIONS, lambda n: [write(verb, 1, n)]),
        Quantity(f"{verb}.id-length", LENGTHS, lambda n: [one(verb, lambda: {"ids": ["x" * n]})]),
        Quantity(f"{verb}.document-length", LENGTHS, lambda n: [one(verb, lambda: {"documents": ["x" * n]})]),
        Quantity(f"{verb}.uri-length", LENGTHS, lambda n: [one(verb, lambda: {"uris": ["x" * n]})]),
        Quantity(f"{verb}.metadata-keys", VARIABLES, lambda n: [one(verb, lambda: metadata(keys(n)))]),
        Quantity(
            f"{verb}.metadata-ints", VARIABLES, lambda n: [one(verb, lambda: metadata({"k": list(range(n))}))]
        ),
        Quantity(f"{verb}.int", I64, lambda n: [one(verb, lambda: metadata({"k": n}))]),
    ]


#: What the three writes have in common, shown once.
_ADDED: Final[list[Quantity]] = [
    Quantity("add.metadata-strings", VARIABLES, lambda n: [one("add", lambda: metadata({"k": ["x"] * n}))]),
    Quantity("add.metadata-bools", (0, 6_000), lambda n: [one("add", lambda: metadata({"k": [True] * n}))]),
    Quantity("add.metadata-floats", (0, 6_000), lambda n: [one("add", lambda: metadata({"k": [0.5] * n}))]),
    Quantity(
        "add.metadata-values-of-batch",
        (1, 54, 55, 100),
        lambda n: [write("add", 100, 3, metadatas={"k": list(range(n))})],
    ),
    Quantity("add.metadata-sparse", VARIABLES, lambda n: [one("add", lambda: metadata({"k": sparse(n)}))]),
    Quantity(
        "add.sparse-index",
        (0, 2**31, 2**32 - 1, 2**32, -1),
        lambda n: [one("add", lambda: metadata({"k": {"indices": [n], "values": [1]}}))],
    ),
    Quantity("add.key-length", LENGTHS, lambda n: [one("add", lambda: metadata({"x" * n: 1}))]),
    Quantity("add.value-length", LENGTHS, lambda n: [one("add", lambda: metadata({"k": "x" * n}))]),
    Quantity(
        "add.list-depth",
        (0, 1, 100, 127, 128, 10_000, 1_000_000),
        lambda n: [post("add", lazily(_nested_metadata, n))],
    ),
    Quantity(
        "add.same-id", (2, 5_461, 20_000), lambda n: [one("add", lambda: {"ids": ["n"] * n, **_rows(n)})]
    ),
    Quantity(
        "add.base64-bytes",
        (0, 1, 3, 11, 12, 13, 16, 4 * MIB),
        lambda n: [one("add", lambda: {"embeddings": [raw_vector(n)]})],
        setup="empty",
    ),
    Quantity(
        "add.float",
        (
            "1e38",
            "1e39",
            "-1e39",
            "1e308",
            "1e400",
            "1e-400",
            "NaN",
            "Infinity",
            "-0",
            "9" * 400,
            "0." + "9" * 10**6,
        ),
        lambda text: [post("add", b'{"ids":["n"],"embeddings":[[%s,1,1]]}' % text.encode())],
    ),
    Quantity(
        "add.metadata-float",
        ("1e308", "-1e308", "1e309", "5e-324", "1e-400", "9" * 400),
        lambda text: [
            post("add", b'{"ids":["n"],"embeddings":[[1,1,1]],"metadatas":[{"k":%s}]}' % text.encode())
        ],
    ),
    *(
        Quantity(f"{verb}.body-bytes", (100, 40 * MIB - 1, 40 * MIB), lambda n, verb=verb: [padded(verb, n)])
        for verb in ("add", "get", "delete")
    ),
    *(
        Quantity(
            f"{verb}.body-too-large",
            (40 * MIB + 1, 60 * MIB),
            lambda n, verb=verb: [padded(verb, n)],
            required="refused",
            difference="too large",
        )
        for verb in ("add", "get")
    ),
    Quantity("add.huge-id", (HUGE,), lambda n: [one("add", lambda: {"ids": ["x" * n]})]),
    Quantity("add.huge-document", (HUGE,), lambda n: [one("add", lambda: {"documents": ["x" * n]})]),
    Quantity("update.huge-value", (HUGE,), lambda n: [one("update", lambda: metadata({"k": "x" * n}))]),
    # Document and uri count as metadata; items of all lists of a record count together.
    Quantity(
        "add.metadata-keys-and-document",
        (5_459, 5_460, 5_461),
        lambda n: [one("add", lambda: metadata(keys(n)) | {"documents": ["x"], "uris": ["u"]})],
    ),
    Quantity(
        "add.metadata-of-two-lists",
        (2_461, 2_462),
        lambda n: [one("add", lambda: metadata({"k": list(range(n)), "l": list(range(3_000))}))],
    ),
    Quantity(
        "add.reserved-key",
        ("chroma:document", "chroma:uri", "chroma:", "#x", "$x", ""),
        lambda key: [one("add", lambda: metadata({key: 1}))],
        required="answered",
        difference="harmful metadata",
    ),
    Quantity("add.uneven", (0, 2, 6_000), lambda n: [one("add", lambda: {"documents": ["x"] * n})]),
    Quantity(
        "add.unknown-fields",
        (1, 100_000),
        lambda n: [post("add", lazily(lambda: records() | {f"f{at}": at for at in range(n)}))],
    ),
    Quantity(
        "add.texts",
        (1, 5_462, 0),
        lambda n: [post("add", lazily(lambda: {"ids": _ids(n), "documents": ["x"] * n}))],
        required="answered",
        difference="text only add",
    ),
    Quantity(
        "add.text-length",
        (0, 1, MIB, 30 * MIB),
        lambda n: [post("add", lazily(lambda: {"ids": ["t"], "documents": ["x" * n]}))],
        required="answered",
        difference="text only add",
    ),
]


def _rows(count: int) -> dict[str, Any]:
    return {"embeddings": [VECTOR] * count}


def _nested_metadata(levels: int) -> bytes:
    inner = b"[" * levels + b"1" + b"]" * levels
    return b'{"ids":["n"],"embeddings":[[1,1,1]],"metadatas":[{"k":%s}]}' % inner


#: What reads and deletes bring.
_READS: Final[list[Quantity]] = [
    Quantity("get.ids", VARIABLES, lambda n: [post("get", lazily(lambda: {"ids": _ids(n)}))]),
    Quantity("get.id-length", LENGTHS, lambda n: [post("get", lazily(lambda: {"ids": ["x" * n]}))]),
    Quantity("get.limit", U32, lambda n: _get(limit=n)),
    Quantity("get.offset", U32, lambda n: _get(offset=n)),
    Quantity("get.limit+offset", U32[:6], lambda n: _get(limit=n, offset=n)),
    Quantity("get.include", (0, 1, 10_000), lambda n: _get(include=["documents"] * n)),
    Quantity("query.n-results", U32, lambda n: _query(n_results=n)),
    Quantity("query.n-results-of-none", U32[:6], lambda n: _query(n_results=n), setup="empty"),
    Quantity(
        "query.vectors",
        (0, 1, 100, 5_462, 20_000),
        lambda n: [post("query", lazily(lambda: {"query_embeddings": [VECTOR] * n, "n_results": 1}))],
    ),
    Quantity(
        "query.dimension",
        DIMENSIONS,
        lambda n: [post("query", lazily(lambda: {"query_embeddings": [[0.5] * n]}))],
    ),
    Quantity("query.include", (0, 1, 10_000), lambda n: _query(include=["distances"] * n)),
    Quantity("query.ids", VARIABLES, lambda n: [post("query", lazily(lambda: _query_ids(n)))]),
    Quantity(
        "query.texts",
        (0, 1, 1_000),
        lambda n: [post("query", lazily(lambda: {"query_texts": ["x"] * n}))],
        required="answered",
        difference="text only query",
    ),
    Quantity("delete.ids", VARIABLES, lambda n: [post("delete", lazily(lambda: {"ids": _ids(n)}))]),
    Quantity("delete.id-length", LENGTHS, lambda n: [post("delete", lazily(lambda: {"ids": ["x" * n]}))]),
    Quantity("delete.limit", U32, lambda n: _delete(where={"n": {"$gte": 0}}, limit=n)),
    Quantity(
        "search.searches",
        (0, 1, 10, 10_000),
        lambda n: [post("search", lazily(lambda: {"searches": [{}] * n}))],
    ),
    Quantity("search.limit", U32, lambda n: [post("search", {"searches": [{"limit": {"limit": n}}]})]),
    Quantity("search.rank-depth", (1, 100, 10_000), lambda n: [post("search", lazily(_deep_rank, n))]),
    Quantity(
        "count.read-level",
        ("index_and_wal", "", "x" * 50_000, "%00", "%ff", "index_only&read_level=x"),
        lambda text: [request("GET", f"{C}/count?read_level={text}")],
    ),
]


def _query_ids(count: int) -> dict[str, Any]:
    return {"query_embeddings": [VECTOR], "n_results": 1, "ids": _ids(count)}


def _deep_rank(levels: int) -> bytes:
    inner = b'{"$sum":[{"$val":1},' * levels + b'{"$val":1}' + b"]}" * levels
    return b'{"searches":[{"rank":%s}]}' % inner


def _paths() -> list[Quantity]:
    """The length of every name in a path; aiohttp's limit for a line is 8,190 unless it is told another."""
    names = {
        "tenant": ("GET", f"{API}/tenants/{{}}"),
        "database": ("GET", f"{DATABASES}/{{}}"),
        "collection": ("GET", f"{COLLECTIONS}/{{}}"),
        "collection-id": ("GET", f"{COLLECTIONS}/by-id/{{}}"),
        "deleted": ("DELETE", f"{COLLECTIONS}/{{}}"),
        "crn": ("GET", f"{API}/collections/{{}}"),
        "function": ("GET", f"{COLLECTIONS}/by-id/functions/{{}}"),
    }
    lengths = (1, 512, 7_900, 9_000, 40_000)
    return [
        Quantity(
            f"path.{name}",
            lengths,
            lambda n, method=method, path=path: [request(method, path.format("x" * n))],
            setup="none",
        )
        for name, (method, path) in names.items()
    ]


#: What the catalogue takes: names, metadata, pages, paths, headers.
_CATALOGUE: Final[list[Quantity]] = [
    Quantity("create.name", NAMES, lambda n: _made(lambda: {"name": "x" * n})),
    Quantity("create.metadata-keys", VARIABLES, lambda n: _made(lambda: {"metadata": keys(n)})),
    Quantity("create.metadata-value", LENGTHS, lambda n: _made(lambda: {"metadata": {"k": "x" * n}})),
    Quantity("create.metadata-key", LENGTHS, lambda n: _made(lambda: {"metadata": {"x" * n: 1}})),
    Quantity("create.metadata-int", I64, lambda n: _made(lambda: {"metadata": {"k": n}})),
    Quantity(
        "create.metadata-list",
        (0, 1, 6_000),
        lambda n: _made(lambda: {"metadata": {"k": list(range(n))}}),
        required="answered",
        difference="lists in collection metadata",
    ),
    Quantity(
        "create.unknown-configuration", (1, 10_000), lambda n: _made(lambda: {"configuration": keys(n)})
    ),
    Quantity(
        "create.function-config",
        (0, 1, 10_000, 100_000),
        lambda n: _made(
            lambda: {
                "configuration": {"embedding_function": {"type": "known", "name": "mine", "config": keys(n)}}
            }
        ),
    ),
    Quantity(
        "create.function-name",
        LENGTHS,
        lambda n: _made(
            lambda: {
                "configuration": {"embedding_function": {"type": "known", "name": "x" * n, "config": {}}}
            }
        ),
    ),
    Quantity("rename.name", NAMES, lambda n: [request("PUT", C, lazily(lambda: {"new_name": "x" * n}))]),
    Quantity(
        "change.metadata-keys",
        VARIABLES,
        lambda n: [request("PUT", C, lazily(lambda: {"new_metadata": keys(n)}))],
    ),
    Quantity(
        "change.metadata-value",
        LENGTHS,
        lambda n: [request("PUT", C, lazily(lambda: {"new_metadata": {"k": "x" * n}}))],
    ),
    Quantity("list.limit", PAGES, lambda text: [request("GET", f"{COLLECTIONS}?limit={text}")]),
    Quantity("list.offset", PAGES, lambda text: [request("GET", f"{COLLECTIONS}?offset={text}")]),
    Quantity(
        "list.parameters",
        (0, 1, 1_000),
        lambda n: [request("GET", f"{COLLECTIONS}?" + "&".join(f"p{at}=1" for at in range(n)))],
    ),
    Quantity(
        "create.then-delete",
        (1, 50),
        lambda n: [
            call
            for _ in range(n)
            for call in (
                request("POST", COLLECTIONS, {"name": "made"}),
                request("DELETE", f"{COLLECTIONS}/made"),
            )
        ],
    ),
    Quantity(
        "database.name",
        NAMES,
        lambda n: [request("POST", DATABASES, lazily(lambda: {"name": "d" * n}))],
        setup="none",
    ),
    Quantity(
        "database.limit", PAGES, lambda text: [request("GET", f"{DATABASES}?limit={text}")], setup="none"
    ),
    Quantity(
        "tenant.name",
        NAMES,
        lambda n: [request("POST", f"{API}/tenants", lazily(lambda: {"name": "t" * n}))],
        setup="none",
    ),
    Quantity(
        "tenant.resource-name",
        (0, 1, 10_000, MIB),
        lambda n: [
            request("PATCH", f"{API}/tenants/default_tenant", lazily(lambda: {"resource_name": "x" * n}))
        ],
        setup="none",
    ),
    Quantity("fork.name", NAMES, lambda n: [post("fork", lazily(lambda: {"new_name": "x" * n}))]),
    Quantity(
        "attach.params",
        (0, 10_000),
        lambda n: [
            post(
                "functions/attach",
                lazily(
                    lambda: {
                        "name": "f",
                        "function_id": "record_counter",
                        "output_collection": "o",
                        "params": keys(n),
                    }
                ),
            )
        ],
    ),
    *_paths(),
    Quantity(
        "header.length",
        (0, 1, 8_000, 8_191, 60_000, 300_000),
        lambda n: [request("GET", f"{API}/version", None, ("X-A", "b" * n))],
        required="answered",
        setup="none",
        difference="head of a request",
    ),
    Quantity(
        "header.count",
        (0, 90, 98, 99, 1_000),
        lambda n: [request("GET", f"{API}/version", None, *[(f"X-{at}", "b") for at in range(n)])],
        required="answered",
        setup="none",
        difference="head of a request",
    ),
]


QUANTITIES: Final[tuple[Quantity, ...]] = (
    *(quantity for verb in WRITES for quantity in _written(verb)),
    *_ADDED,
    *_READS,
    *_CATALOGUE,
)
