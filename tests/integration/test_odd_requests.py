"""Odd headers, encodings and HTTP at a node and at a balancer: refused, and never a failure."""

from __future__ import annotations

import gzip
import http.client
import json
import re
import socket
import time
import zlib
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest

from tests.integration.differential import DATABASE
from tests.integration.harness import RunningCluster, running_cluster

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

COLLECTIONS = f"{DATABASE}/collections"
MIB = 2**20
DOORS = ("node", "balancer")


class Doors:
    """A cluster of one node, and its two doors."""

    def __init__(self, cluster: RunningCluster) -> None:
        self.cluster = cluster
        self.urls = {"node": cluster.status()["nodes"][0]["url"], "balancer": cluster.url}
        status, body = self.send("balancer", "POST", COLLECTIONS, {"name": "odd"})
        assert status == 200
        self.collection = f"{COLLECTIONS}/{json.loads(body)['id']}"
        self.record = {"ids": ["a"], "embeddings": [[1, 2, 3]], "documents": ["text"]}
        assert self.send("balancer", "POST", f"{self.collection}/add", self.record)[0] == 201

    def address(self, door: str) -> tuple[str, int]:
        parts = urlsplit(self.urls[door])
        assert parts.hostname is not None
        assert parts.port is not None
        return parts.hostname, parts.port

    def send(
        self, door: str, method: str, target: str, body: Any = None, *headers: tuple[str, str | bytes]
    ) -> tuple[int, bytes]:
        sent = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        connection = http.client.HTTPConnection(*self.address(door), timeout=60)
        try:
            connection.putrequest(method, target, skip_accept_encoding=True)
            if sent is not None:
                connection.putheader("Content-Length", str(len(sent)))
            given = headers if any(name == "Content-Type" for name, _ in headers) else (*headers, JSON)
            for name, value in given:
                connection.putheader(name, value)
            connection.endheaders()
            if sent is not None:
                connection.send(sent)
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def raw(self, door: str, sent: bytes) -> bytes:
        """The beginning of what is answered to these bytes, empty if the connection was closed."""
        with socket.create_connection(self.address(door), timeout=30) as connection:
            connection.sendall(sent)
            connection.shutdown(socket.SHUT_WR)
            try:
                return connection.recv(65536)
            except ConnectionResetError:
                return b""

    def log(self) -> str:
        return "".join(
            path.read_text(errors="replace") for path in sorted((self.cluster.data / "logs").glob("*.log"))
        )


JSON = ("Content-Type", "application/json")


@pytest.fixture(scope="module")
def doors(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Doors]:
    directory: Path = tmp_path_factory.mktemp("odd")
    with running_cluster(directory, nodes=1, direct_clients=True) as cluster:
        yield Doors(cluster)


@pytest.fixture(autouse=True)
def _nobody_fails(doors: Doors) -> Iterator[None]:
    """After each test: no traceback in any log, and everybody is well."""
    yield
    assert "Traceback" not in doors.log()
    status, answer = doors.send("node", "GET", "/cluster/status")
    assert status == 200
    assert json.loads(answer)["healthy"]
    assert doors.send("balancer", "GET", f"{doors.collection}/count") == (200, b"1")


