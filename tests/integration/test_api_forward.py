"""A write that reaches a follower: brought to the leader, or its successor, and what else is answered."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import struct
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from cluster.errors import NotLeader, Unavailable
from evaluation.processes import free_port
from tests.integration.differential import DATABASE, Request, Side
from tests.integration.single import SingleNode

if TYPE_CHECKING:
    from collections.abc import Iterator

COLLECTIONS = f"{DATABASE}/collections"


@pytest.fixture(scope="module")
def leader(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SingleNode]:
    with SingleNode(tmp_path_factory.mktemp("leader")) as node:
        yield node


@pytest.fixture(scope="module")
def follower(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SingleNode]:
    with SingleNode(tmp_path_factory.mktemp("follower")) as node:
        node.service.leader = False
        yield node


@pytest.fixture
def client(follower: SingleNode, leader: SingleNode) -> Iterator[Side]:
    follower.service.leader_at, follower.service.leader_name = leader.url, "node-2"
    side = Side(follower.url)
    yield side
    side.close()


def test_a_write_is_forwarded_with_its_headers(
    client: Side, leader: SingleNode, follower: SingleNode
) -> None:
    client.create("main")
    assert client.answer_headers["x-chroma-node"] == "node-1"
    index = int(client.answer_headers["x-chroma-log-index"])
    assert follower.service.observed[-1] == index
    key = {"Idempotency-Key": "one"}
    body = {"ids": ["a"], "embeddings": [[1, 2, 3]]}
    answer = client.send(Request("POST", f"{COLLECTIONS}/<main>/add", body, key))
    assert (answer.status, answer.body) == (201, {})
    reused = client.send(Request("POST", f"{COLLECTIONS}/<main>/upsert", body, key))
    assert (reused.status, reused.body["error"]) == (422, "IdempotencyKeyReusedError")
    assert leader.service.catalog.collection(client.ids["main"]) is not None
    assert follower.service.catalog.collection(client.ids["main"]) is None


def test_a_collection_that_cannot_be_read_back_was_made_all_the_same(leader: SingleNode) -> None:
    """Found by clock-step, seed 2: a leader that was stopped said that nothing was changed."""
    side = Side(leader.url)
    request = Request("POST", COLLECTIONS, {"name": "half-told"}, {"Idempotency-Key": "half"})
    leader.service.failing = Unavailable("Node node-1 is stopping. Nothing was read or changed.")
    answer = side.send(request)
    leader.service.failing = None
    assert (answer.status, answer.body["error"]) == (504, "OutcomeUnknownError")
    assert "Nothing" not in answer.body["message"]
    assert side.send(request).body["name"] == "half-told"
    side.close()


def test_refusals_come_from_the_leader(client: Side) -> None:
    for path, body, status in (
        (f"{COLLECTIONS}/nope/add", {"ids": ["a"], "embeddings": [[1]]}, 400),
        (COLLECTIONS, {"name": "x"}, 400),
        (COLLECTIONS, "{", 400),
        (COLLECTIONS, {"nam": "x"}, 422),
    ):
        assert client.send(Request("POST", path, body)).status == status


def test_strange_targets_arrive_unchanged(client: Side) -> None:
    client.send(Request("POST", "/api/v2/tenants", {"name": "a b/c"}))
    made = client.send(Request("POST", "/api/v2/tenants/a%20b%2Fc/databases", {"name": "inside"}))
    assert made.status == 200
    gone = client.send(Request("DELETE", "/api/v2/tenants/a%20b%2Fc/databases/inside?x=%2F"))
    assert gone.status == 200


def test_reads_are_not_forwarded(client: Side) -> None:
    assert client.send(Request("GET", COLLECTIONS)).body == []


def test_a_forwarded_write_is_not_forwarded_again(client: Side) -> None:
    answer = client.send(Request("POST", COLLECTIONS, {"name": "again"}, {"X-Chroma-Forwarded": "1"}))
    assert (answer.status, answer.body["error"]) == (503, "NotLeaderError")
    assert "node-2" in answer.body["message"]


@pytest.mark.parametrize("known", [True, False])
def test_nothing_was_changed_if_the_leader_is_not_there(
    client: Side, follower: SingleNode, known: bool
) -> None:
    follower.service.leader_at = f"http://127.0.0.1:{free_port()}" if known else None
    answer = client.send(Request("POST", COLLECTIONS, {"name": "lost"}))
    assert (answer.status, answer.body["error"]) == (503, "NotLeaderError")
    assert "Nothing was changed" in answer.body["message"]


def test_who_is_deposed_over_a_write_brings_it_to_the_successor(
    client: Side, follower: SingleNode, leader: SingleNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = follower.service

    async def deposed(*_: object, **__: object) -> tuple[Any, int]:
        service.leader, service.leader_at, service.leader_name = False, None, None

        def elect() -> None:
            service.leader_at, service.leader_name = leader.url, "node-2"

        asyncio.get_running_loop().call_later(0.2, elect)
        raise NotLeader(None)

    monkeypatch.setattr(service, "write", deposed)
    service.leader = True
    answer = client.send(Request("POST", "/api/v2/tenants", {"name": "deposed"}))
    assert answer.status == 200
    assert not service.leader
    service.leader = True
    again = Request("POST", "/api/v2/tenants", {"name": "again"}, {"X-Chroma-Forwarded": "1"})
    assert client.send(again).body["error"] == "NotLeaderError", "its sender waits for the successor itself"


def test_a_connection_that_breaks_leaves_the_outcome_unknown(client: Side, follower: SingleNode) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def hang_up() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(65536)

        thread = threading.Thread(target=hang_up)
        thread.start()
        follower.service.leader_at = f"http://127.0.0.1:{server.getsockname()[1]}"
        answer = client.send(Request("POST", COLLECTIONS, {"name": "unknown"}))
        thread.join(30)
    assert (answer.status, answer.body["error"]) == (504, "OutcomeUnknownError")
    assert "outcome unknown" in answer.body["message"].lower()
    assert "Idempotency-Key: node-" in answer.body["message"]  # the client sent none: it is told this one


class Jammed:
    """A leader that was cut off: it takes connections and requests, and never answers."""

    def __init__(self, *, takes: int) -> None:
        self.asked = threading.Event()
        self._takes = takes
        self._server = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._server.getsockname()[1]}"
        self.let_go = threading.Event()
        self._thread = threading.Thread(target=self._take)

    def __enter__(self) -> Jammed:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.let_go.set()
        self._thread.join(60)
        self._server.close()

    def _take(self) -> None:
        self._server.settimeout(60)
        with contextlib.ExitStack() as held:
            for _ in range(self._takes):
                connection, _ = self._server.accept()
                held.enter_context(connection)
                connection.recv(65536)
            self.asked.set()
            self.let_go.wait(60)


def _change_leader(
    follower: SingleNode, jammed: Jammed, name: str | None, url: str | None
) -> threading.Thread:
    def change() -> None:
        assert jammed.asked.wait(60)
        follower.service.leader_name, follower.service.leader_at = name, url

    thread = threading.Thread(target=change)
    thread.start()
    return thread


def test_a_write_at_a_jammed_leader_goes_to_the_next_one(
    client: Side, leader: SingleNode, follower: SingleNode
) -> None:
    with Jammed(takes=1) as jammed:
        follower.service.leader_at = jammed.url
        changing = _change_leader(follower, jammed, "node-3", leader.url)
        answer = client.send(Request("POST", COLLECTIONS, {"name": "saved"}))
        changing.join(60)
    assert (answer.status, answer.body["name"]) == (200, "saved")


def test_a_write_at_a_jammed_leader_is_done_here_if_this_node_is_the_next_one(
    client: Side, leader: SingleNode, follower: SingleNode
) -> None:
    with Jammed(takes=1) as jammed:
        follower.service.leader_at = jammed.url

        def change() -> None:
            assert jammed.asked.wait(60)
            follower.service.leader = True

        thread = threading.Thread(target=change)
        thread.start()
        try:
            answer = client.send(Request("POST", COLLECTIONS, {"name": "taken-over"}))
        finally:
            thread.join(60)
            follower.service.leader = False
    assert (answer.status, answer.body["name"]) == (200, "taken-over")
    follower.service.leader_at = leader.url
    assert client.send(Request("DELETE", f"{COLLECTIONS}/taken-over")).status == 404  # the other has none
    follower.service.leader = True
    try:
        assert client.send(Request("DELETE", f"{COLLECTIONS}/taken-over")).status == 200
    finally:
        follower.service.leader = False


def test_no_leader_after_a_jammed_one_leaves_the_outcome_unknown(client: Side, follower: SingleNode) -> None:
    with Jammed(takes=1) as jammed:
        follower.service.leader_at = jammed.url
        changing = _change_leader(follower, jammed, None, None)
        answer = client.send(Request("POST", COLLECTIONS, {"name": "who-knows"}, {"Idempotency-Key": "w"}))
        changing.join(60)
    assert (answer.status, answer.body["error"]) == (504, "OutcomeUnknownError")
    assert "the same Idempotency-Key" in answer.body["message"]


def test_a_repeat_under_the_added_key_takes_effect_once(
    client: Side, leader: SingleNode, follower: SingleNode
) -> None:
    client.create("once")
    client.send(
        Request("POST", f"{COLLECTIONS}/<once>/add", {"ids": ["a", "b"], "embeddings": [[1, 1], [2, 2]]})
    )
    with Link(leader.url) as link:
        follower.service.leader_at = link.url
        # The first answer is lost on the way: a second application would find nothing to delete.
        answer = client.send(
            Request("POST", f"{COLLECTIONS}/<once>/delete", {"where": {"n": {"$ne": 1}}, "limit": 1})
        )
    assert (answer.status, answer.body) == (200, {"deleted": 1})
    follower.service.leader_at = leader.url
    left = client.send(Request("POST", f"{COLLECTIONS}/<once>/delete", {"where": {"n": {"$ne": 1}}}))
    assert left.body == {"deleted": 1}


class Link:
    """A TCP link to a node that breaks its first connection when the answer is there."""

    def __init__(self, url: str) -> None:
        self._to = int(url.rpartition(":")[2])
        self._server = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._server.getsockname()[1]}"
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Link:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.join(60)
        self._server.close()

    def _run(self) -> None:
        self._server.settimeout(60)
        for passes in (False, True):
            near, _ = self._server.accept()
            with near, socket.create_connection(("127.0.0.1", self._to)) as far:
                far.sendall(near.recv(65536))
                answer = far.recv(65536)
                if passes:
                    near.sendall(answer)


def test_a_client_that_hangs_up_is_no_error(
    client: Side, follower: SingleNode, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    host, _, port = follower.url.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port))) as connection:
        head = f"POST {COLLECTIONS} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        connection.sendall(f"{head}Content-Length: 1000\r\n\r\n{{".encode())
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    end = time.monotonic() + 60
    while not any("hung up" in record.getMessage() for record in caplog.records):
        assert time.monotonic() < end, caplog.text
        time.sleep(0.01)
    above = [record for record in caplog.records if record.levelno > logging.DEBUG]
    assert not [record for record in above if record.name != "aiohttp.access"]  # which nodes do not keep
