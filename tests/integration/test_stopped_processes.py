"""Real processes that are told to stop while a client is in the middle of its request."""

from __future__ import annotations

import json
import os
import signal
import socket
from typing import TYPE_CHECKING, Any

import pytest

from cluster.cli.processes import identify
from tests.integration.harness import RunningCluster, running_cluster
from wire.proof import digest_of

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.slow
COLLECTIONS = "/api/v2/tenants/default_tenant/databases/default_database/collections"
WAIT_S = 60.0


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningCluster]:
    with running_cluster(tmp_path_factory.mktemp("stopped") / "data") as running:
        yield running


class HalfSent:
    """A write whose client has sent half of its body, to a server that is known to wait for the rest."""

    def __init__(self, cluster: RunningCluster, url: str, collection_id: str, record: str) -> None:
        target = f"{COLLECTIONS}/{collection_id}/add"
        body = json.dumps({"ids": [record], "embeddings": [[1.0, 2.0]], "documents": ["x" * 5000]}).encode()
        words = {
            "Host": "x",
            "Content-Type": "application/json",
            "Content-Length": str(len(body)),
            "Expect": "100-continue",
            # At a node it is needed, a balancer passes over it.
            **cluster.member.prover.headers(url, "POST", target, digest_of(body)),
        }
        head = [f"POST {target} HTTP/1.1", *(f"{name}: {value}" for name, value in words.items()), "", ""]
        host, _, port = url.removeprefix("http://").partition(":")
        self.address = (host, int(port))
        self._socket = socket.create_connection(self.address, timeout=WAIT_S)
        self._stream = self._socket.makefile("rb")
        self._socket.sendall("\r\n".join(head).encode())
        assert b" 100 " in self._stream.readline(), "the request has begun"
        assert self._stream.readline() == b"\r\n"
        self._socket.sendall(body[: len(body) // 2])
        self._rest = body[len(body) // 2 :]

    def refuses_others(self) -> bool:
        try:
            socket.create_connection(self.address, timeout=5).close()
        except OSError:
            return True
        return False

    def finish(self) -> tuple[int, bool, Any]:
        """Status, whether the connection ends with it, and the body of the answer to the whole request."""
        self._socket.sendall(self._rest)
        status = int(self._stream.readline().split()[1])
        headers = b"".join(iter(self._stream.readline, b"\r\n")).lower()
        length = int(headers.partition(b"content-length: ")[2].split(b"\r\n")[0])
        body = json.loads(self._stream.read(length))
        self._socket.close()
        return status, b"connection: close" in headers, body


@pytest.mark.parametrize("who", ["balancer", "leader"])
def test_a_body_half_sent_at_sigterm_is_received_and_answered(cluster: RunningCluster, who: str) -> None:
    collection = cluster.client().get_or_create_collection("half")
    view = cluster.status()
    row = view["balancer"] if who == "balancer" else cluster.leader()
    # So that the node's challenge is known.
    cluster.records(cluster.leader(), str(collection.id))
    half = HalfSent(cluster, row["url"], str(collection.id), who)
    os.kill(row["pid"], signal.SIGTERM)
    cluster.wait("it to take nobody new", half.refuses_others)
    assert identify(row["pid"]) is not None, "it waits for the rest"
    status, ends, answer = half.finish()
    assert (status, ends, answer) == (201, True, {}), answer
    cluster.wait("it to end", lambda: identify(row["pid"]) is None)
    cluster.up()
    assert cluster.client().get_collection("half").get(ids=[who])["ids"] == [who]
    cluster.assert_replicas_equal(str(collection.id))