VALUES: tuple[str | bytes, ...] = (
    "",
    " ",
    "0",
    "-1",
    "+1",
    "1.5",
    "nan",
    "inf",
    "1e400",
    "9" * 19,
    "9" * 20,
    "9" * 5_000,
    "x" * 30_000,
    "a b",
    "a\tb",
    "a\x7fb",
    b"\xe9",
    b"\xff\xfe",
    b"\xed\xa0\x80",
    "\u0663".encode(),
    "true",
    "null",
    "{}",
    "%s%n{0}",
    "applied",
    "linearizable",
    "gzip",
)
HEADERS = (
    "Idempotency-Key",
    "X-Chroma-Ack",
    "X-Chroma-Consistency",
    "X-Chroma-Min-Index",
    "X-Max-Staleness-Ms",
    "X-Chroma-Forwarded",
    "X-Chroma-Node",
    "X-Chroma-Log-Index",
    "Content-Type",
    "Content-Encoding",
    "Accept",
    "Accept-Encoding",
    "Connection",
    "Expect",
    "Cookie",
    "X-Chroma-Token",
    "Authorization",
)
#: Nobody reads the others.
READ = HEADERS[:6]
FEW = ("", "1.5", b"\xff\xfe", b"\xed\xa0\x80", "a\x7fb", "x" * 30_000)
OF_WRITES = ("Idempotency-Key", "X-Chroma-Ack", "X-Chroma-Forwarded", "Content-Type")


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("header", HEADERS)
def test_odd_values_of_headers(doors: Doors, header: str, door: str) -> None:
    for value in VALUES if header in READ else FEW:
        # What no node has yet is waited for, and then refused as such.
        waits = header == "X-Chroma-Min-Index" and value == "9" * 19
        if waits or (header == "X-Max-Staleness-Ms" and value == "0"):
            continue
        verb, body = ("upsert", doors.record) if header in OF_WRITES else ("get", {})
        status, answer = doors.send(door, "POST", f"{doors.collection}/{verb}", body, (header, value))
        assert 200 <= status < 500, (header, value, verb, status, answer)


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize(
    ("header", "verb", "values"),
    [
        ("X-Chroma-Min-Index", "get", ("", "-1", "9" * 20, "9" * 5_000, "\u0663".encode(), "1.5")),
        ("X-Max-Staleness-Ms", "get", ("", "nan", "inf", "1e400", "-1", "9" * 16)),
        ("X-Chroma-Consistency", "get", ("", "none", b"\xe9")),
        ("X-Chroma-Ack", "upsert", ("", "none", b"\xe9")),
        ("Idempotency-Key", "upsert", ("", "x" * 256, "a b", "a\x7fb", b"\xe9")),
    ],
)
def test_values_that_are_none(
    doors: Doors, header: str, verb: str, values: tuple[str | bytes, ...], door: str
) -> None:
    body = {} if verb == "get" else doors.record
    for value in values:
        status, answer = doors.send(door, "POST", f"{doors.collection}/{verb}", body, (header, value))
        assert status == 400, (header, value, status, answer)
        assert header.encode() in answer


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("coding", ["gzip", "deflate", "br", "zstd", "identity", "x", ""])
def test_bodies_are_never_unpacked(doors: Doors, coding: str, door: str) -> None:
    """Chroma unpacks none: 400, whatever the header says, and a plain body is read whatever it says."""
    target = f"{doors.collection}/upsert"
    plain = json.dumps(doors.record).encode()
    header = ("Content-Encoding", coding)
    assert doors.send(door, "POST", target, plain, header)[0] == 200
    raw = zlib.compress(plain)[2:-4]
    for packed in (gzip.compress(plain), zlib.compress(plain), raw, b"\x28\xb5\x2f\xfd"):
        status, answer = doors.send(door, "POST", target, packed, header)
        assert status == 400, (coding, status, answer)


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("verb", ["get", "upsert"])
def test_bodies_have_chromas_limit_to_the_byte(doors: Doors, verb: str, door: str) -> None:
    plain = json.dumps({} if verb == "get" else doors.record).encode()
    target = f"{doors.collection}/{verb}"
    # A busy machine may be late with so much, which is no refusal.
    end = time.monotonic() + 60
    while (status := doors.send(door, "POST", target, plain.ljust(40 * MIB))[0]) in (503, 504):
        assert time.monotonic() < end
    assert status == 200
    assert doors.send(door, "POST", target, plain.ljust(40 * MIB + 1))[0] == 413


