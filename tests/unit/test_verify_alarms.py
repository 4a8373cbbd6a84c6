"""What is known to be wrong outlasts a restart, is not served, and ends by a verification or a repair."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

import pytest

from cluster.errors import Fault, Unavailable
from cluster.service.repair import fit_donors, why_not
from cluster.verify.alarms import FILE, Alarms
from cluster.verify.digest import NODE
from cluster.verify.sealing import Seal, forget

if TYPE_CHECKING:
    from pathlib import Path

ALARM = {"parts": ["vector"], "undecided": False}


def refuses(alarms: Alarms, collection_id: str | None) -> bool:
    try:
        alarms.require_equal(collection_id)
    except Unavailable:
        return True
    return False


def test_an_alarm_outlasts_a_restart(tmp_path: Path) -> None:
    Alarms(tmp_path / FILE).conclude({"c": ALARM}, ["d"])
    alarms = Alarms(tmp_path / FILE)
    assert alarms.raised == {"c": ALARM}
    assert (refuses(alarms, "c"), refuses(alarms, "d"), refuses(alarms, None)) == (True, False, False)
    assert alarms.reason is not None
    assert "collection c (vector)" in alarms.reason


def test_an_alarm_ends_when_it_is_found_equal_or_its_collection_is_gone(tmp_path: Path) -> None:
    alarms = Alarms(tmp_path / FILE)
    alarms.conclude({"a": ALARM, "b": ALARM, "c": ALARM, NODE: ALARM}, [])
    alarms.conclude({}, ["a"], known=["a", "b"])  # b was not compared, c is no more
    assert alarms.raised.keys() == {"b", NODE}
    alarms.conclude({}, ["b", NODE], known=["a", "b"])
    assert alarms.raised == {}
    assert not (tmp_path / FILE).exists()


@pytest.mark.parametrize("part", ["name", "metadata", "configuration", "dimension", "unreadable"])
def test_a_collection_that_differs_itself_spoils_the_list(tmp_path: Path, part: str) -> None:
    alarms = Alarms(tmp_path / FILE)
    alarms.conclude({"c": {"parts": [part]}}, [])
    assert refuses(alarms, None)
    assert not refuses(alarms, "d")


def test_an_alarm_about_the_node_is_about_everything(tmp_path: Path) -> None:
    alarms = Alarms(tmp_path / FILE)
    alarms.conclude({NODE: {"parts": ["replicated state"]}}, [])
    assert refuses(alarms, "any")
    assert refuses(alarms, None)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"c": 1}'])
def test_a_file_that_cannot_be_read_is_an_alarm(tmp_path: Path, text: str) -> None:
    (tmp_path / FILE).write_text(text)
    alarms = Alarms(tmp_path / FILE)
    assert refuses(alarms, "any")
    alarms.clear()
    assert not refuses(Alarms(tmp_path / FILE), "any")


def test_an_alarm_that_cannot_be_kept_counts_all_the_same(tmp_path: Path) -> None:
    alarms = Alarms(tmp_path / FILE)
    (tmp_path / FILE).mkdir()  # nothing can be put in its place, not even by root
    with pytest.raises(Fault):
        alarms.conclude({"c": ALARM}, [])
    assert refuses(alarms, "c")


def test_a_node_repairs_itself_three_times_a_day(tmp_path: Path) -> None:
    times = [Alarms(tmp_path / FILE).may_repair(1000.0 + at, 3, 86_400.0) for at in range(5)]
    assert times == [True, True, True, False, False]
    assert Alarms(tmp_path / FILE).may_repair(1000.0 + 86_402.0, 3, 86_400.0)


def test_files_that_somebody_else_changed_break_the_seal(tmp_path: Path) -> None:
    chroma = tmp_path / "chroma"
    (chroma / "index").mkdir(parents=True)
    (chroma / "index" / "data").write_bytes(b"1234")
    seal = Seal(tmp_path)
    assert seal.doubts is None
    seal.apply()
    untouched = Seal(tmp_path)
    assert untouched.doubts is None
    # It lives: a kill now leaves no seal, and no conclusion.
    assert Seal(tmp_path).doubts is None

    untouched.apply()
    (chroma / "index" / "data").write_bytes(b"1235")
    os.utime(chroma / "index" / "data", ns=(1, 1))
    changed = Seal(tmp_path)
    assert changed.doubts is not None
    assert "index/data" in changed.doubts
    # Neither a kill nor a clean stop makes the doubts forgotten.
    assert Seal(tmp_path).doubts is not None
    changed.apply()
    again = Seal(tmp_path)
    assert again.doubts is not None
    again.settle()
    assert again.doubts is None
    assert Seal(tmp_path).doubts is None


def test_files_of_another_version_of_chroma_are_in_doubt_until_they_are_verified(tmp_path: Path) -> None:
    (tmp_path / "chroma").mkdir()
    first = Seal(tmp_path, "1.5.8")
    assert first.doubts is None
    first.apply()
    assert Seal(tmp_path, "1.5.8").doubts is None
    newer = Seal(tmp_path, "1.5.9")
    assert newer.doubts is not None
    assert "are of chromadb 1.5.8 and are opened by chromadb 1.5.9, which may migrate them" in newer.doubts
    newer.apply()
    again = Seal(tmp_path, "1.5.9")
    assert again.doubts == newer.doubts, "a restart verifies nothing"
    again.settle()
    again.apply()
    assert Seal(tmp_path, "1.5.9").doubts is None
    back = Seal(tmp_path, "1.5.8")
    assert back.doubts is not None
    forget(tmp_path)
    assert Seal(tmp_path, "1.5.8").doubts is None, "a snapshot took the place of the files"


@pytest.mark.parametrize("change", ["added", "removed", "damaged seal"])
def test_other_ways_to_break_the_seal(tmp_path: Path, change: str) -> None:
    chroma = tmp_path / "chroma"
    chroma.mkdir()
    (chroma / "data").write_bytes(b"1234")
    Seal(tmp_path).apply()
    match change:
        case "added":
            (chroma / "more").write_bytes(b"")
        case "removed":
            (chroma / "data").unlink()
        case _:
            (tmp_path / "chroma.seal").write_text("{")
    assert Seal(tmp_path).doubts is not None
    forget(tmp_path)
    assert Seal(tmp_path).doubts is None


def test_a_doubt_outlasts_a_restart(tmp_path: Path) -> None:
    (tmp_path / "chroma").mkdir()
    (tmp_path / "chroma" / "data").write_bytes(b"1")
    Seal(tmp_path).doubt("it was filled")
    assert Seal(tmp_path).doubts is not None
    assert json.loads((tmp_path / "chroma.seal").read_text()) == {}


WELL: dict[str, Any] = {"healthy": True, "role": "follower", "alarms": {}, "state": "ready"}


def test_who_may_give_a_copy() -> None:
    statuses: dict[str, dict[str, Any] | None] = {
        "a": WELL | {"role": "leader"},
        "b": WELL,
        "c": WELL | {"alarms": {"x": {}}},
        "d": WELL | {"healthy": False, "reason": "full"},
        "e": WELL | {"state": "unverified"},
        "f": None,
    }
    assert fit_donors(statuses) == ["b", "a"]
    why = why_not({name: statuses[name] for name in "cdef"}, None)
    assert why == ("c differs as well, d is not healthy (full), e waits to be verified, f does not answer")
    assert why_not(statuses, "c") == "c differs as well"
    assert why_not(statuses, "q") == "q is no other member of this cluster"
    assert why_not({}, None) == "this node's is the only copy"
