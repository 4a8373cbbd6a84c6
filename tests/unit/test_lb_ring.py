"""Health, ejection, rotation and the choice of the leader, as values."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from lb.ring import Ring, Status

NODES = {"a": "http://a", "b": "http://b", "c": "http://c"}
NOBODY: frozenset[str] = frozenset()


def status(node_id: str, **changes: Any) -> Status:
    plain = Status(node_id, "x", "follower", 1, None, 10, True, "")
    return dataclasses.replace(plain, **changes)


def ring_of(*statuses: Status, now: float = 0.0) -> Ring:
    ring = Ring.of(NODES)
    for each in statuses:
        ring = ring.heard(each.node_id, each, now)
    return ring


def readers(ring: Ring, wanted: int = 0, avoid: frozenset[str] = NOBODY, **options: Any) -> list[str | None]:
    chosen = [ring.reader(turn, wanted, avoid, options.pop("now", 0.0), **options) for turn in range(6)]
    return [member.node_id if member else None for member in chosen]


def test_nobody_heard_nobody_chosen() -> None:
    ring = Ring.of(NODES)
    assert ring.leader() is None
    assert readers(ring) == [None] * 6
    assert readers(ring, lenient=True) == [None] * 6


def test_reads_rotate_over_healthy_nodes() -> None:
    assert readers(ring_of(status("a"), status("b"), status("c"))) == ["a", "b", "c"] * 2


def test_reads_rotate_over_caught_up_nodes_only() -> None:
    ring = ring_of(status("a", applied_index=9), status("b"), status("c", applied_index=12))
    assert readers(ring, wanted=10) == ["b", "c"] * 3


def test_if_nobody_shows_the_index_the_leader_is_asked() -> None:
    ring = ring_of(status("a", leader="b"), status("b", role="leader", leader="b"), status("c", leader="b"))
    assert readers(ring, wanted=99) == ["b"] * 6
    assert readers(ring, wanted=99, avoid=frozenset("b")) == ["a", "c"] * 3


def test_nodes_tried_before_are_avoided_to_the_last() -> None:
    ring = ring_of(status("a"), status("b"), status("c"))
    assert readers(ring, avoid=frozenset("ab")) == ["c"] * 6
    assert readers(ring, avoid=frozenset("abc")) == [None] * 6


def test_silence_ejects_and_the_next_line_takes_back() -> None:
    ring = ring_of(status("a"), status("b"), now=100.0).heard("a", status("a"), 100.5)
    ring = ring.swept(101.2, silence_s=1.0)
    assert readers(ring) == ["a"] * 6
    assert "silent" in ring.member("b").reason
    ring = ring.heard("b", status("b"), 101.3)
    assert readers(ring) == ["a", "b"] * 3
    assert ring.member("b").reason == ""


def test_exactly_the_allowed_silence_does_not_eject() -> None:
    ring = ring_of(status("a"), now=100.0)
    assert ring.swept(101.0, silence_s=1.0) == ring


def test_silence_while_the_balancer_stood_still_is_forgiven() -> None:
    ring = ring_of(status("a"), now=100.0).forgiven(5.0)
    assert ring.swept(105.5, silence_s=1.0).healthy()


def test_a_broken_stream_ejects_at_once() -> None:
    ring = ring_of(status("a", role="leader", leader="a"), status("b", leader="a")).lost("a", "reset")
    assert readers(ring) == ["b"] * 6
    assert ring.leader() is None
    assert ring.member("a").reason == "reset"


def test_a_node_that_says_it_is_not_healthy_is_used_for_lenient_reads_only_if_no_other_is() -> None:
    sick = status("a", healthy=False, reason="no quorum")
    ring = ring_of(sick)
    assert readers(ring) == [None] * 6
    assert readers(ring, lenient=True) == ["a"] * 6
    assert ring.member("a").reason == "no quorum"
    assert readers(ring_of(sick, status("b")), lenient=True) == ["b"] * 6


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ({"a": ("a", 3), "b": ("a", 3), "c": ("a", 3)}, "a"),
        ({"a": ("a", 3), "b": ("a", 3)}, "a"),  # c is down
        ({"a": ("a", 3)}, "a"),  # of the others nothing is known
        ({"a": ("a", 3), "b": (None, 3), "c": (None, 3)}, None),
        ({"a": ("a", 3), "b": ("b", 5), "c": ("b", 5)}, "b"),  # cut-off leaders still claim their own terms
        ({"a": ("a", 9), "b": ("b", 5), "c": ("b", 5)}, "b"),  # started without its peers: it leads alone
        ({"a": ("a", 9), "b": ("b", 5)}, None),
        ({"a": ("a", 4), "b": ("a", 3), "c": ("a", 3)}, None),  # they follow it in a term that is over
    ],
)
def test_who_leads_is_whom_a_majority_of_those_heard_follows(
    words: dict[str, tuple[str | None, int]], expected: str | None
) -> None:
    statuses = [
        status(name, role="leader" if leader == name else "follower", leader=leader, term=term)
        for name, (leader, term) in words.items()
    ]
    leader = ring_of(*statuses).leader()
    assert (leader.node_id if leader else None) == expected


def test_a_leader_that_is_not_healthy_gets_no_writes() -> None:
    assert ring_of(status("a", role="leader", leader="a", healthy=False)).leader() is None


def test_shunned_nodes_serve_only_if_no_other_can() -> None:
    ring = ring_of(status("a"), status("b")).shunned("a", until=5.0)
    assert readers(ring, now=4.0) == ["b"] * 6
    assert ring.reader(0, 0, frozenset("b"), 4.0) is not None
    assert {ring.reader(turn, 0, NOBODY, 5.0) for turn in (0, 1)} == set(ring.healthy())
    alone = ring_of(status("a")).shunned("a", until=5.0)
    assert readers(alone, now=4.0) == ["a"] * 6


def test_a_node_that_comes_back_is_no_longer_shunned() -> None:
    ring = ring_of(status("a"), status("b")).shunned("a", until=5.0)
    assert readers(ring.heard("a", status("a"), 1.0)) == ["b"] * 6
    assert readers(ring.lost("a", "reset").heard("a", status("a"), 1.0)) == ["a", "b"] * 3


def test_a_node_under_a_wrong_name_is_not_used() -> None:
    ring = Ring.of(NODES).heard("a", status("b"), 0.0)
    assert not ring.healthy()
    assert ring.member("a").reason == "answers as b, but is configured as a"


def test_a_node_of_another_cluster_is_not_used() -> None:
    ring = Ring.of(NODES, cluster="mine").heard("a", status("a", cluster="theirs"), 0.0)
    assert not ring.healthy()
    assert "theirs" in ring.member("a").reason
    assert ring.heard("a", status("a", cluster="mine"), 0.0).healthy()


LINE: dict[str, Any] = {
    "id": "a",
    "cluster": "x",
    "role": "leader",
    "term": 4,
    "leader": "a",
    "applied_index": 12,
    "healthy": True,
    "reason": None,
    "lag": 0,
}


def test_a_status_line_is_read() -> None:
    assert Status.of(LINE) == Status("a", "x", "leader", 4, "a", 12, True, "")


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ([], "not a JSON object"),
        (LINE | {"id": None}, "no str `id`"),
        (LINE | {"term": "4"}, "no int `term`"),
        (LINE | {"healthy": "yes"}, "no bool `healthy`"),
        ({k: v for k, v in LINE.items() if k != "applied_index"}, "no int `applied_index`"),
    ],
)
def test_what_is_no_status_line_is_refused(line: Any, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        Status.of(line)


def test_nodes_that_are_behind_are_read_from_only_if_no_ready_one_can() -> None:
    ring = ring_of(
        status("a", ready=False, reason="500 entries behind"), status("b"), status("c", applied_index=2)
    )
    assert readers(ring) == ["b", "c"] * 3
    assert readers(ring, wanted=10) == ["b"] * 6
    assert readers(ring, wanted=10, avoid=frozenset("b")) == ["a"] * 6, "it has what is asked for"
    assert readers(ring, avoid=frozenset("bc")) == ["a"] * 6
    assert ring.member("a").why_not_used(0.0) == "500 entries behind"
    assert ring.member("b").why_not_used(0.0) is None


def test_a_node_that_lacks_entries_is_not_even_the_last_resort() -> None:
    ring = ring_of(
        status("a", healthy=False, lacking=True, reason="lacks entries"), status("b", healthy=False)
    )
    assert readers(ring, lenient=True) == ["b"] * 6
    assert readers(ring, lenient=True, avoid=frozenset("b")) == [None] * 6
    assert ring.member("a").why_not_used(0.0) == "lacks entries"
    assert ring.member("b").why_not_used(0.0) == "it says that it is not healthy, and no reason"
    assert ring.member("c").why_not_used(0.0) == "not heard from yet"
    shunned = ring_of(status("a")).shunned("a", 5.0).member("a")
    assert "failed on the way" in (shunned.why_not_used(4.0) or "")
    assert shunned.why_not_used(5.0) is None


def test_readiness_and_lacks_are_read_from_the_status_line() -> None:
    assert Status.of(LINE).ready
    assert not Status.of({**LINE, "ready": False}).ready
    assert Status.of({**LINE, "lacks": {"needs": 1, "compacted": 4}}).lacking
    assert not Status.of({**LINE, "lacks": None}).lacking


def test_the_members_are_those_of_the_newest_committed_configuration() -> None:
    urls = {"a": "http://elsewhere", "c": "http://c", "d": "http://d"}
    ring = ring_of(status("a"), status("b"), status("c", configuration=3, urls=urls))
    assert {member.node_id: member.url for member in ring.members} == {
        "a": "http://a",  # of the balancer's own settings: it may lead through a proxy
        "c": "http://c",
        "d": "http://d",
    }
    assert ring.member("a").status is not None
    # Older news, and those of one that was removed, are none.
    older = ring.heard("a", status("a", configuration=2, urls={"a": "http://a"}), 1.0)
    assert [member.node_id for member in older.members] == ["a", "c", "d"]
    assert ring.heard("b", status("b", configuration=9, urls={"b": "http://b"}), 1.0) == ring
    moved = ring.heard("c", status("c", configuration=4, urls=urls | {"d": "http://moved"}), 1.0)
    assert moved.member("d").url == "http://moved"
    assert moved.member("d").status is None


def test_another_cluster_does_not_say_who_the_members_are() -> None:
    ring = Ring.of(NODES, "x")
    foreign = status("a", cluster="y", configuration=3, urls={"z": "http://z"})
    assert [member.node_id for member in ring.heard("a", foreign, 0.0).members] == ["a", "b", "c"]


@pytest.mark.parametrize(
    "said",
    [
        None,
        {},
        {"number": 3, "committed": False, "urls": {"z": "http://z"}},
        {"number": "3", "committed": True, "urls": {"z": "http://z"}},
        {"number": 3, "committed": True, "urls": ["z"]},
    ],
)
def test_what_is_no_configuration_changes_nothing(said: Any) -> None:
    line = {
        "id": "a",
        "role": "leader",
        "term": 1,
        "applied_index": 1,
        "healthy": True,
        "configuration": said,
    }
    assert Status.of(line).configuration == 0
