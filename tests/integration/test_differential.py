"""Every answer of this project beside that of a real `chroma run`: status, content type and body.

`NAMED_DIFFERENCES` lists what must be different, each with a test that it still is.
"""

from __future__ import annotations

import base64
import contextlib
import json
import struct
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.integration.differential import DATABASE, Pair, Request, Side, chroma_run, differing
from tests.integration.harness import running_cluster
from tests.integration.single import SingleNode

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.slow

A = "/api/v2"
COLLECTIONS = f"{DATABASE}/collections"
#: The collection of three dimensions that most requests are about, and one that is never there.
C = f"{COLLECTIONS}/<main>"
UNKNOWN = f"{COLLECTIONS}/165dc64c-708a-44cf-aba6-a54864f5ad6a"

NAMED_DIFFERENCES = {
    "code in a configuration": "Chroma stores it, here create and update are refused with 400",
    "text only add": "Chroma: 422 missing field `embeddings`; here the leader embeds the documents",
    "text only query": "Chroma: 422 missing field `query_embeddings`; here `query_texts` is embedded",
    "text only update": "Chroma leaves the vector; here it is made anew, if the cluster made the old one",
    "lists in collection metadata": "Chroma hangs up (a panic in its storage), here 400",
    "other panics": "Chroma hangs up (seen: some queries for no results), here 500",
    "collection by resource name": "Chroma hangs up on a well-formed name, here 501",
    "refused write": "Chroma has fixed the collection's dimension by then, here it changed nothing",
    "body as an array": "Chroma takes an array in the order of its fields, here 400",
    "harmful metadata": "`chroma:document` with anything but a string breaks Chroma for good, here 400",
    "negative zero": "Chroma stores the float 0.0 for `-0` in metadata, here the integer 0",
    "heartbeat": "the time",
    "ids": "each server makes its own for collections and databases",
    "log index": "answers here carry X-Chroma-Log-Index, X-Chroma-Node and X-Chroma-Leader",
    "over a limit": "Chroma takes more than is good for it, here 400",
    "NUL in a text to look for": "Chroma finds what has the text before it, here 400",
    "too large": "the balancer answers 413 as JSON on every route, Chroma on some as plain text",
}


@pytest.fixture(scope="module", params=["one process", "cluster"])
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    """Chroma beside one node without Raft, and beside three nodes behind their balancer."""
    directory = tmp_path_factory.mktemp("differential")
    with contextlib.ExitStack() as stack:
        chroma = stack.enter_context(chroma_run(directory / "chroma"))
        if request.param == "cluster":
            ours = stack.enter_context(running_cluster(directory / "cluster")).url
        else:
            ours = stack.enter_context(SingleNode(directory / "ours")).url
        both = Pair(chroma, ours)
        both.create("main")
        both.create("empty")
        for each in _records():
            assert both.difference(each) is None
        yield both
        both.close()


def _post(path: str, body: Any, **headers: str) -> Request:
    return Request("POST", path, body, headers)


def _records() -> Iterator[Request]:
    """What is in the main collection: twelve records, all kinds of metadata, no two at one distance."""
    for at in range(12):
        record: dict[str, Any] = {
            "ids": [f"r{at}"],
            "embeddings": [[at + 0.1, at * 0.5, 3.1 - at]],
            "documents": [f"document number {at} of the bear" if at % 3 else None],
            "metadatas": [
                {
                    "number": at,
                    "even": at % 2 == 0,
                    "half": at / 2,
                    "word": f"w{at % 4}",
                    "tags": ["a", f"t{at}"],
                }
                if at % 4
                else None
            ],
            "uris": [f"http://example.org/{at}" if at % 5 == 0 else None],
        }
        yield _post(f"{C}/add", record)


def base64_of(*values: float) -> str:
    return base64.b64encode(struct.pack(f"<{len(values)}f", *values)).decode()


def _raw(path: str, *bodies: str | bytes) -> list[Request]:
    return [_post(path, body) for body in bodies]


def _deep(levels: int) -> str:
    return '{"where":' + '{"$and":[' * levels + '{"number":1},{"number":2}' + "]}" * levels + "}"


