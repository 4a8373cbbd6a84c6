"""Each state that a node can be in: its name, its reason, what is to be done, which comes first."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from cluster.raft.interface import Lack, RaftStatus
from cluster.service.diagnosis import CatchingUp, Facts, Trouble, diagnose, lag_of

RAFT = RaftStatus("a", "follower", 3, "b", 1, 10, 10, 50.0, connected=("b", "c"), leader_commit=10)
WELL = Facts(RAFT, 10, ("b", "c"), 2000.0, leader_url="http://b")
FAILED = Trouble("failed", "The disk is full.", "Free space.")
STOPPING = Trouble("stopping", "The node is stopping.", "Nothing.")
RESTARTING = Trouble("not serving", "Chroma is being started again.", "Wait.")


def facts(raft: dict[str, Any] | None = None, **changes: Any) -> Facts:
    return replace(WELL, raft=replace(RAFT, **(raft or {})), **changes)


#: facts, state, healthy, words of the reason, words of the remedy
STATES: list[tuple[Facts, str, bool, str, str]] = [
    (facts(trouble=FAILED), "failed", False, "disk is full", "Free space"),
    (facts(trouble=STOPPING), "stopping", False, "is stopping", "Nothing"),
    (facts(trouble=RESTARTING), "not serving", False, "started again", "Wait"),
    (facts({"lacks": Lack(1, 40)}), "lacks entries", False, "from 1 on; the others have compacted up to 40",
     "filled by itself"),
    (facts({"lacks": Lack(1, 40)}, filling="it fetches 5 of 9 bytes from b"), "lacks entries", False,
     "with a snapshot of another node: it fetches 5 of 9 bytes from b.", "filled by itself"),
    (facts({"leader": None, "connected": ("b",), "quorum_contact_ms": 7000.0}), "no leader", False,
     "No word of a leader for 7 s: it reaches b, not c.", "election"),
    (facts({"leader": None, "connected": ("b", "c")}), "no leader", False, "reaches all others", "election"),
    (facts({"leader": None, "connected": (), "quorum_contact_ms": 9000.0}), "no majority", False,
     "No contact with a majority for 9 s: it reaches nobody, not b, c.", "Start b, c, or mend the network"),
    (facts({"leader": None, "connected": (), "refused": {"b": "it refused this node: too old", "x": "gone"}}),
     "no majority", False, "not b, c; b: it refused this node: too old.", "b, c"),
    (facts({"connected": (), "quorum_contact_ms": 2001.0}), "no majority", False, "for 2 s", "b, c"),
    (facts({"leader": None, "connected": (), "quorum_contact_ms": float("inf")}), "no majority", False,
     "since it started", "b, c"),
    (facts({"leader_commit": 510}, caught_up=False, behind_s=12.0), "catching up", True,
     "500 entries behind, 12 s late: it has applied 10 and works towards log entry 510", "Wait"),
    (facts({"leader_commit": None}, caught_up=False), "catching up", True, "unknown number", "Wait"),
    (facts(line="no answer in time"), "leader out of reach", True,
     "follows b over the log, but cannot reach it over HTTP at http://b (no answer in time)", "balancer"),
]  # fmt: skip


@pytest.mark.parametrize(("known", "state", "healthy", "reason", "remedy"), STATES)
def test_each_state_names_its_reason_and_remedy(
    known: Facts, state: str, healthy: bool, reason: str, remedy: str
) -> None:
    found = diagnose(known)
    assert (found.state, found.healthy, found.ready) == (state, healthy, False)
    assert reason in (found.reason or "")
    assert remedy in (found.remedy or "")


def test_a_node_that_is_well_gives_no_reason() -> None:
    found = diagnose(WELL)
    assert (found.state, found.healthy, found.ready, found.reason, found.remedy) == (
        "ready",
        True,
        True,
        None,
        None,
    )
    alone = diagnose(facts({"role": "leader", "leader": "a", "connected": ()}, members=()))
    assert alone.ready
    assert diagnose(facts({"role": "leader", "leader": "a"}, line="old news")).ready, "it leads itself"


@pytest.mark.parametrize(
    ("known", "state"),
    [
        (facts({"lacks": Lack(1, 9)}, trouble=FAILED), "failed"),
        (facts({"lacks": Lack(1, 9)}, trouble=RESTARTING), "lacks entries"),
        (facts({"lacks": Lack(1, 9), "leader": None}), "lacks entries"),
        (facts({"leader": None, "connected": ()}, trouble=RESTARTING), "not serving"),
        (facts({"leader": None, "connected": ()}, caught_up=False, line="x"), "no majority"),
        (facts(caught_up=False, line="x"), "catching up"),
    ],
)
def test_the_gravest_state_is_told(known: Facts, state: str) -> None:
    assert diagnose(known).state == state


def test_lag_is_counted_from_what_the_leader_has_committed() -> None:
    assert lag_of(replace(RAFT, commit_index=0, leader_commit=40), 0) == 40
    assert lag_of(replace(RAFT, commit_index=12, leader_commit=10), 10) == 2
    assert lag_of(replace(RAFT, leader_commit=None), 10) is None


def test_who_returns_has_to_reach_what_the_leader_had_then() -> None:
    it = CatchingUp(10.0)
    it.look(0, in_touch=True, leader_commit=None, applied=5)
    assert not it.caught_up(0), "nothing was heard yet"
    it.look(1, in_touch=True, leader_commit=100, applied=5)
    assert not it.caught_up(1)
    it.look(2, in_touch=True, leader_commit=150, applied=99)
    assert not it.caught_up(2)
    it.look(3, in_touch=True, leader_commit=150, applied=100)
    assert it.caught_up(3), "what came since is not asked for"
    it.look(4, in_touch=False, leader_commit=150, applied=100)
    assert not it.caught_up(4)
    it.look(5, in_touch=True, leader_commit=200, applied=150)
    assert not it.caught_up(5), "the goal is that of the second return"


def test_who_falls_behind_for_too_long_is_caught_up_no_more() -> None:
    it = CatchingUp(10.0)
    it.look(0, in_touch=True, leader_commit=5, applied=5)
    for second in range(1, 9):
        it.look(second, in_touch=True, leader_commit=1000 * second, applied=5)
        assert it.caught_up(second)
    assert it.behind_s(8) == 7
    it.look(9, in_touch=True, leader_commit=9000, applied=3500)
    assert it.behind_s(9) == 5, "of the oldest that is missing"
    it.look(16, in_touch=True, leader_commit=9000, applied=3999)
    assert not it.caught_up(16)
    it.look(17, in_touch=True, leader_commit=9000, applied=9000)
    assert it.caught_up(17)
    assert it.behind_s(17) == 0


def test_what_is_remembered_of_a_long_lag_is_bounded_and_keeps_the_oldest() -> None:
    it = CatchingUp(10.0)
    for step in range(5000):
        it.look(step / 100, in_touch=True, leader_commit=step + 1, applied=0)
    assert len(it._seen) <= 257  # pyright: ignore[reportPrivateUsage]
    assert it.behind_s(50) == 50