@pytest.mark.parametrize("path", ["embed", "read-index", "status", "nothing", "", "healthz"])
def test_garbage_to_the_routes_of_the_cluster(doors: Doors, path: str) -> None:
    bodies: tuple[Any, ...] = (
        b"",
        b"\x00\xff",
        b"null",
        b"[]",
        b"1",
        b"[" * 100_000,
        {},
        {"collection_id": None, "texts": ["a"], "query": False},
        {"collection_id": "x", "texts": None, "query": False},
        {"collection_id": "x", "texts": "abc", "query": False},
        {"collection_id": "x", "texts": [1, None], "query": False},
        {"collection_id": "x", "texts": ["a"], "query": {}},
        {"collection_id": "x", "texts": ["a"], "query": False},
        b'{"collection_id":"\\ud800","texts":["\\ud800"],"query":true}',
    )
    for door in DOORS:
        for body in bodies:
            status, answer = doors.send(door, "POST", f"/cluster/{path}", body)
            expected = range(200, 500) if path == "read-index" else range(400, 500)
            assert status in expected, (door, body, status, answer)


LINE = b"POST /api/v2/tenants HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
RAW: dict[str, bytes] = {
    "bare line feeds": b"GET /api/v2/version HTTP/1.1\nHost: x\n\n",
    "one bare line feed": b"GET /api/v2/version HTTP/1.1\r\nHost: x\r\nX-A: b\nX-C: d\r\n\r\n",
    "garbage": b"\x00\xff" * 100,
    "tls": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 200,
    "unknown coding": LINE + b"Transfer-Encoding: gzip\r\n\r\nabc",
    "two codings": LINE + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "coding and length": LINE + b"Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n",
    "bad chunk": LINE + b"Transfer-Encoding: chunked\r\n\r\nzz\r\nabc\r\n0\r\n\r\n",
    "half a chunk": LINE + b"Transfer-Encoding: chunked\r\n\r\n10\r\nabc",
    "half a body": LINE + b"Content-Length: 100\r\n\r\nabc",
    "negative length": LINE + b"Content-Length: -1\r\n\r\n",
    "huge length": LINE + b"Content-Length: " + b"9" * 5_000 + b"\r\n\r\n",
    "no colon": b"GET /api/v2/version HTTP/1.1\r\nHost: x\r\nnothing\r\n\r\n",
    "nul in a value": b"GET /api/v2/version HTTP/1.1\r\nHost: x\r\nX-A: \x00\r\n\r\n",
    "long header": b"GET /api/v2/version HTTP/1.1\r\nHost: x\r\nX-A: " + b"b" * 200_000 + b"\r\n\r\n",
    "high bytes in the path": b"GET /api/v2/tenants/\xff\xfe HTTP/1.1\r\nHost: x\r\n\r\n",
    "bytes that are no UTF-8 in the path": b"GET /api/v2/tenants/%ff%fe HTTP/1.1\r\nHost: x\r\n\r\n",
    "high bytes in a write's path": b"DELETE " + COLLECTIONS.encode() + b"/\xe9 HTTP/1.1\r\nHost: x\r\n\r\n",
    "brackets": b"GET http://[::1 HTTP/1.1\r\nHost: x\r\n\r\n",
    "odd method": b"G\x01T /api/v2/version HTTP/1.1\r\nHost: x\r\n\r\n",
    "odd version": b"GET /api/v2/version HTTP/9.9\r\nHost: x\r\n\r\n",
    "star": b"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n",
}


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("name", RAW)
def test_what_is_no_http(doors: Doors, name: str, door: str) -> None:
    answer = doors.raw(door, RAW[name])
    status = re.match(rb"HTTP/1\.[01] ([0-9]{3})", answer)
    assert not answer or (status is not None and 200 <= int(status[1]) < 500), answer[:500]