SYSTEM = [
    *[
        Request("GET", f"{A}/{path}")
        for path in ("version", "healthcheck", "pre-flight-checks", "auth/identity")
    ],
    *[
        Request("GET", path)
        for path in ("/", A + "/", "/api/v1", "/api/v1/", "/nope", f"{A}/nope", "//", "/docs")
    ],
    *[
        Request(method, "/api/v1/collections")
        for method in ("GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
    ],
    *[Request(method, f"{A}/heartbeat") for method in ("POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE")],
    *[Request("DELETE", path) for path in (f"{A}/tenants", COLLECTIONS, f"{C}/add", f"{C}/count")],
    *[Request("GET", path) for path in (f"{C}/add", f"{C}/functions/attach", f"{C}/get", f"{A}/reset")],
    *[Request("POST", path, {}) for path in (f"{C}/count", C, f"{COLLECTIONS}/by-id/<main>", f"{A}/version")],
    Request("GET", "/openapi.json"),
    Request("GET", "/docs/"),
    Request("GET", "/docs/nothing.js"),
    Request("HEAD", f"{A}/version"),
    Request("HEAD", f"{A}/nope"),
    *[Request("GET", f"{A}/collections/{crn}") for crn in ("foo", "a:b", "::", "a:b:", "a:b:c:d")],
    Request("GET", f"{COLLECTIONS}//count"),
    Request("GET", f"{COLLECTIONS}/a%2Fb"),
    Request("GET", f"{COLLECTIONS}/a%FFb"),
    Request("GET", f"{COLLECTIONS}/by-id/%FF"),
    Request("GET", f"{A}/tenants/%FF"),
    Request("GET", f"{A}/tenants/default%5Ftenant"),
    Request("GET", f"{COLLECTIONS}/by-id"),
    Request("GET", f"{COLLECTIONS}/by-id/count"),
]

CONTENT = [
    _post(f"{A}/tenants", '{"name":"abq0"}', **{"Content-Type": value})
    for value in (
        "text/plain",
        "application/x-www-form-urlencoded",
        "application/jsonx",
        "json",
        "multipart/json",
    )
] + [
    _post(f"{A}/tenants", f'{{"name":"abq{at}"}}', **{"Content-Type": value})
    for at, value in enumerate(
        ("application/vnd.x+json", "APPLICATION/JSON; charset=utf-8", "", "application/json;"), 1
    )
]

TENANTS = [
    *[
        _post(f"{A}/tenants", {"name": name})
        for name in ("ab", "", "t1x", "t1x", "é" * 3, "x" * 600, "a b/c", "éé")
    ],
    *_raw(
        f"{A}/tenants",
        "{}",
        '{"name":1}',
        '{"name":null}',
        "[]",
        "",
        "null",
        '{"name":"a"',
        '{"name":"t","name":"t"}',
    ),
    *[Request("GET", f"{A}/tenants/{name}") for name in ("t1x", "nope", "default_tenant", "a%20b%2Fc")],
    *[
        Request("PATCH", f"{A}/tenants/{name}", {"resource_name": "x"})
        for name in ("t1x", "nope", "default_tenant")
    ],
    *[
        Request("PATCH", f"{A}/tenants/t1x", body)
        for body in ("{}", '{"resource_name":5}', "", '{"resource_name":null}')
    ],
    Request("GET", f"{A}/tenants/t1x"),
]

_NAMES = (
    "db1",
    "db1",
    "a",
    "ab",
    "-bad",
    "bad-",
    "a..b",
    "1.2.3.4",
    "abc+def",
    "a+b",
    "abc+def+ghi",
    "x" * 512,
    "x" * 513,
)
DATABASES = [
    *[
        _post(f"{A}/tenants/{tenant}/databases", {"name": name})
        for tenant in ("t1x", "unknown")
        for name in _NAMES
    ],
    *_raw(f"{A}/tenants/t1x/databases", "{}", '{"name":true}', "x", "[]"),
    *[Request("GET", f"{A}/tenants/{tenant}/databases") for tenant in ("t1x", "unknown", "nothing")],
    *[
        Request("GET", f"{A}/tenants/t1x/databases?{query}")
        for query in (
            "limit=1",
            "limit=1&offset=1",
            "offset=100",
            "limit=0",
            "limit=x",
            "limit=-1",
            "limit=",
            "limit=1.5",
            "limit=4294967296",
            "offset=%2B1",
            "limit=1&limit=2",
            "other=1",
            "limit",
            "offset=",
        )
    ],
    *[
        Request("GET", f"{A}/tenants/t1x/databases/{name}")
        for name in ("db1", "ab", "nope", "abc+def", "%C3%A9")
    ],
    *[
        Request("DELETE", f"{A}/tenants/t1x/databases/{name}")
        for name in ("ab", "nope", "abc+def", "abc+def")
    ],
    Request("GET", f"{A}/tenants/t1x/databases"),
    Request("GET", f"{A}/tenants/default_tenant/databases"),
    Request("GET", f"{A}/tenants/default_tenant/databases/default_database"),
]

_CONFIGURATIONS: list[Any] = [
    {"hnsw": {"space": "cosine"}},
    {"hnsw": {"space": "ip", "ef_search": 7, "max_neighbors": 9}},
    {"hnsw": {"space": "x"}},
    {"hnsw": {"foo": 1}},
    {"hnsw": {"ef_search": -1}},
    {"hnsw": None},
    {},
    {"foo": 1},
    {"spann": {"space": "l2"}},
    {"hnsw": {"space": "l2"}, "spann": {"space": "l2"}},
    {"hnsw": {"resize_factor": 0.5}},
    {"hnsw": {"sync_threshold": 1}},
    {"hnsw": {"ef_construction": 2**70}},
    [],
    "x",
    5,
    {"embedding_function": {"type": "legacy"}},
    {"embedding_function": {"type": "unknown"}},
    {"embedding_function": {"type": "known"}},
    {"embedding_function": "x"},
    {"embedding_function": {"type": "known", "name": "default", "config": {}}},
    {"embedding_function": {"type": "known", "name": "mine", "config": {"a": [1, {"b": None}]}}},
    {"hnsw": []},
    {"hnsw": {"batch_size": 10, "sync_threshold": 5}},
    {"hnsw": {"num_threads": 0}},
]
_SCHEMAS: list[Any] = [
    {"defaults": {}, "keys": {}},
    {},
    [],
    {"defaults": {}},
    {"keys": {}},
    {"defaults": {}, "keys": {"#x": {}}},
    {"defaults": {"float_list": {"vector_index": {"enabled": True, "config": {}}}}, "keys": {}},
    {"defaults": {}, "keys": {"a": {"string": {"string_inverted_index": {"enabled": False, "config": {}}}}}},
    {
        "defaults": {},
        "keys": {"s": {"sparse_vector": {"sparse_vector_index": {"enabled": True, "config": {}}}}},
    },
    {"defaults": {}, "keys": {}, "source_attached_function_id": "x"},
    {"defaults": {"foo": 1}, "keys": {}},
    {"defaults": {}, "keys": {"#document": {"int": {"int_inverted_index": {"enabled": True, "config": {}}}}}},
]
_METADATAS: list[Any] = [
    {},
    {"a": 1},
    {"a": 1.5, "b": True, "c": "x"},
    {"a": None},
    {"a": {"b": 1}},
    {"#a": 1},
    {"$a": 1},
    {"": 1},
    [],
    5,
    "x",
    {"hnsw:space": "cosine"},
    {"hnsw:space": "foo"},
    {"hnsw:foo": 1},
    {"hnsw:M": 5, "other": 1},
    {"a": 2**63},
    {"a": [1, "b"]},
]

CATALOG = [
    *[
        _post(COLLECTIONS, {"name": name})
        for name in ("a", "ab", "-x-", "a..b", "1.2.3.4", "a b", "é", "x" * 513, "one", "one")
    ],
    *[_post(COLLECTIONS, {"name": "one", "get_or_create": value}) for value in (True, False, None, 1, "x")],
    *_raw(
        COLLECTIONS,
        "",
        "{",
        "{}",
        "[]",
        "null",
        '{"name":5}',
        '{"name":"x","name":"y"}',
        '{"nam":"a"}',
        '{"name":"two" }x',
    ),
    *[
        _post(COLLECTIONS, {"name": f"cfg{at}", "configuration": value})
        for at, value in enumerate(_CONFIGURATIONS)
    ],
    *[_post(COLLECTIONS, {"name": f"sch{at}", "schema": value}) for at, value in enumerate(_SCHEMAS)],
    *[_post(COLLECTIONS, {"name": f"met{at}", "metadata": value}) for at, value in enumerate(_METADATAS)],
    _post(
        COLLECTIONS,
        {"name": "both", "schema": {"defaults": {}, "keys": {}}, "configuration": {"hnsw": {"space": "l2"}}},
    ),
    _post(f"{A}/tenants/default_tenant/databases/nope/collections", {"name": "abc"}),
    _post(f"{A}/tenants/nope/databases/default_database/collections", {"name": "abc"}),
    _post(f"{A}/tenants/default_tenant/databases/no/collections", {"name": "abc"}),
    _post(f"{A}/tenants/default_tenant/databases/nope/collections", {"name": "a"}),
    _post(f"{A}/tenants/t1x/databases/db1/collections", {"name": "one"}),
    *[
        Request("GET", f"{A}/tenants/{place}/collections{more}")
        for place in ("t1x/databases/db1", "nope/databases/nope", "t1x/databases/no")
        for more in (
            "",
            "_count",
            "/one",
            "/nope",
            "?limit=1",
            "?limit=0&offset=0",
            "?offset=5",
            "?limit=a",
            "?offset=-1",
        )
    ],
    *[
        Request("GET", f"{COLLECTIONS}/{name}")
        for name in ("main", "one", "nope", "<main>", "cfg0", "cfg21", "sch7", "met1")
    ],
    *[
        Request("GET", f"{COLLECTIONS}/by-id/{name}")
        for name in ("<main>", "nope", "165dc64c-708a-44cf-aba6-a54864f5ad6a")
    ],
    Request("GET", f"{DATABASE}/collections_count"),
    Request("GET", f"{A}/tenants/t1x/databases/db1/collections/by-id/<main>"),
    *[Request("DELETE", f"{COLLECTIONS}/{name}") for name in ("one", "one", "nope", "<main>", "met1")],
    Request("DELETE", f"{A}/tenants/t1x/databases/no/collections/one"),
    Request("DELETE", f"{A}/tenants/t1x/databases/db1"),
    Request("GET", f"{A}/tenants/t1x/databases/db1/collections"),
    Request("GET", f"{DATABASE}/collections_count"),
]

_CHANGES: list[Any] = [
    {},
    {"new_name": "other"},
    {"new_name": "empty"},
    {"new_name": "main"},
    {"new_name": "x"},
    {"new_name": 5},
    {"new_name": None},
    {"new_metadata": {}},
    {"new_metadata": {"a": 1, "b": None}},
    {"new_metadata": {"a": None}},
    {"new_metadata": {"#a": 1}},
    {"new_metadata": []},
    {"new_configuration": {}},
    {"new_configuration": {"hnsw": {"ef_search": 50}}},
    {"new_configuration": {"hnsw": {"space": "l2"}}},
    {"new_configuration": {"spann": {"ef_search": 5}}},
    {"new_configuration": {"hnsw": {"ef_search": "x"}}},
    {"new_configuration": 5},
    {"new_configuration": {"foo": 1}},
    {"new_configuration": {"embedding_function": {"type": "known", "name": "mine", "config": {}}}},
    {"new_configuration": {"hnsw": {}, "spann": {}}},
    {"new_name": "ok-name", "new_metadata": {"q": 1}},
    {"new_name": "main"},
]
UPDATES = [
    Request("PUT", path, body)
    for body in _CHANGES
    for path in (C, UNKNOWN, f"{COLLECTIONS}/nope", f"{A}/tenants/t1x/databases/no/collections/<main>")
] + [
    Request("GET", f"{COLLECTIONS}/main"),
    Request("PUT", C, ""),
    Request("PUT", C, '{"new_name":"a","new_name":"b"}'),
]

_GOOD = {"ids": ["n1"], "embeddings": [[1, 2, 3]]}
_WRITES: list[Any] = [
    _GOOD,
    {"ids": [], "embeddings": []},
    {"ids": ["n2"], "embeddings": []},
    {"ids": ["n2"], "embeddings": [[]]},
    {"ids": ["n2"], "embeddings": [[1, 2]]},
    {"ids": ["n2"], "embeddings": [[1, 2], [1, 2, 3]]},
    {"ids": "x", "embeddings": [[1, 2, 3]]},
    {"ids": ["n2", "n2"], "embeddings": [[1, 2, 3], [1, 2, 4]]},
    {"ids": [""], "embeddings": [[1, 2, 3]]},
    {"ids": [1], "embeddings": [[1, 2, 3]]},
    {"ids": [None], "embeddings": [[1, 2, 3]]},
    {"embeddings": [[1, 2, 3]]},
    {"ids": None, "embeddings": [[1, 2, 3]]},
    {"ids": ["n2"], "embeddings": None},
    {"ids": ["n2"], "embeddings": [[1, 2, None]]},
    {"ids": ["n2"], "embeddings": [[1, 2, True]]},
    {"ids": ["n2"], "embeddings": [[1, 2, "3"]]},
    {"ids": ["n2"], "embeddings": [None]},
    {"ids": ["n2"], "embeddings": [1, 2, 3]},
    {"ids": ["n2"], "embeddings": {"a": 1}},
    {"ids": ["n2"], "embeddings": [[1e39, 1, 1]]},
    {"ids": ["n2"], "embeddings": [[1e-50, -0.0, 3.4e38]]},
    {"ids": ["n3"], "embeddings": [base64_of(1, 2, 3)]},
    {"ids": ["n3"], "embeddings": [base64_of(1, 2)]},
    {"ids": ["n3"], "embeddings": [""]},
    {"ids": ["n3"], "embeddings": ["AACAPwAAAEAAAEB"]},
    {"ids": ["n3"], "embeddings": ["AACAPwAAAEAAAA=="]},
    {"ids": ["n3"], "embeddings": ["****"]},
    {"ids": ["n3"], "embeddings": [base64_of(float("nan"), 1, 2)]},
    {"ids": ["n3"], "embeddings": [base64_of(1, float("inf"), 2)]},
    {"ids": ["n3"], "embeddings": [base64_of(1, 2, float("-inf"))]},
    {"ids": ["n3"], "embeddings": ["é"]},
    {"ids": ["n3"], "embeddings": ["AAAAAAAAAAAAAAB="]},
    {"ids": ["n3", "n4"], "embeddings": [[1, 2, 3], base64_of(1, 2, 3)]},
    {"ids": ["n3"], "embeddings": [" AACAPwAAAEAAAEBA"]},
    {**_GOOD, "documents": ["x"]},
    {**_GOOD, "documents": [None]},
    {**_GOOD, "documents": []},
    {**_GOOD, "documents": ["x", "y"]},
    {**_GOOD, "documents": "x"},
    {**_GOOD, "documents": [5]},
    {**_GOOD, "documents": None},
    {**_GOOD, "uris": ["u"]},
    {**_GOOD, "uris": [5]},
    {**_GOOD, "uris": ["u", None]},
    {**_GOOD, "unknown": 1},
    {**_GOOD, "metadatas": None},
    {**_GOOD, "metadatas": [None]},
    {**_GOOD, "metadatas": []},
    {**_GOOD, "metadatas": [{}]},
    {**_GOOD, "metadatas": {}},
    {**_GOOD, "metadatas": [5]},
    {**_GOOD, "metadatas": [[]]},
    {**_GOOD, "metadatas": [{"a": 1}, {"a": 2}]},
    {"ids": ["n5"], "embeddings": [[]], "metadatas": [{"#a": 1}]},
    {"ids": ["n5"], "embeddings": [[1, 2]], "metadatas": [{"#a": 1}]},
    {"ids": ["n5"], "embeddings": [[1, 2]], "documents": ["x", "y"]},
    {"ids": ["", "n5"], "embeddings": [[1, 2, 3]]},
]
_VALUES: list[Any] = [
    1,
    -5,
    2**40,
    2**63 - 1,
    2**63,
    2**64 - 1,
    2**64,
    -(2**63),
    -(2**63) - 1,
    1.5,
    1e300,
    1.0,
    True,
    False,
    "",
    "text",
    "\u0000",
    "é\U0001f600",
    None,
    [],
    [1],
    [1, 2],
    [1, 2.5],
    [1.0],
    ["a"],
    ["a", "b"],
    [True],
    [True, 1],
    [1, "a"],
    [None],
    [[1]],
    [2**63],
    ["a", None],
    {},
    {"a": 1},
    {"indices": [1, 2], "values": [0.5, 0.25]},
    {"#type": "sparse_vector", "indices": [0], "values": [1]},
    {"#type": "x", "indices": [0], "values": [1]},
    {"indices": [2, 1], "values": [0.5, 0.25]},
    {"indices": [1], "values": [0.5, 0.25]},
    {"indices": [-1], "values": [0.5]},
    {"indices": [1], "values": [0.5], "tokens": ["a"]},
    {"indices": [1], "values": [0.5], "tokens": []},
    {"indices": [], "values": []},
]
_BROKEN = (
    "",
    "{",
    "null",
    "[]",
    "5",
    '"x"',
    "{}x",
    '{"ids":["n9"],"ids":["n9"],"embeddings":[[1,2,3]]}',
    '{"ids":["n9"],"embeddings":[[1,2,NaN]]}',
    '{"ids":["n9"],"embeddings":[[1,2,Infinity]]}',
    '{"ids":["n9"],"embeddings":[[1,2,1e400]]}',
    '{"ids":["\\ud800"],"embeddings":[[1,2,3]]}',
    b'{"ids":["\xff"],"embeddings":[[1,2,3]]}',
    '{"ids":["n9",],"embeddings":[[1,2,3]]}',
    "{'ids':['n9']}",
    '{"ids":["n9"],"embeddings":[[1,2,03]]}',
    '{"ids":["n9"]',
    '{"ids":["n9"],"embeddings":[[1,2,3]]} // x',
    '\ufeff{"ids":[]}',
    '{"ids":["n9\n"],"embeddings":[[1,2,3]]}',
    '{"ids":["n10"],"embeddings":[[1.00000000000000000000001,2e0,3E+0]],"metadatas":[{"ids":"ids","ids":"x"}]}',
)


def _write_requests() -> Iterator[Request]:
    for body in _WRITES:
        for verb in ("add", "upsert", "update"):
            yield _post(f"{C}/{verb}", body)
    for at, value in enumerate(_VALUES):
        for verb in ("add", "upsert", "update"):
            for id_ in (f"{verb}{at}", "r1"):
                yield _post(
                    f"{C}/{verb}", {"ids": [id_], "embeddings": [[1, 2, 3]], "metadatas": [{"k": value}]}
                )
    for key in ("", "#a", "$a", "chroma:uri", "a b", "é", "chroma:x"):
        yield _post(f"{C}/upsert", {"ids": ["key"], "embeddings": [[1, 2, 3]], "metadatas": [{key: 1}]})
    for verb in ("add", "upsert", "update"):
        yield from _raw(f"{C}/{verb}", *_BROKEN)
        for path in (
            UNKNOWN,
            f"{COLLECTIONS}/nope",
            f"{A}/tenants/t1x/databases/no/collections/<main>",
            f"{A}/tenants/nope/databases/nope/collections/<main>",
            f"{A}/tenants/x/databases/no/collections/nope",
        ):
            for body in (
                _GOOD,
                {"ids": ["n2"], "embeddings": []},
                {"ids": ["n2"], "embeddings": [[]]},
                "{",
                {"ids": ["n2"], "embeddings": ["*"]},
            ):
                yield _post(f"{path}/{verb}", body)
    yield _post(
        f"{C}/update",
        {"ids": ["r1", "nope"], "documents": ["new", "new"], "metadatas": [{"word": None}, None]},
    )
    yield _post(f"{C}/update", {"ids": ["r2", "r3"], "embeddings": [None, [9, 9, 9]]})
    yield _post(f"{C}/update", {"ids": ["r2"], "embeddings": [None, base64_of(1, 2, 3)]})
    yield _post(f"{C}/update", {"ids": ["r2"], "embeddings": [base64_of(4, 2, 3)]})
    yield _post(f"{C}/update", {"ids": ["r2"]})
    yield _post(f"{C}/update", {"ids": []})
    yield _post(f"{C}/get", {"include": ["embeddings", "documents", "metadatas", "uris"]})
    yield Request("GET", f"{COLLECTIONS}/main")


_WHERES: list[Any] = [
    None,
    {},
    [],
    5,
    "x",
    {"number": 3},
    {"number": {"$gt": 3}},
    {"number": {"$gte": 3, "$lt": 5}},
    {"number": {"$foo": 3}},
    {"number": {"$in": [1, 2]}},
    {"number": {"$nin": [1, 2]}},
    {"number": {"$in": []}},
    {"number": {"$in": [1, "a"]}},
    {"word": {"$in": ["w1"]}},
    {"half": 1.5},
    {"half": {"$lt": 2}},
    {"even": True},
    {"even": {"$ne": True}},
    {"word": "w1", "number": 1},
    {"$and": [{"number": 1}, {"word": "w1"}]},
    {"$or": [{"number": 1}, {"number": 2}]},
    {"$and": []},
    {"$and": [{"number": 1}]},
    {"$or": {}},
    {"$not": {"number": 1}},
    {"number": None},
    {"number": {"$eq": None}},
    {"tags": {"$contains": "a"}},
    {"tags": {"$not_contains": "t1"}},
    {"number": [1]},
    {"$foo": 1},
    {"": 1},
    {"number": {"$gt": "x"}},
    {"number": {"$gt": True}},
    {"number": 1.0},
    {"#document": {"$contains": "bear"}},
    {"number": 2**63},
    {"number": 1e400 if False else 10**30},
    {"half": {"$gt": 1}},
    {"nothing": {"$ne": 1}},
]
_DOCUMENT_FILTERS: list[Any] = [
    None,
    {},
    {"$contains": "bear"},
    {"$not_contains": "bear"},
    {"$contains": ""},
    {"$contains": 5},
    {"$regex": "num.*1"},
    {"$regex": "("},
    {"$not_regex": "1$"},
    {"$and": [{"$contains": "bear"}, {"$contains": "1"}]},
    {"$or": [{"$contains": "number 1"}, {"$contains": "number 2"}]},
    {"$foo": "x"},
    {"$and": []},
    [],
    "x",
    {"$contains": "a", "$not_contains": "b"},
    {"$regex": ""},
    {"$regex": "."},
    {"$regex": "\\"},
]
_LIMITS: list[Any] = [0, 1, 5, 4294967295, 4294967296, -1, 1.0, 1.5, "1", None, True, 10**30]
_INCLUDES: list[Any] = [
    [],
    ["documents"],
    ["embeddings", "distances", "uris", "metadatas", "documents"],
    ["uris", "uris"],
    ["data"],
    ["x"],
    None,
    "documents",
    [1],
    {},
]


def _read_requests() -> Iterator[Request]:
    for verb, fixed in (
        ("get", {}),
        ("query", {"query_embeddings": [[1.5, 2, 3]], "n_results": 5}),
        ("delete", {}),
    ):
        for where in _WHERES:
            if verb != "delete" or not isinstance(where, dict) or where:
                yield _post(f"{C}/{verb}", {**fixed, "where": where})
        for where in _DOCUMENT_FILTERS:
            yield _post(f"{C}/{verb}", {**fixed, "where_document": where, "where": {"number": 4}})
        for ids in (None, [], ["r1"], ["r1", "nope"], ["r1", "r1"], [""], [1], "r1", ["nope"]):
            yield _post(f"{C}/{verb}", {**fixed, "ids": ids, "where": {"number": {"$lt": 3}}})
        for limit in _LIMITS:
            yield _post(f"{C}/{verb}", {**fixed, "limit": limit, "where": {"number": 100}})
        yield from _raw(
            f"{C}/{verb}",
            *_BROKEN,
            '{"where":{"a":1},"where":{"a":1}}',
            _deep(20),
            _deep(62),
            _deep(70),
            _deep(140),
        )
        for path in (
            UNKNOWN,
            f"{COLLECTIONS}/nope",
            f"{A}/tenants/t1x/databases/no/collections/<main>",
            f"{A}/tenants/nope/databases/nope/collections/<main>",
        ):
            for body in (
                fixed,
                {**fixed, "where": {}},
                "{",
                {**fixed, "ids": []},
                {**fixed, "ids": ["nope"]},
            ):
                yield _post(f"{path}/{verb}", body)
    for ids in ([], ["r5"], ["r5", "nope"], ["r6", "r6"], None):
        for limit in (None, 1):
            yield _post(f"{C}/delete", {"ids": ids, "limit": limit})
    yield _post(f"{C}/delete", {"where": {"number": {"$gte": 9}}, "limit": 1})
    yield _post(f"{C}/delete", {"ids": ["r10", "r11", "r1"], "where": {"number": {"$gte": 9}}})
    for include in _INCLUDES:
        yield _post(f"{C}/get", {"include": include})
        yield _post(
            f"{C}/query", {"query_embeddings": [[1.5, 2, 3], [9, 1, 1]], "n_results": 4, "include": include}
        )
    for limit in _LIMITS:
        yield _post(f"{C}/get", {"limit": limit})
        yield _post(f"{C}/get", {"offset": limit, "limit": 2})
        if limit not in (4294967295,):
            yield _post(f"{C}/query", {"query_embeddings": [[1.5, 2, 3]], "n_results": limit})
    for vectors in (
        [],
        [[]],
        [[1, 2]],
        [[1, 2], [1, 2, 3]],
        None,
        [None],
        [[None]],
        "x",
        [["1"]],
        [[True, 1, 2]],
        [base64_of(1, 2, 3)],
        {},
        [[1, 2, 1e39]],
        [[1.5, 2, 3], [1, 1, 1]],
    ):
        yield _post(f"{C}/query", {"query_embeddings": vectors, "n_results": 3})
        yield _post(f"{COLLECTIONS}/<empty>/query", {"query_embeddings": vectors, "n_results": 3})
    for path in (
        C,
        UNKNOWN,
        f"{COLLECTIONS}/nope",
        f"{COLLECTIONS}/<empty>",
        f"{A}/tenants/x/databases/no/collections/<main>",
    ):
        for query in (
            "",
            "?read_level=index_only",
            "?read_level=index_and_wal",
            "?read_level=x",
            "?read_level=",
            "?x=1",
            "?read_level=index_only&read_level=index_only",
        ):
            yield Request("GET", f"{path}/count{query}")


def _unsupported_requests() -> Iterator[Request]:
    attach = {"name": "f", "function_id": "record_counter", "output_collection": "o"}
    for database in ("default_database", "ab", "nope", "topo+dbx"):
        for collection in ("<main>", "165dc64c-708a-44cf-aba6-a54864f5ad6a", "nope"):
            base = f"{A}/tenants/default_tenant/databases/{database}/collections/{collection}"
            for body in ({"new_name": "f"}, {}, {"new_name": 5}, "{", {"new_name": "x"}):
                yield _post(f"{base}/fork", body)
            yield Request("GET", f"{base}/fork_count")
            yield Request("GET", f"{base}/indexing_status")
            for body in (attach, {}, {**attach, "params": {"a": 1}}, {**attach, "name": 5}, ""):
                yield _post(f"{base}/functions/attach", body)
            yield Request("GET", f"{base}/functions/f")
            for body in ({}, {"delete_output": True}, {"delete_output": 5}, "["):
                yield _post(f"{base}/attached_functions/f/detach", body)
            for body in (
                {"searches": []},
                {"searches": [{"limit": {"limit": 2}}]},
                {},
                {"searches": 5},
                "{",
                {"searches": [{}], "read_level": "x"},
                {"searches": [{"rank": {"$knn": {"query": [1, 2, 3]}}}]},
                {"searches": [{"group_by": {"keys": ["a"]}}]},
            ):
                yield _post(f"{base}/search", body)


def _id_requests() -> Iterator[Request]:
    for template in (
        "<main>",
        "%7B<main>%7D",
        "{<main>}",
        "urn:uuid:<main>",
        "URN:UUID:<main>",
        "<main>x",
        "%20<main>",
        "<main>%20",
    ):
        for path in (f"{COLLECTIONS}/{template}/count", f"{COLLECTIONS}/by-id/{template}"):
            yield Request("GET", path)


GROUPS: dict[str, Any] = {
    "system": SYSTEM,
    "content types": CONTENT,
    "tenants": TENANTS,
    "databases": DATABASES,
    "catalog": CATALOG,
    "ids": _id_requests,
    "writes": _write_requests,
    "reads": _read_requests,
    "updates": UPDATES,
    "unsupported": _unsupported_requests,
}


@pytest.mark.parametrize("group", GROUPS)
def test_same_answers(pair: Pair, group: str) -> None:
    requests = GROUPS[group]() if callable(GROUPS[group]) else GROUPS[group]
    found = [difference for request in requests if (difference := pair.difference(request)) is not None]
    assert not found, f"{len(found)} differences:\n" + "\n".join(found[:40])


# ----------------------------------------------------------------- what a schema switches off


def test_filters_on_what_a_schema_does_not_index(pair: Pair) -> None:
    off = {"enabled": False, "config": {}}
    keys = {
        "word": {"string": {"string_inverted_index": off}},
        "number": {"int": {"int_inverted_index": off}},
        "#document": {"string": {"fts_index": off, "string_inverted_index": off}},
    }
    pair.create("unindexed", schema={"defaults": {}, "keys": keys})
    path = f"{COLLECTIONS}/<unindexed>"
    records = {
        "ids": ["a", "b"],
        "embeddings": [[1, 2, 3], [3, 2, 9]],
        "documents": ["one bear", "two bears"],
        "metadatas": [{"word": "x", "number": 1, "other": 2}, {"word": "y", "number": 2.5, "other": "z"}],
    }
    requests = [_post(f"{path}/add", records), Request("GET", f"{COLLECTIONS}/unindexed")]
    filters: list[Any] = [{"word": "x"}, {"number": 1}, {"number": 2.5}, {"other": 2}, {"word": {"$ne": "x"}}]
    for verb, fixed in (("get", {}), ("query", {"query_embeddings": [[1, 2, 3]]}), ("delete", {})):
        requests += [_post(f"{path}/{verb}", {**fixed, "where": where}) for where in filters]
        requests += [
            _post(f"{path}/{verb}", {**fixed, "where_document": {operator: "bear"}})
            for operator in ("$contains", "$not_contains", "$regex", "$not_regex")
        ]
    requests += [_post(f"{path}/get", {}), Request("GET", f"{COLLECTIONS}/unindexed")]
    found = [difference for each in requests if (difference := pair.difference(each)) is not None]
    assert not found, "\n".join(found)


# ------------------------------------------------------------------------- generated requests

_words = st.sampled_from(["r1", "r2", "r7", "new", "", "é", "a b", "x" * 300])
_odd = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**65), 2**65),
    st.floats(allow_nan=True, allow_infinity=True, width=32),
    _words,
    st.lists(st.integers(-3, 3), max_size=3),
    st.dictionaries(_words, st.integers(-3, 3), max_size=2),
)
_metadata_values = st.one_of(
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(-1e9, 1e9, width=32),
    _words,
    st.lists(st.sampled_from(["a", "b"]), max_size=3),
    st.lists(st.integers(-5, 5), max_size=3),
    st.lists(st.floats(-5, 5, width=32), max_size=2),
)
_metadatas = st.dictionaries(
    st.sampled_from(["k", "number", "word", "tags", "#no"]), _metadata_values, max_size=3
)
_vectors = st.lists(st.floats(-100, 100, width=32), min_size=3, max_size=3)
_bad_vectors = st.one_of(
    st.lists(st.floats(width=32), max_size=4), _vectors.map(lambda row: base64_of(*row)), _odd
)


