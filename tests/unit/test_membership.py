"""What `/cluster/members` takes, and whom a node asks: the members of its log, not those of its settings."""

from __future__ import annotations

import asyncio
from concurrent.futures import Future
from types import SimpleNamespace
from typing import Any

import pytest

from cluster.config import Peer
from cluster.errors import Refusal, Unavailable
from cluster.raft.interface import (
    Add,
    Admit,
    Configuration,
    Member,
    Move,
    Position,
    Promote,
    RaftStatus,
    Remove,
)
from cluster.service.leader import Leader
from cluster.service.membership import Membership, OtherMembers, other_ids

MEMBERS = (Member("a"), Member("c", "c:1", "http://c"), Member("d", "d:1", "http://d", is_voter=False))


class Node:
    """Node a; its settings say that it was founded with b and c, the log that b left and d came."""

    def __init__(self, role: Any = "leader", leader: str | None = "a", members: Any = MEMBERS) -> None:
        self.configuration = Configuration(3, members)
        self.role, self.leading = role, leader
        self.asked: list[Any] = []
        peers = {name: Peer(raft=f"{name}:9", http=f"http://old-{name}") for name in ("b", "c")}
        settings: Any = SimpleNamespace(
            node_id="a", cluster_id="x", peers=peers, http="a:80", advertise_http=None, advertised_raft="a:9"
        )
        raft: Any = self
        self.leader = Leader(settings, raft)
        self.others = OtherMembers(settings, raft)
        self.ids = lambda: other_ids(settings, self.status())
        peers_client: Any = self
        self.membership = Membership(settings, raft, self.leader, peers_client)

    def status(self) -> RaftStatus:
        return RaftStatus(
            "a", self.role, 1, self.leading, 1, 9, 9, 1.0, {"c": 8}, ("c",), configuration=self.configuration
        )

    def _done(self, what: Any, result: Any) -> Future[Any]:
        self.asked.append(what)
        future: Future[Any] = Future()
        future.set_result(result)
        return future

    def change_members(self, *what: Any) -> Any:
        if len(what) == 1:
            return self._done(what[0], Position(7, 1))
        self.asked.append(what)
        return asyncio.sleep(0, {"from": what[0]})

    def transfer_leadership(self, to: str | None) -> Future[None]:
        return self._done(("transfer", to), None)


def change(node: Node, **words: Any) -> dict[str, Any]:
    return asyncio.run(node.membership.change(words))


def test_the_others_are_those_of_the_log_as_it_is_now() -> None:
    node = Node()
    assert dict(node.others) == {"c": "http://c", "d": "http://d"}
    assert node.ids() == ("c", "d")
    assert node.leader.url_of("d") == "http://d"
    node.configuration = Configuration(4, MEMBERS[:2])
    assert list(node.others.values()) == ["http://c"]
    # One that waits to be added knows only what it was told.
    assert dict(Node(members=()).others) == {"b": "http://old-b", "c": "http://old-c"}
    assert Node(members=()).ids() == ("b", "c")


def test_what_is_listed() -> None:
    listing = Node().membership.listing()
    assert (listing["cluster"], listing["number"], listing["leader"]) == ("x", 3, "a")
    rows = {
        it["id"]: (it["raft"], it["http"], it["role"], it["leads"], it["connected"])
        for it in listing["members"]
    }
    assert rows == {
        "a": ("a:9", "http://a:80", "voter", True, True),
        "c": ("c:1", "http://c", "voter", False, True),
        "d": ("d:1", "http://d", "learner", False, False),
    }


@pytest.mark.parametrize(
    ("words", "asked"),
    [
        ({"operation": "add", "id": "e", "raft": "e:1", "http": "http://e/"}, Add("e", "e:1", "http://e")),
        ({"operation": "promote", "id": "d"}, Promote("d")),
        ({"operation": "admit", "id": "d"}, Admit("d")),
        ({"operation": "remove", "id": "c"}, Remove("c")),
        ({"operation": "move", "id": "c", "raft": "f:1"}, Move("c", "f:1")),
        ({"operation": "transfer", "id": "c"}, ("transfer", "c")),
        ({"operation": "transfer"}, ("transfer", None)),
    ],
)
def test_what_is_asked_of_the_log(words: dict[str, Any], asked: Any) -> None:
    node = Node()
    change(node, **words)
    assert node.asked == [asked]
    follower = Node("follower", "c")
    assert change(follower, **words) == {"from": "http://c"}
    with pytest.raises(Unavailable, match="No leader"):
        change(Node("follower", None), **words)


@pytest.mark.parametrize(
    "words",
    [
        {},
        {"operation": "destroy", "id": "c"},
        {"operation": "remove", "id": 7},
        {"operation": ["add"], "id": "c"},
        {"operation": "add", "id": "e", "raft": "e:1"},
        {"operation": "add", "id": "e", "raft": "e:1", "http": "e"},
        {"operation": "move", "id": "c", "http": "ftp://c"},
    ],
)
def test_what_is_no_change_is_refused_before_anybody_is_asked(words: dict[str, Any]) -> None:
    for node in (Node(), Node("follower", "c")):
        with pytest.raises(Refusal, match="Nothing was changed") as raised:
            change(node, **words)
        assert raised.value.status == 400
        assert node.asked == []
