"""Which node a rolling restart takes next, and when it takes none."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from cluster.cli import rolling
from cluster.cli.errors import StartError
from cluster.cli.overview import BalancerView, Overview
from cluster.cli.rolling import build_of, next_node, obstacle
from cluster.cli.verifying import Members
from tests.unit.test_status_view import DOWN, node

if TYPE_CHECKING:
    from collections.abc import Collection

IDS = ("node-1", "node-2", "node-3")
BALANCER = BalancerView("http://127.0.0.1:8000", 99, True, None, "node-1", dict.fromkeys(IDS, True))


def overview(leader: str | None = "node-1", **changed: Any) -> Overview:
    nodes = tuple(
        node(number, role="leader" if f"node-{number}" == leader else "follower") for number in (1, 2, 3)
    )
    return replace(Overview("c-1", leader, BALANCER, nodes), **changed)


@pytest.mark.parametrize(
    ("leader", "done", "expected"),
    [
        ("node-1", (), "node-2"),
        ("node-1", ("node-2",), "node-3"),
        ("node-1", ("node-2", "node-3"), "node-1"),
        ("node-2", (), "node-1"),
        # Leadership moved to a node that was restarted already: the former leader is a follower like any.
        ("node-2", ("node-2",), "node-1"),
        ("node-3", ("node-1", "node-2"), "node-3"),
        ("node-1", IDS, None),
        (None, (), "node-1"),
    ],
)
def test_followers_come_first_and_the_leader_last(
    leader: str | None, done: Collection[str], expected: str | None
) -> None:
    assert next_node(overview(leader), done) == expected


def test_a_cluster_that_is_well_may_be_taken_apart() -> None:
    assert obstacle(overview()) is None


@pytest.mark.parametrize(
    ("changed", "words", "passes"),
    [
        ({"leader": None}, "no node leads", True),
        (
            {"balancer": replace(BALANCER, healthy=False, reason="it knows no leader")},
            "knows no leader",
            True,
        ),
        (
            {"balancer": replace(BALANCER, healthy=False, reason="not running", pid=None)},
            "not running",
            False,
        ),
        ({"nodes": (node(1), node(2), node(3, **DOWN, ready=False))}, "node-3 is not ready: not run", False),
        ({"nodes": (node(1), node(2, ready=False, state="failed", reason="full"), node(3))}, "full", False),
        ({"nodes": (node(1), node(2, ready=False, reason="It is 5 behind."), node(3))}, "5 behind.", True),
        ({"balancer": replace(BALANCER, nodes={"node-1": True, "node-2": True})}, "not use node-3", True),
        ({"balancer": replace(BALANCER, not_used={"node-2": "a request failed"})}, "a request failed", True),
    ],
)
def test_no_node_is_taken_away_from_a_cluster_that_lacks_one(
    changed: dict[str, Any], words: str, passes: bool
) -> None:
    found = obstacle(overview(**changed))
    assert found is not None
    assert words in found.text
    assert found.passes is passes


def test_a_build_is_known_by_the_levels_that_it_understands() -> None:
    level = {"in_force": 1, "oldest": 1, "newest": 2, "waits_for": {}}
    looked = overview(nodes=(node(1), node(2, level=level), node(3, **DOWN)))
    assert build_of(looked, "node-1") is None
    assert build_of(looked, "node-2") == (1, 2)
    assert build_of(looked, "node-3") is None


@pytest.mark.parametrize("standing", ["same", "incomplete", "failed", "differs"])
def test_after_a_change_of_build_the_nodes_are_compared(
    standing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What differs ends it; what cannot be compared (the level does not allow it yet) is said."""
    result = {"standing": standing, "reason": "it needs command level 2", "index": 7, "compared": ["node-1"]}
    result |= {"records": 3, "collections": 1, "findings": [], "not_compared": {}, "skipped": {}}
    monkeypatch.setattr(rolling, "verify", lambda members, watch: {**result, "poor_indexes": {}})
    said: list[str] = []
    members = Members((), "secret")
    if standing == "differs":
        with pytest.raises(StartError, match=r"node-2 was restarted with another build, .*Something differs"):
            rolling._compare(members, "node-2", ["node-2"], said.append)
        return
    rolling._compare(members, "node-2", ["node-2"], said.append)
    words = {"same": "All the same", "incomplete": "not everything was compared", "failed": "Not verified"}
    assert words[standing] in said[0]