def _mostly(good: st.SearchStrategy[Any], bad: st.SearchStrategy[Any] = _odd) -> st.SearchStrategy[Any]:
    """Good values in nine of ten cases: one odd field at a time tells more than all of them."""
    return st.integers(0, 9).flatmap(lambda roll: bad if roll == 0 else good)


@st.composite
def _record_bodies(draw: st.DrawFn) -> dict[str, Any]:
    size = draw(st.integers(0, 3))
    body: dict[str, Any] = {
        "ids": draw(_mostly(st.lists(_words, min_size=size, max_size=size))),
        "embeddings": draw(_mostly(st.lists(_mostly(_vectors, _bad_vectors), min_size=size, max_size=size))),
    }
    optional = {
        "metadatas": st.lists(_mostly(st.one_of(st.none(), _metadatas)), min_size=size, max_size=size),
        "documents": st.lists(_mostly(st.one_of(st.none(), _words)), min_size=size, max_size=size),
        "uris": st.lists(_mostly(st.one_of(st.none(), _words)), min_size=size, max_size=size),
    }
    for name, values in optional.items():
        if draw(st.booleans()):
            body[name] = draw(_mostly(values))
    if draw(st.integers(0, 19)) == 0:
        body.pop(draw(st.sampled_from(sorted(body))))
    return body


