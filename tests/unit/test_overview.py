"""What a node or balancer answers becomes the stable interface of `status --json`."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from urllib.error import URLError

import pytest

from cluster.cli.layout import DataDirectory
from cluster.cli.overview import (
    BalancerView,
    NodeView,
    Overview,
    balancer_view,
    explain,
    leader_of,
    look,
    node_view,
)
from cluster.cli.plan import new_plan
from cluster.cli.serving import why_unready
from cluster.cli.up import is_to_restart

if TYPE_CHECKING:
    from pathlib import Path

PLAN = new_plan(3, 8000, range(20_000, 20_010))
NODE = PLAN.nodes[0]
ANSWER: dict[str, Any] = {
    "id": "node-1",
    "cluster": PLAN.cluster,
    "pid": 77,
    "role": "leader",
    "term": 3,
    "leader": "node-1",
    "last_index": 12,
    "commit_index": 11,
    "applied_index": 10,
    "lag": 1,
    "documents": 5,
    "healthy": True,
    "reason": None,
    "connected": [],
}


def view(**changes: Any) -> NodeView:
    seen = node_view(NODE, PLAN.cluster, 77, ANSWER, None, chroma_path="/d/node-1/chroma")
    return replace(seen, **changes)


def overview(*nodes: NodeView, balancer: BalancerView | None = None) -> Overview:
    there = balancer or BalancerView(PLAN.url, 9, True, None, "node-1", {"node-1": True})
    return Overview(PLAN.cluster, leader_of(list(nodes)), there, nodes)


def test_the_keys_of_the_stable_interface() -> None:
    said = overview(view()).as_json()
    assert json.loads(json.dumps(said)) == said
    assert said["cluster"] == PLAN.cluster
    assert said["leader"] == "node-1"
    assert said["balancer"].items() >= {"url": PLAN.url, "pid": 9, "healthy": True}.items()
    expected = {
        "id": "node-1",
        "pid": 77,
        "url": "http://127.0.0.1:20000",
        "raft_address": "127.0.0.1:20001",
        "role": "leader",
        "term": 3,
        "last_index": 12,
        "commit_index": 11,
        "applied_index": 10,
        "healthy": True,
        "chroma_path": "/d/node-1/chroma",
    }
    assert said["nodes"][0].items() >= expected.items()


def test_a_node_that_does_not_run_is_down_without_numbers() -> None:
    said = node_view(NODE, PLAN.cluster, None, None, "refused", chroma_path="/c").as_json()
    assert (said["role"], said["pid"], said["healthy"], said["reason"]) == (
        "down",
        None,
        False,
        "not running",
    )
    assert all(said[name] is None for name in ("term", "last_index", "commit_index", "applied_index", "lag"))


def test_a_node_that_runs_and_is_silent_is_unknown() -> None:
    said = node_view(NODE, PLAN.cluster, 77, None, "it does not answer", chroma_path="/c")
    assert (said.role, said.pid, said.healthy, said.reason) == ("unknown", 77, False, "it does not answer")


@pytest.mark.parametrize("other", [{"cluster": "another"}, {"id": "node-2"}])
def test_a_stranger_on_the_port_is_not_taken_for_the_node(other: dict[str, str]) -> None:
    seen = node_view(NODE, PLAN.cluster, 77, ANSWER | other, None, chroma_path="/c")
    assert (seen.role, seen.term, seen.healthy) == ("unknown", None, False)
    assert seen.reason == "another server answers at http://127.0.0.1:20000"


def test_a_node_started_by_hand_tells_its_own_pid() -> None:
    assert node_view(NODE, PLAN.cluster, None, ANSWER, None, chroma_path="/c").pid == 77


def test_the_leader_is_that_of_the_highest_term() -> None:
    cut_off = view(id="node-1", term=3)
    elected = view(id="node-2", term=4)
    assert leader_of([cut_off, elected]) == "node-2"
    assert leader_of([view(role="follower"), view(role="down", term=None)]) is None


def test_it_serves_with_a_leader_and_a_healthy_balancer_only() -> None:
    assert overview(view()).serving
    assert not overview(view(role="candidate")).serving
    assert not overview(view(), balancer=balancer_view(PLAN, None, None, "refused")).serving


def balancer_answer(**changes: Any) -> dict[str, Any]:
    nodes = [{"id": node.id, "healthy": node.id != "node-3"} for node in PLAN.nodes]
    return {"healthy": True, "leader": "node-2", "nodes": nodes, "pid": 5, **changes}


def test_the_balancer_tells_whom_it_uses() -> None:
    seen = balancer_view(PLAN, 5, balancer_answer(), None)
    assert seen.healthy
    assert seen.leader == "node-2"
    assert seen.nodes == {"node-1": True, "node-2": True, "node-3": False}


def test_a_balancer_without_a_leader_is_not_healthy() -> None:
    seen = balancer_view(PLAN, 5, balancer_answer(healthy=False, leader=None), None)
    assert (seen.healthy, seen.reason) == (False, "it knows no leader")


@pytest.mark.parametrize("answer", [[1], {"hello": 1}, {"nodes": [], "healthy": True}])
def test_a_stranger_on_the_public_port_is_not_the_balancer(answer: Any) -> None:
    assert not balancer_view(PLAN, None, answer, None).healthy


def test_looking_at_a_cluster_that_does_not_run(tmp_path: Path) -> None:
    seen = look(DataDirectory(tmp_path), PLAN)
    assert [node.role for node in seen.nodes] == ["down"] * 3
    assert seen.leader is None
    assert not seen.serving


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (TimeoutError("timed out"), "it does not answer"),
        (URLError(TimeoutError()), "it does not answer"),
        (URLError(ConnectionRefusedError()), "nothing listens on its port"),
        (ValueError("Expecting value"), "Expecting value"),
        (ValueError(), "ValueError"),
    ],
)
def test_failures_are_told_in_words(error: Exception, words: str) -> None:
    assert explain(error) == words


def test_a_cluster_is_complete_when_every_node_is_ready() -> None:
    assert overview(view()).complete, "a node of an earlier version says healthy only"
    behind = node_view(NODE, PLAN.cluster, 77, {**ANSWER, "ready": False}, None, chroma_path="/d")
    assert overview(view()).serving
    assert not overview(behind).complete
    assert not overview(view(), view(id="node-2", role="down", ready=False)).complete


@pytest.mark.parametrize(
    ("state", "hopeless"), [("failed", True), ("lacks entries", False), ("catching up", False), (None, False)]
)
def test_who_says_that_waiting_does_not_help_is_not_waited_for(state: str | None, hopeless: bool) -> None:
    said = {**ANSWER, "healthy": False, "ready": False, "state": state, "reason": "R.", "remedy": "Do."}
    seen = node_view(NODE, PLAN.cluster, 77, said, None, chroma_path="/d")
    assert seen.is_beyond_waiting is hopeless
    assert is_to_restart(seen) is (state == "failed")
    assert not is_to_restart(replace(seen, pid=None)), "what does not run is started, not restarted"
    assert why_unready(seen) == "R. Do."


def test_the_balancer_tells_why_it_passes_a_node_over() -> None:
    nodes = [{"id": node.id, "healthy": True, "not_used": None} for node in PLAN.nodes]
    nodes[1]["not_used"] = "500 entries behind"
    seen = balancer_view(PLAN, 9, {"healthy": True, "leader": "node-1", "nodes": nodes}, None)
    assert seen.not_used == {"node-2": "500 entries behind"}
    assert seen.as_json()["not_used"] == {"node-2": "500 entries behind"}