def test_a_key_means_something_in_its_tenant_and_database_only(doors: Doors) -> None:
    """And a retry with it is known through either door."""
    for tenant in ("one", "two"):
        assert doors.send("balancer", "POST", "/api/v2/tenants", {"name": tenant}, KEY)[0] in (200, 422)
        doors.send("balancer", "POST", "/api/v2/tenants", {"name": tenant})
        status, answer = doors.send(
            "balancer", "POST", f"/api/v2/tenants/{tenant}/databases", {"name": f"of-{tenant}"}, KEY
        )
        assert status == 200, answer
        collections = f"/api/v2/tenants/{tenant}/databases/of-{tenant}/collections"
        status, answer = doors.send("balancer", "POST", collections, {"name": f"in-{tenant}"}, KEY)
        assert status == 200, answer
        for door in DOORS:
            again = doors.send(door, "POST", collections, {"name": f"in-{tenant}"}, KEY)
            assert again[0] == 200
            assert json.loads(again[1])["id"] == json.loads(answer)["id"]
        status, answer = doors.send("node", "POST", collections, {"name": "another"}, KEY)
        assert (status, json.loads(answer)["error"]) == (422, "IdempotencyKeyReusedError")


KEY = ("Idempotency-Key", "the-same")


@pytest.mark.parametrize("door", DOORS)
def test_what_is_over_a_limit_leaves_the_cluster_as_it_was(doors: Doors, door: str) -> None:
    target = doors.collection
    wide = {"$or": [{"a": at} for at in range(10_000)]}
    bomb = {"hnsw": {"max_neighbors": 0}}
    no_document = {"ids": ["z"], "embeddings": [[1, 2, 3]]}
    for method, path, body in (
        ("POST", f"{target}/get", {"where": wide}),
        ("POST", f"{target}/query", {"query_embeddings": [[1, 2, 3]], "where": wide}),
        ("POST", f"{target}/delete", {"where": wide}),
        ("POST", f"{target}/delete", {"where_document": {"$contains": "\x00"}}),
        ("POST", f"{target}/upsert", {**doors.record, "metadatas": [{"a": list(range(6_000))}]}),
        ("POST", f"{target}/upsert", {**no_document, "metadatas": [{"chroma:document": 1}]}),
        ("POST", COLLECTIONS, {"name": "bomb", "configuration": bomb}),
        ("POST", COLLECTIONS, {"name": "bomb", "metadata": {"hnsw:M": 0}}),
        ("PUT", target, {"new_configuration": bomb}),
    ):
        status, answer = doors.send(door, method, path, body)
        assert (status, json.loads(answer)["error"]) == (400, "InvalidArgumentError"), (path, answer)
    assert doors.send(door, "GET", f"{COLLECTIONS}/bomb")[0] == 404


@pytest.mark.parametrize("door", DOORS)
def test_a_name_in_a_path_may_have_a_lines_end(doors: Doors, door: str) -> None:
    for name in ("a%0ab", "a%0d%0aX-Chroma-Forwarded:%201", "%0a", "a%0d"):
        status, answer = doors.send(door, "GET", f"/api/v2/tenants/{name}")
        assert (status, json.loads(answer)["error"]) == (404, "NotFoundError")
        status, answer = doors.send(door, "GET", f"{COLLECTIONS}/{name}/count")
        assert (status, json.loads(answer)["error"]) == (400, "InvalidArgumentError")


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize(
    "kind",
    ['application/json; charset="utf-8', b"application/json\xe9", "application/json; a=\u00e9".encode()],
)
def test_a_media_type_that_cannot_be_read_is_none_of_json(doors: Doors, door: str, kind: str | bytes) -> None:
    given = ("Content-Type", kind)
    assert doors.send(door, "POST", f"{doors.collection}/get", b"{}", given)[0] == 415


@pytest.mark.parametrize("door", DOORS)
def test_a_key_with_bytes_that_are_no_text_is_refused(doors: Doors, door: str) -> None:
    for key in (b"a\xe9b", b"a\xed\xa0\x80b"):
        given = ("Idempotency-Key", key)
        status, answer = doors.send(door, "POST", f"{doors.collection}/upsert", doors.record, given)
        assert (status, json.loads(answer)["error"]) == (400, "InvalidArgumentError")