_leaves = st.one_of(
    st.builds(
        lambda key, value: {key: value},
        st.sampled_from(["k", "number", "word", "half", "even"]),
        _mostly(_words),
    ),
    st.builds(
        lambda key, operator, value: {key: {operator: value}},
        st.sampled_from(["number", "word", "half", "even", "tags"]),
        st.sampled_from(
            ["$eq", "$ne", "$gt", "$gte", "$lt", "$lte", "$in", "$nin", "$contains", "$not_contains", "$x"]
        ),
        st.one_of(
            st.integers(-3, 12),
            st.floats(-3, 12, width=32),
            _words,
            st.lists(st.integers(0, 9), max_size=3),
            _odd,
        ),
    ),
)
_wheres = st.recursive(
    _leaves,
    lambda inner: st.builds(
        lambda operator, several: {operator: several},
        st.sampled_from(["$and", "$or"]),
        st.lists(inner, max_size=3),
    ),
    max_leaves=5,
)
_text_filters = st.builds(
    lambda operator, text: {operator: text},
    st.sampled_from(["$contains", "$not_contains", "$regex", "$not_regex", "$x"]),
    st.sampled_from(["bear", "number 1", "", "(", "n.*1", "[0-9]", "é", "a|b", "."]),
)
_numbers = _mostly(st.integers(0, 20))


