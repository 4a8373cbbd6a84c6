"""The table that a person reads, and the sentences about what changed."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from rich.console import Console

from cluster.cli.overview import BalancerView, NodeView, Overview
from cluster.cli.status_view import changes, render


def node(number: int, **changed: Any) -> NodeView:
    healthy = NodeView(
        id=f"node-{number}",
        pid=100 + number,
        url=f"http://127.0.0.1:2000{number}",
        raft_address=f"127.0.0.1:2100{number}",
        role="leader" if number == 1 else "follower",
        term=7,
        leader="node-1",
        last_index=12_345,
        commit_index=12_344,
        applied_index=12_343,
        lag=1,
        documents=5_000,
        healthy=True,
        reason=None,
        chroma_path="/data/chroma",
        ready=True,
    )
    return replace(healthy, **changed)


DOWN: dict[str, Any] = {
    **dict.fromkeys(
        ("pid", "term", "leader", "last_index", "commit_index", "applied_index", "lag", "documents")
    ),
    "role": "down",
    "healthy": False,
    "reason": "not running",
}
BALANCER = BalancerView("http://127.0.0.1:8000", 99, True, None, "node-1", {"node-1": True, "node-2": False})
GOOD = Overview("c-1", "node-1", BALANCER, (node(1), node(2)))


def text_of(overview: Overview) -> str:
    console = Console(width=160, force_terminal=False)
    with console.capture() as printed:
        console.print(render(overview))
    return printed.get()


def test_who_holds_the_command_level_is_told_by_the_leader() -> None:
    level = {"in_force": 1, "oldest": 1, "newest": 2, "waits_for": {"node-2": "it is away"}}
    others = {**level, "waits_for": {"node-1": "as an old node sees it"}}
    text = text_of(replace(GOOD, nodes=(node(1, level=level), node(2, level=others))))
    assert "command level 1; it does not rise because of node-2: it is away" in text
    assert "as an old node sees it" not in text
    assert "command level" not in text_of(replace(GOOD, nodes=(node(1, level={**level, "waits_for": {}}),)))
    assert "command level" not in text_of(GOOD), "a build from before levels"


def test_the_table_shows_all_that_status_promises() -> None:
    text = text_of(GOOD)
    for word in (
        "node-1",
        "leader",
        "12,345",
        "12,344",
        "12,343",
        "5,000",
        "healthy",
        "101",
        "7",
    ):
        assert word in text
    assert "http://127.0.0.1:8000" in text
    assert "writes to node-1, reads from node-1, not to node-2" in text


def test_a_node_that_is_down_is_shown_with_its_reason_and_no_numbers() -> None:
    lines = text_of(replace(GOOD, nodes=(node(1), node(2, **DOWN)))).splitlines()
    (row,) = [line.split() for line in lines if line.startswith("node-2 ")]
    assert row == ["node-2", "down", "-", "-", "-", "-", "-", "-", "-", "no", "-"]
    assert "node-2: not running" in lines


def test_it_fits_a_terminal_of_eighty_columns() -> None:
    console = Console(width=80, force_terminal=False)
    with console.capture() as printed:
        console.print(render(GOOD))
    assert "…" not in printed.get()


def test_no_leader_is_the_headline() -> None:
    assert "no leader: writes wait" in text_of(replace(GOOD, leader=None))


def test_odd_text_in_a_reason_is_shown_as_it_is() -> None:
    assert "[red]disk[/x] full" in text_of(
        replace(GOOD, nodes=(node(1, healthy=False, reason="[red]disk[/x] full"),))
    )


@pytest.mark.parametrize(
    ("after", "lines"),
    [
        (GOOD, []),
        (replace(GOOD, nodes=(node(1), node(2, **DOWN))), ["node-2 (pid 102) is down"]),
        (replace(GOOD, nodes=(node(1), node(2, pid=500))), ["node-2 runs (pid 500)"]),
        (
            replace(GOOD, nodes=(node(1), node(2, healthy=False, reason="disk full"))),
            ["node-2 is not healthy: disk full"],
        ),
        (replace(GOOD, leader=None), ["there is no leader"]),
        (replace(GOOD, leader="node-2"), ["node-2 is the leader"]),
        (replace(GOOD, balancer=replace(BALANCER, pid=None)), ["the balancer (pid 99) is down"]),
        (replace(GOOD, balancer=replace(BALANCER, pid=98)), ["the balancer runs (pid 98)"]),
    ],
)
def test_changes_are_told_once_each(after: Overview, lines: list[str]) -> None:
    assert changes(GOOD, after) == lines


def test_recovery_is_told_too() -> None:
    sick = replace(GOOD, nodes=(node(1), node(2, healthy=False)))
    assert changes(sick, GOOD) == ["node-2 is healthy"]


def test_a_disk_that_fills_up_is_told_below_the_table() -> None:
    disk = {"warning": "the disk is 91 % full: 5 bytes are free at /d", "writes_refused": None}
    text = text_of(replace(GOOD, nodes=(node(1, disk=disk), node(2, disk={"warning": None}))))
    assert "node-1: the disk is 91 % full" in text
    assert "node-2: the disk" not in text
    refused = node(1, disk={**disk, "writes_refused": "The disk of node-2 is nearly full"})
    assert "node-1: The disk of node-2 is nearly full" in text_of(replace(GOOD, nodes=(refused, node(2))))
