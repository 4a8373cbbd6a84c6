"""A write that reaches a follower: forwarded once, and what is answered when that fails."""

from __future__ import annotations

import socket
import threading
from typing import TYPE_CHECKING

import pytest

from tests.integration.differential import DATABASE, Request, Side
from tests.integration.harness import free_port
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
    follower.service.leader_at = leader.url
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