@st.composite
def _read_bodies(draw: st.DrawFn, verb: str) -> dict[str, Any]:
    body: dict[str, Any] = {}
    optional: dict[str, st.SearchStrategy[Any]] = {
        "ids": st.lists(st.sampled_from(["r1", "r2", "r3"]), max_size=3),
        "where": _wheres,
        "where_document": _text_filters,
        "limit": _numbers,
    }
    if verb != "delete":
        optional["include"] = st.lists(st.sampled_from(sorted(_ALL_FIELDS)), max_size=5)
    if verb == "query":
        body["query_embeddings"] = draw(_mostly(st.lists(_mostly(_vectors, _bad_vectors), max_size=2)))
        body["n_results"] = draw(_mostly(st.integers(0, 5)))
        # Chroma fails on ids that are not there, on ids at all in an index that it has not built.
        optional.pop("ids")
    else:
        optional["offset"] = _numbers
    for name, values in optional.items():
        if draw(st.booleans()):
            body[name] = draw(_mostly(values))
    return body


_ALL_FIELDS = ("distances", "documents", "embeddings", "metadatas", "uris")


@st.composite
def _requests(draw: st.DrawFn) -> Request:
    verb = draw(st.sampled_from(["add", "upsert", "update", "get", "get", "query", "delete"]))
    collection = draw(st.sampled_from([C] * 9 + [UNKNOWN]))
    if verb in ("add", "upsert", "update"):
        body: Any = draw(_record_bodies())
    else:
        body = draw(_read_bodies(verb))
    text = json.dumps(body)
    if draw(st.integers(0, 19)) == 0:
        cut = draw(st.integers(0, len(text)))
        text = text[:cut] + draw(st.sampled_from(["", "x", "}", '"', ",", "[", "\x00"])) + text[cut:]
    return _post(f"{collection}/{verb}", text)


