"""What one round of the agent brings to whom."""

from __future__ import annotations

from typing import Any

from evaluation.systems.naive.lww import LastWriteWins
from evaluation.systems.naive.manual import ManualQueue
from evaluation.systems.naive.plan import collections, copies, differing, most_recent
from evaluation.systems.naive.records import Change, Stamp
from evaluation.systems.naive.strategies import STRATEGIES, strategy
from evaluation.systems.round_robin import Ring

LEFT, RIGHT = Change({"document": "left"}), Change({"document": "right"})


def digest(names: list[str], **catalogue: dict[str, Any]) -> dict[str, Any]:
    model = {"configuration": {"hnsw": {}}, "metadata": None, "records": {}}
    return {"collections": dict.fromkeys(names, model), "catalogue": catalogue}


def test_documents_differ_where_a_member_has_another_state_or_none() -> None:
    digests = {"a": {"x": "1", "y": "1", "z": "1"}, "b": {"x": "1", "y": "2"}}
    assert differing(digests) == ["y", "z"]


def test_only_who_lacks_the_outcome_gets_it() -> None:
    lww = LastWriteWins()
    old, new = lww.write(None, LEFT, Stamp(1, 0, "a")), lww.write(None, RIGHT, Stamp(2, 0, "b"))
    plan = copies(lww, {"a": {"x": old}, "b": {"x": new}, "c": {}})
    assert plan.to == {"a": {"x": new}, "c": {"x": new}}
    assert plan.count == 2


def test_a_conflict_waits_and_nobody_is_changed() -> None:
    manual = ManualQueue()
    left, right = manual.write(None, LEFT, Stamp(1, 0, "a")), manual.write(None, RIGHT, Stamp(2, 0, "b"))
    plan = copies(manual, {"a": {"x": left}, "b": {"x": right}, "c": {}})
    assert plan.to == {}
    assert plan.waiting == {"x": {"a": left, "b": right}}


def test_after_a_round_nothing_is_left_to_do() -> None:
    for name in STRATEGIES:
        chosen = strategy(name)
        held: dict[str, dict[str, Any]] = {
            "a": {"x": chosen.write(None, LEFT, Stamp(1, 0, "a"))},
            "b": {
                "x": chosen.write(None, RIGHT, Stamp(2, 0, "b")),
                "y": chosen.write(None, LEFT, Stamp(3, 0, "b")),
            },
        }
        for member, states in copies(chosen, held).to.items():
            for id, state in states.items():
                mine = held[member].get(id)
                held[member][id] = state if mine is None else chosen.merge(mine, state)
        assert copies(chosen, held).count == 0, name


def test_the_most_recent_store_has_the_latest_write() -> None:
    lww = LastWriteWins()
    old, new = lww.write(None, LEFT, Stamp(1, 0, "a")), lww.write(None, RIGHT, Stamp(2, 0, "b"))
    assert most_recent(lww, {"a": {"x": old, "y": old}, "b": {"x": new}, "c": {}}) == "b"
    assert most_recent(lww, {"a": {}, "b": {}}) is None


def test_a_missing_collection_is_made_as_it_is_elsewhere() -> None:
    plans = collections({"a": digest(["docs"]), "b": digest([])})
    assert not plans["a"]
    assert plans["b"].create == [
        {"name": "docs", "configuration": {"hnsw": {}}, "metadata": None, "created": None}
    ]


def test_a_collection_dropped_after_it_was_made_is_dropped_everywhere() -> None:
    early, late = [1, 0, "a"], [2, 0, "b"]
    dropped = {"created": early, "dropped": late}
    made = {"created": early, "dropped": None}
    plans = collections({"a": digest(["docs"], docs=made), "b": digest([], docs=dropped)})
    assert plans["a"].drop == [{"name": "docs", "dropped": late}]
    assert not plans["b"]


def test_a_collection_made_again_after_its_drop_comes_back_everywhere() -> None:
    early, late = [1, 0, "a"], [2, 0, "b"]
    plans = collections(
        {
            "a": digest(["docs"], docs={"created": late, "dropped": early}),
            "b": digest([], docs={"created": None, "dropped": early}),
        }
    )
    assert plans["b"].create[0]["created"] == late
    assert not plans["a"]


def test_the_balancer_goes_round_and_leaves_out_who_failed_for_a_while() -> None:
    ring = Ring(3)
    assert [ring.order(0.0)[0] for _ in range(4)] == [0, 1, 2, 0]
    ring.failed(1, until=5.0)
    assert ring.order(1.0) == [2, 0]
    assert ring.order(5.0) == [2, 0, 1]
    assert ring.order(5.0) == [0, 1, 2]
    for backend in range(3):
        ring.failed(backend, until=9.0)
    assert ring.order(6.0) == [1, 2, 0], "all failed: better one of them than none"
