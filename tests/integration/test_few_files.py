"""Three nodes and a balancer with few descriptors, before many clients that begin a request and stall."""

from __future__ import annotations

import contextlib
import socket
from typing import TYPE_CHECKING, Any

import pytest

from evaluation.processes import free_port
from tests.integration.harness import RunningCluster

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.slow, pytest.mark.soak]
FILES = 320
#: More than a node with so many files accepts.
STALLED = 150
#: By which a slow client may hold a connection, and by which it may not hold one for ever.
BEGINNINGS = (
    b"",
    b"POST /api/v2/tenants HTTP/1.1\r\nHost: x\r\n",
    b"GET /api/v2/heartbeat HTTP/1.1\r\nHost: x\r\n\r\nGET",
    b"POST /api/v2/tenants HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n{",
)


class Stalled:
    """Connections that stay; the server may close them."""

    def __init__(self) -> None:
        self._held: list[socket.socket] = []

    def open(self, url: str) -> None:
        host, _, port = url.removeprefix("http://").partition(":")
        for number in range(STALLED):
            with contextlib.suppress(OSError):
                one = socket.create_connection((host, int(port)), timeout=5)
                self._held.append(one)
                one.sendall(BEGINNINGS[number % len(BEGINNINGS)])

    def close(self) -> None:
        for one in self._held:
            one.close()


def test_stalled_clients_and_a_restart_end_no_node_that_has_few_files(tmp_path: Path) -> None:
    prlimit = ("prlimit", f"--nofile={FILES}:{FILES}")
    cluster = RunningCluster(tmp_path / "data", free_port(), wrapper=prlimit)
    stalled = Stalled()
    client: Any = None
    try:
        cluster.up()
        client = cluster.client()
        collection = client.create_collection("few")
        pids = {row["id"]: row["pid"] for row in cluster.status()["nodes"]}
        for row in cluster.status()["nodes"]:
            stalled.open(row["url"])
        away = cluster.followers()[0]
        cluster.kill(away)
        for number in range(20):
            collection.upsert(ids=[str(number)], embeddings=[[float(number), 1.0]])
        cluster.up()
        stalled.open(away["url"])
        collection.upsert(ids=["last"], embeddings=[[1.0, 1.0]])
        # Nobody gave up a link for good, and who is asked by members finds a place for them.
        stalled.close()
        assert len(cluster.assert_replicas_equal(str(collection.id))) == 21
        after = {row["id"]: row["pid"] for row in cluster.status()["nodes"]}
        assert {name for name in pids if pids[name] != after[name]} == {away["id"]}
        assert "thread failed" not in cluster.logs()
        assert "Traceback" not in cluster.logs()
    finally:
        stalled.close()
        cluster.down()