def _is_named(request: Request) -> bool:
    """Whether this project answers by design otherwise (see NAMED_DIFFERENCES)."""
    try:
        body = json.loads(request.body)
    except ValueError:
        return False
    if not isinstance(body, dict):
        return isinstance(body, list)
    text_only = body.get("documents") and body.get("embeddings") is None
    return bool(text_only) and not request.path.endswith("/update")


@settings(
    max_examples=800,
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)
@given(request_=_requests())
def test_same_answers_to_generated_requests(pair: Pair, request_: Request) -> None:
    if _is_named(request_):
        return
    expected, got = pair.both(request_)
    if expected.status == 0:
        assert got.status in (400, 500), f"{request_}: Chroma hangs up, ours: {got}"
        return
    difference = differing(expected, got)
    assert difference is None, f"{request_}\n  chroma: {expected}\n  ours:   {got}\n  {difference}"


def test_same_records_in_the_end(pair: Pair) -> None:
    everything = ["embeddings", "documents", "metadatas", "uris"]
    assert pair.difference(_post(f"{C}/get", {"include": everything})) is None
    assert pair.compared > 1000


# ---------------------------------------------------------------------------- large requests


def test_forty_mebibytes(pair: Pair) -> None:
    mebibyte = 1024 * 1024
    for size, paths in ((39, (f"{C}/upsert",)), (41, (f"{C}/add", f"{C}/get", f"{A}/tenants"))):
        padding = "x" * (size * mebibyte)
        body = f'{{"ids":["big"],"embeddings":[[7,7,7]],"name":"x","nothing":"{padding}"}}'
        for path in paths:
            expected, got = pair.both(_post(path, body))
            # A server that has answered may cut off the rest of the upload: then there is no answer.
            assert got.status in (expected.status, 0) or expected.status == 0, (path, expected, got)
            if expected.status and got.status and expected.content_type is not None:
                assert (expected.content_type, expected.body) == (got.content_type, got.body)


