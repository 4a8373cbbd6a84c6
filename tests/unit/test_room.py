"""When writes are refused for want of room on a member's disk, and what is said of a disk that fills up."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest

from cluster.disk import MEBIBYTE, Space
from cluster.errors import NoRoom
from cluster.service.room import Room, judge, reserve_of, said_space, used_percent, warning
from cluster.state.commands import (
    CreateCollection,
    CreateDatabase,
    CreateTenant,
    DeleteCollection,
    DeleteDatabase,
    DeleteRecords,
    RefuseEntry,
    Reset,
    UpdateCollection,
    UpdateTenant,
    WriteRecords,
)

if TYPE_CHECKING:
    from cluster.state.commands import Command

GIB = 1024 * MEBIBYTE


def space(free: int, total: int = 100 * GIB) -> Space:
    return Space("/data", free, total)


@pytest.mark.parametrize(
    ("total", "setting", "expected"),
    [
        (2000 * GIB, None, GIB),
        (10 * GIB, None, GIB // 2),
        (1000 * MEBIBYTE, None, 50 * MEBIBYTE),
        (400 * MEBIBYTE, None, 32 * MEBIBYTE),
        (100 * MEBIBYTE, None, 10 * MEBIBYTE),
        (0, None, 0),
        (10 * GIB, 0, 0),
        (10 * GIB, 5, 5),
    ],
)
def test_the_reserve_follows_the_size_of_the_disk(total: int, setting: int | None, expected: int) -> None:
    assert reserve_of(space(0, total), setting) == expected


def test_the_fullest_member_decides_and_one_that_is_not_known_does_not() -> None:
    roomy, full = space(50 * GIB), space(GIB - 1)
    assert judge({"a": roomy, "b": None}, None, refused_before=False).refusal is None
    found = judge({"a": roomy, "b": full, "c": roomy}, None, refused_before=False).refusal
    assert found is not None
    assert found.startswith(f"The disk of b is nearly full: {GIB - 1} bytes are free at /data")


def test_what_was_refused_is_taken_again_only_with_more_room_than_that() -> None:
    for free, before, expected in ((GIB, False, True), (GIB, True, False), (GIB * 5 // 4, True, True)):
        assert (judge({"a": space(free)}, None, refused_before=before).refusal is None) is expected


@pytest.mark.parametrize(
    ("free", "percent", "warned"), [(21, 79, False), (20, 80, True), (0, 100, True), (100, 0, False)]
)
def test_a_disk_is_told_of_from_80_percent_on(free: int, percent: int, warned: bool) -> None:
    assert used_percent(space(free, 100)) == percent
    assert (warning(space(free, 100)) is not None) is warned


@pytest.mark.parametrize(
    "status",
    [
        None,
        {},
        {"disk": None},
        {"disk": 3},
        {"disk": {"path": "/", "free_bytes": "1", "total_bytes": 1}},
        {"disk": {"path": "/", "free_bytes": True, "total_bytes": 1}},
        {"disk": {"free_bytes": 1, "total_bytes": 1}},
    ],
)
def test_a_status_without_room_says_nothing(status: dict[str, Any] | None) -> None:
    assert said_space(status) is None


class Bench:
    """A room whose own disk, role and other members the test decides."""

    def __init__(self) -> None:
        self.own: Space | None = space(50 * GIB)
        self.role = "leader"
        self.others: dict[str, Any] = {"http://b": None}
        raft = SimpleNamespace(status=lambda: SimpleNamespace(role=self.role))
        peers = SimpleNamespace(status=self._status)
        self.room = Room(
            "a",
            Path("/data"),
            None,
            cast("Any", raft),
            cast("Any", peers),
            {"b": "http://b"},
            look=lambda _: self.own,
        )

    async def _status(self, url: str) -> Any:
        return self.others[url]

    def refuses(self, command: Command) -> bool:
        asyncio.run(self.room.look())
        try:
            self.room.require(command)
        except NoRoom:
            return True
        return False


WRITE = WriteRecords("add", "c", ("1",), 1, (b"\0\0\0\0",), None, None, None)


def test_the_leader_looks_at_all_disks_and_a_follower_at_its_own() -> None:
    bench = Bench()
    assert not bench.refuses(WRITE)
    bench.others["http://b"] = {"disk": {"path": "/b", "free_bytes": 7, "total_bytes": 100 * GIB}}
    assert bench.refuses(WRITE)
    # One that answers no more says nothing: the two others must go on.
    bench.others["http://b"] = None
    assert not bench.refuses(WRITE)
    bench.role = "follower"
    bench.others["http://b"] = {"disk": {"path": "/b", "free_bytes": 7, "total_bytes": 100 * GIB}}
    assert not bench.refuses(WRITE)
    bench.own = space(3)
    assert bench.refuses(WRITE)


def test_the_refusal_says_what_was_not_changed_and_what_to_do() -> None:
    bench = Bench()
    bench.own = space(0)
    assert bench.refuses(WRITE)
    with pytest.raises(NoRoom, match=r"The disk of a .* Nothing was changed\. Free space there") as refusal:
        bench.room.require(WRITE)
    assert (refusal.value.status, refusal.value.outcome) == (507, "unchanged")


def test_only_what_grows_a_disk_is_refused() -> None:
    bench = Bench()
    bench.own = space(0)
    tiny: Any = SimpleNamespace()
    refused = {
        kind
        for kind in (
            WriteRecords,
            CreateCollection,
            CreateDatabase,
            CreateTenant,
            UpdateCollection,
            UpdateTenant,
            DeleteRecords,
            DeleteCollection,
            DeleteDatabase,
            Reset,
            RefuseEntry,
        )
        if bench.refuses(_blank(kind, tiny))
    }
    assert refused == {WriteRecords, CreateCollection, CreateDatabase, CreateTenant}


def _blank(kind: type[Any], value: Any) -> Any:
    """A command of that kind whose fields do not matter."""
    made = object.__new__(kind)
    for name in kind.__slots__:
        object.__setattr__(made, name, value)
    return made


def test_a_disk_that_cannot_be_asked_counts_as_it_was_last() -> None:
    bench = Bench()
    bench.own = space(0)
    assert bench.refuses(WRITE)
    bench.own = None
    assert bench.refuses(WRITE)
    assert bench.room.status() is not None