# ------------------------------------------------------------------------- named differences


def _both(pair: Pair, method: str, path: str, body: Any = None, **headers: str) -> tuple[Any, Any]:
    expected, got = pair.both(Request(method, path, body, headers))
    return (expected.status, expected.body), (got.status, got.body)


def test_code_in_a_configuration_is_refused(pair: Pair) -> None:
    function = {"type": "known", "name": "x", "config": {"nested": [{"trust_remote_code": True}]}}
    body = {"name": "evil", "configuration": {"embedding_function": function}}
    chroma, ours = _both(pair, "POST", COLLECTIONS, body)
    assert (chroma[0], ours[0]) == (200, 400)
    assert "trust_remote_code" in ours[1]["message"]
    chroma, ours = _both(pair, "PUT", C, {"new_configuration": {"embedding_function": function}})
    assert (chroma[0], ours[0]) == (200, 400)
    assert pair.ours.send(Request("GET", f"{COLLECTIONS}/evil")).status == 404


def test_documents_and_query_texts_are_embedded_here(pair: Pair) -> None:
    pair.create("texts")
    path = f"{COLLECTIONS}/<texts>"
    for body in (
        {"ids": ["t1"], "documents": ["a"]},
        {"ids": ["t1"], "documents": ["a"], "embeddings": None},
    ):
        for verb, status in (("add", 201), ("upsert", 200)):
            chroma, ours = _both(pair, "POST", f"{path}/{verb}", body)
            assert (chroma[0], ours[0]) == (422, status), ours
    chroma, ours = _both(pair, "POST", f"{path}/query", {"query_texts": ["a"], "n_results": 1})
    assert (chroma[0], ours[0]) == (422, 200)
    assert ours[1]["ids"] == [["t1"]]
    before = _vector_of(pair, path)
    assert pair.ours.send(_post(f"{path}/update", {"ids": ["t1"], "documents": ["another"]})).status == 200
    assert _vector_of(pair, path) != before
    # Vectors that clients made are not touched by an update of the document, as in Chroma.
    assert pair.difference(_post(f"{C}/update", {"ids": ["r1"], "documents": ["another"]})) is None
    assert pair.difference(_post(f"{C}/get", {"ids": ["r1"], "include": ["embeddings", "documents"]})) is None


def _vector_of(pair: Pair, path: str) -> Any:
    return pair.ours.send(_post(f"{path}/get", {"ids": ["t1"], "include": ["embeddings"]})).body["embeddings"]


@pytest.mark.parametrize("value", [[1, 2], {"indices": [1], "values": [0.5]}])
def test_chroma_hangs_up_on_lists_in_collection_metadata(pair: Pair, value: Any) -> None:
    chroma, ours = _both(pair, "POST", COLLECTIONS, {"name": "lists", "metadata": {"a": value}})
    assert (chroma[0], ours[0]) == (0, 400)


def test_chroma_hangs_up_on_resource_names(pair: Pair) -> None:
    chroma, ours = _both(pair, "GET", f"{A}/collections/tenant:default_database:main")
    assert (chroma[0], ours[0]) == (0, 501)


def test_a_refused_write_changes_nothing_here(pair: Pair) -> None:
    pair.create("refused")
    for body in (
        {"ids": ["a", "b"], "embeddings": [[1, 2]]},
        {"ids": ["a"], "embeddings": [[1, 2]], "metadatas": [{"s": {"indices": [1], "values": [0.5]}}]},
    ):
        assert pair.difference(_post(f"{COLLECTIONS}/<refused>/add", body)) is None
    chroma, ours = _both(pair, "GET", f"{COLLECTIONS}/refused")
    assert (chroma[1]["dimension"], ours[1]["dimension"]) == (2, None)


def test_bodies_as_arrays_are_not_taken_here(pair: Pair) -> None:
    chroma, ours = _both(pair, "POST", f"{C}/upsert", "[[],[],null,null,null]")
    assert (chroma[0], ours[0]) == (200, 400)


def test_harmful_metadata_is_refused_here(pair: Pair) -> None:
    # Not sent to Chroma, which would not take any write any more.
    for value in (1, None, True, ["x"], []):
        body = {"ids": ["p"], "embeddings": [[1, 2, 3]], "metadatas": [{"chroma:document": value}]}
        answer = pair.ours.send(_post(f"{C}/upsert", body))
        assert answer.status == 400, answer
        assert "chroma:document" in answer.body["message"]
    for body in (
        {"metadatas": [{"chroma:document": "x"}]},
        {"metadatas": [{"chroma:document": 5}], "documents": ["y"]},
    ):
        assert (
            pair.difference(_post(f"{C}/upsert", {"ids": ["r1"], "embeddings": [[1, 2, 3]], **body})) is None
        )


def test_what_is_over_a_limit_is_refused_here(pair: Pair) -> None:
    # Not sent to Chroma where it might not live on.
    wide = {"where": {"$or": [{"n": at} for at in range(600)]}}
    chroma, ours = _both(pair, "POST", f"{C}/get", wide)
    assert (chroma[0], ours[0]) == (200, 400)
    answer = pair.ours.send(_post(COLLECTIONS, {"name": "many", "metadata": {"hnsw:M": 257}}))
    assert answer.status == 400
    assert "Over a limit" in answer.body["message"]


def test_a_nul_in_a_text_to_look_for_is_refused_here(pair: Pair) -> None:
    chroma, ours = _both(pair, "POST", f"{C}/get", {"where_document": {"$contains": "\x00"}})
    assert (chroma[0], ours[0]) == (200, 400)


def test_negative_zero_in_metadata(pair: Pair) -> None:
    body = '{"ids":["zero"],"embeddings":[[5,5,5]],"metadatas":[{"k":-0}]}'
    assert pair.difference(_post(f"{C}/upsert", body)) is None
    chroma, ours = _both(pair, "POST", f"{C}/get", {"ids": ["zero"]})
    assert chroma[1]["metadatas"][0]["k"] == ours[1]["metadatas"][0]["k"] == 0
    assert isinstance(chroma[1]["metadatas"][0]["k"], float)
    assert isinstance(ours[1]["metadatas"][0]["k"], int)


def test_heartbeat_is_the_time(pair: Pair) -> None:
    for side in (pair.chroma, pair.ours):
        for path in (A, f"{A}/heartbeat"):
            answer = side.send(Request("GET", path))
            assert answer.body.keys() == {"nanosecond heartbeat"}
            assert abs(answer.body["nanosecond heartbeat"] - time.time_ns()) < 60e9


def test_answers_carry_the_log_index_and_the_node(pair: Pair) -> None:
    pair.ours.send(_post(f"{C}/upsert", {"ids": ["r1"], "embeddings": [[1, 2, 3]]}))
    written = int(pair.ours.answer_headers["x-chroma-log-index"])
    pair.ours.send(_post(f"{C}/get", {"ids": ["r1"]}))
    assert int(pair.ours.answer_headers["x-chroma-log-index"]) >= written > 0
    assert pair.ours.answer_headers["x-chroma-node"].startswith("node-")


def test_committed_writes_are_answered_alike(pair: Pair) -> None:
    for verb, status in (("add", 201), ("upsert", 200), ("update", 200)):
        body = {"ids": ["r1"], "embeddings": [[1, 2, 3]]}
        answer = pair.ours.send(_post(f"{C}/{verb}", body, **{"X-Chroma-Ack": "committed"}))
        assert (answer.status, answer.body) == (status, {})
        assert int(pair.ours.answer_headers["x-chroma-log-index"]) > 0


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("Idempotency-Key", "x" * 256),
        ("Idempotency-Key", "a b"),
        ("X-Chroma-Ack", "maybe"),
    ],
)
def test_bad_headers_of_a_write_are_refused(pair: Pair, name: str, value: str) -> None:
    body = {"ids": ["r1"], "embeddings": [[1, 2, 3]]}
    answer = pair.ours.send(_post(f"{C}/upsert", body, **{name: value}))
    assert (answer.status, answer.body["error"]) == (400, "InvalidArgumentError")


def test_a_key_is_answered_with_the_first_outcome(pair: Pair) -> None:
    key = {"Idempotency-Key": "create-once"}
    first = pair.ours.send(_post(COLLECTIONS, {"name": "once"}, **key))
    again = pair.ours.send(_post(COLLECTIONS, {"name": "once"}, **key))
    assert first.status == again.status == 200
    assert first.body == again.body
    other = pair.ours.send(_post(COLLECTIONS, {"name": "twice"}, **key))
    assert (other.status, other.body["error"]) == (422, "IdempotencyKeyReusedError")


def test_a_collection_deleted_at_once_is_still_answered(pair: Pair) -> None:
    def race(side: Side, number: int) -> set[int]:
        mine = Side(side.url)
        statuses: set[int] = set()
        for _ in range(15):
            made = mine.send(Request("POST", COLLECTIONS, {"name": "race", "get_or_create": True}))
            assert made.status != 200 or made.body["name"] == "race"
            statuses.add(made.status)
            if number % 2 == 0:
                mine.send(Request("DELETE", f"{COLLECTIONS}/race"))
        mine.close()
        return statuses

    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(lambda number: race(pair.ours, number), range(8)))
    assert set().union(*found) == {200}
