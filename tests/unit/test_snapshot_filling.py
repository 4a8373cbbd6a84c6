"""A node that is filled: by whom, from where it left off, and what ends well though it goes wrong."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from cluster.disk import Space
from cluster.errors import Refusal, Unavailable
from cluster.snapshot import donating, fetching, filling, installing
from cluster.snapshot.donating import Donor
from cluster.snapshot.fetching import unfinished
from cluster.snapshot.filling import Filling, Here
from cluster.snapshot.manifest import Manifest
from tests.unit.test_snapshot_installing import NEW, content, fetched

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

BIG = {**NEW, "chroma/new-index/data.bin": bytes(range(256)) * 100, "chroma/empty.bin": b""}


class Kept:
    """A taker that has snapshots in a directory and takes another when asked."""

    def __init__(self, folder: Path, name: str) -> None:
        self.folder = folder
        self.name = name
        self.held: dict[str, Manifest] = {}
        self.index = 9
        self.taken = 0

    def newest(self) -> Manifest | None:
        return max(self.held.values(), key=lambda it: it.index, default=None)

    def find(self, name: str) -> Manifest | None:
        return self.held.get(name)

    def path_of(self, name: str, file: Any) -> Path:
        return self.folder / "incoming" / name / "files" / file.path

    def take(self, *, timeout_s: float) -> Manifest:
        self.taken += 1
        made = fetched(self.folder, f"{self.index}-{self.name}{self.taken}", BIG)
        made = Manifest(made.name, "c", self.name, self.index, 2, b"", 0, made.files)
        self.held[made.name] = made
        return made

    def tidy(self) -> None: ...


class Net:
    """Other nodes, and what goes wrong with them."""

    def __init__(self, folder: Path, *names: str) -> None:
        self.takers = {name: Kept(folder / name, name) for name in names}
        self.donors = {name: Donor(taker, lambda: None) for name, taker in self.takers.items()}  # type: ignore[arg-type]
        self.said: dict[str, dict[str, Any] | None] = {
            name: {"role": "follower", "healthy": True, "applied_index": 9, "versions": {"chromadb": "1"}}
            for name in names
        }
        self.held: list[tuple[str, int]] = []
        self.parts = 0
        self.on_part: Callable[[str, bytes], bytes] = lambda node, data: data

    async def status(self, url: str) -> dict[str, Any] | None:
        return self.said[url]

    async def snapshot(self, url: str, question: Mapping[str, Any]) -> bytes:
        donor = self.donors[url]
        found = donor.manifest(question["id"]) if "id" in question else donor.offer(question["above"])
        return (await found).encode()

    async def snapshot_part(self, url: str, snapshot_id: str, number: int, offset: int) -> bytes:
        self.parts += 1
        return self.on_part(url, await self.donors[url].part(snapshot_id, number, offset))

    async def hold_log(self, url: str, node: str, index: int, seconds: float) -> None:
        self.held.append((url, index))


@pytest.fixture(autouse=True)
def _small_and_quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(donating, "PART_BYTES", 1000)
    monkeypatch.setattr(filling, "_LOOK_S", 0.001)
    monkeypatch.setattr(filling, "_PAUSES_S", (0.001,))


class Lost:
    """The node that is filled."""

    def __init__(self, folder: Path, net: Net) -> None:
        self.directory = folder / "lost"
        self.directory.mkdir(exist_ok=True)
        self.net = net
        self.lacks: int | None = 9
        self.base = 0
        self.own_holds: list[int] = []
        self.shown: list[Any] = []
        self.filling = self.again()

    def again(self) -> Filling:
        here = Here(
            self.directory,
            "lost",
            "c",
            "1",
            lambda: {name: name for name in self.net.takers},
            lambda: self.lacks,
            lambda: self.base,
            lambda who, index, seconds: self.own_holds.append(index),
        )
        self.filling = Filling(here, self.net, on_change=lambda: self.shown.append(self.filling.progress()))
        return self.filling

    async def run(self, until: Callable[[], bool] | None = None) -> None:
        running = asyncio.create_task(self.filling.run())
        try:
            async with asyncio.timeout(30):
                while not running.done() and (until is None or not until()):  # noqa: ASYNC110
                    await asyncio.sleep(0.001)
        finally:
            running.cancel()
        if running.done() and not running.cancelled():
            running.result()

    def installed(self) -> Manifest:
        assert self.filling.wanted.is_set()
        done = installing.finish(self.directory, lambda manifest: True)
        assert done is not None
        assert content(self.directory) == BIG
        return done.manifest


@pytest.fixture
def net(tmp_path: Path) -> Net:
    return Net(tmp_path, "a", "b")


@pytest.fixture
def lost(tmp_path: Path, net: Net) -> Lost:
    return Lost(tmp_path, net)


def test_it_is_filled_and_the_others_keep_their_logs(lost: Lost, net: Net) -> None:
    asyncio.run(lost.run())
    assert lost.installed().node_id == "a"
    assert set(net.held) == {("a", 9), ("b", 9)}
    assert set(lost.own_holds) == {9}
    seen = [it for it in lost.shown if it is not None]
    assert (seen[0].phase, seen[-1].phase) == ("asking", "installing")
    assert [it.bytes for it in seen if it.phase == "fetching"] == sorted(
        it.bytes for it in seen if it.phase == "fetching"
    )
    assert seen[-1].bytes == seen[-1].total == sum(map(len, BIG.values()))


def test_nothing_happens_while_nothing_is_lacking(lost: Lost, net: Net) -> None:
    lost.lacks = None
    looks = iter(range(20))
    asyncio.run(lost.run(lambda: next(looks, None) is None))
    assert not lost.filling.wanted.is_set()
    assert sum(taker.taken for taker in net.takers.values()) == 0
    assert lost.filling.progress() is None


def test_a_broken_connection_and_a_restart_go_on_where_they_were(lost: Lost, net: Net) -> None:
    came: list[int] = []
    limit = 10

    def part(node: str, data: bytes) -> bytes:
        if len(came) >= limit:
            raise Unavailable("the connection broke")
        came.append(len(data))
        return data

    net.on_part = part
    del net.takers["b"]
    asyncio.run(lost.run(lambda: net.parts > 12))
    begun = unfinished(lost.directory)
    assert begun is not None
    lost.again()  # a restart
    limit = 1000
    asyncio.run(lost.run())
    assert lost.installed() == begun
    assert net.takers["a"].taken == 1
    whole = sum(-(-len(data) // 1000) for data in BIG.values())
    assert len(came) == whole, "nothing was fetched twice"


def test_a_donor_that_dies_is_replaced(lost: Lost, net: Net) -> None:
    def part(node: str, data: bytes) -> bytes:
        if node == "a" and net.parts > 5:
            net.said["a"] = None
            raise Unavailable("gone")
        return data

    net.on_part = part
    asyncio.run(lost.run())
    assert lost.installed().node_id == "b"
    assert any(it is not None and it.trouble and "a: gone" in it.trouble for it in lost.shown)


def test_a_donor_that_forgot_takes_another(lost: Lost, net: Net) -> None:
    del net.takers["b"]

    def part(node: str, data: bytes) -> bytes:
        if net.parts == 5:
            net.takers["a"].held.clear()
            net.takers["a"].index = 12
        return data

    net.on_part = part
    asyncio.run(lost.run())
    assert lost.installed().index == 12


@pytest.mark.parametrize("wrong", ["flipped", "longer", "empty", "other"])
def test_what_is_no_part_of_the_snapshot_is_not_taken(lost: Lost, net: Net, wrong: str) -> None:
    def part(node: str, data: bytes) -> bytes:
        if node == "b" or len(data) < 500:
            return data
        return {
            "flipped": bytes([data[0] ^ 1]) + data[1:],
            "longer": data * 2,
            "empty": b"",
            "other": bytes(len(data)),
        }[wrong]

    net.on_part = part
    asyncio.run(lost.run())
    assert lost.installed().node_id == "b"


def test_damage_once_is_fetched_again(lost: Lost, net: Net) -> None:
    net.on_part = lambda node, data: data if net.parts != 5 else b"\xff" * len(data)
    asyncio.run(lost.run())
    assert lost.installed().node_id == "a"


def test_what_was_damaged_on_the_own_disk_is_fetched_again(lost: Lost, net: Net) -> None:
    del net.takers["b"]
    net.on_part = lambda node, data: data if net.parts < 25 else b""
    asyncio.run(lost.run(lambda: net.parts > 25))
    net.on_part = lambda node, data: data
    begun = unfinished(lost.directory)
    assert begun is not None
    done = [
        path
        for path in (installing.incoming(lost.directory) / begun.name / "files").rglob("*")
        if path.is_file() and path.stat().st_size
    ]
    assert done
    done[0].write_bytes(bytes(done[0].stat().st_size))
    lost.again()
    asyncio.run(lost.run())
    lost.installed()


def test_a_log_that_moved_on_asks_for_a_newer_one(lost: Lost, net: Net) -> None:
    def part(node: str, data: bytes) -> bytes:
        if net.parts == 5:
            lost.lacks = 15
            for name in net.said:
                net.takers[name].index = 15
                said = net.said[name]
                assert said is not None
                said["applied_index"] = 15
        return data

    net.on_part = part
    asyncio.run(lost.run())
    assert lost.installed().index == 15


def test_a_log_that_came_after_all_ends_it(lost: Lost, net: Net) -> None:
    def part(node: str, data: bytes) -> bytes:
        if net.parts == 5:
            lost.lacks = None
        return data

    net.on_part = part
    asyncio.run(lost.run(lambda: lost.lacks is None and lost.filling.progress() is None))
    assert not lost.filling.wanted.is_set()
    assert not installing.is_decided(lost.directory)


def test_nobody_well_is_said_and_waited_for(lost: Lost, net: Net) -> None:
    net.said = {"a": None, "b": {"healthy": False, "applied_index": 9}}

    def told() -> bool:
        shown = lost.filling.progress()
        return shown is not None and shown.phase == "waiting"

    asyncio.run(lost.run(told))
    shown = lost.filling.progress()
    assert shown is not None
    assert "a does not answer, b is not healthy" in (shown.trouble or "")


def test_no_room_is_said(lost: Lost, net: Net, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetching, "space_at", lambda path: Space(str(path), 100, 1 << 40))
    asyncio.run(lost.run(lambda: any(it is not None and it.phase == "waiting" for it in lost.shown)))
    assert any(it is not None and "free space there" in (it.trouble or "") for it in lost.shown)
    assert net.parts == 0


def test_a_refill_that_was_ordered_asks_whom_it_is_told(lost: Lost, net: Net) -> None:
    lost.lacks, lost.base = None, 4
    lost.filling.refill("b", "it differs")
    asyncio.run(lost.run())
    assert lost.installed().node_id == "b"
    assert all(it is None or it.reason == "it differs" for it in lost.shown)


def test_a_stranger_or_an_old_one_is_not_taken(lost: Lost, net: Net) -> None:
    real = net.snapshot

    async def snapshot(url: str, question: Mapping[str, Any]) -> bytes:
        made = Manifest.decode(await real(url, question))
        if url == "a":
            return Manifest(made.name, "other", "a", 9, 2, b"", 0, made.files).encode()
        return made.encode()

    net.snapshot = snapshot  # type: ignore[method-assign]
    asyncio.run(lost.run())
    assert lost.installed().node_id == "b"


# ---------------------------------------------------------------------- the donor


def test_who_asks_shortly_after_another_gets_the_same(net: Net) -> None:
    async def ask() -> list[Manifest]:
        donor = net.donors["a"]
        both = await asyncio.gather(donor.offer(0), donor.offer(0))
        return [*both, await donor.offer(9)]

    found = asyncio.run(ask())
    assert found[0] == found[1] == found[2]
    assert net.takers["a"].taken == 1


def test_an_old_one_is_not_given_again_and_a_low_one_refused(tmp_path: Path) -> None:
    taker, now = Kept(tmp_path, "a"), [0.0]
    why: list[str | None] = [None]
    donor = Donor(taker, lambda: why[0], clock=lambda: now[0])  # type: ignore[arg-type]

    async def ask() -> None:
        first = await donor.offer(0)
        now[0] += 61
        assert await donor.offer(0) != first
        with pytest.raises(Unavailable, match="applied 9 only"):
            await donor.offer(10)
        now[0] += 61
        why[0] = "it is broken."
        with pytest.raises(Unavailable, match="it is broken"):
            await donor.offer(0)

    asyncio.run(ask())


@pytest.mark.parametrize(("number", "offset"), [(-1, 0), (99, 0), (0, -1), (0, 1 << 40)])
def test_there_is_no_such_part(net: Net, number: int, offset: int) -> None:
    async def ask() -> None:
        found = await net.donors["a"].offer(0)
        with pytest.raises(Refusal, match="no such file or offset"):
            await net.donors["a"].part(found.name, number, offset)
        with pytest.raises(Refusal, match="keeps no snapshot"):
            await net.donors["a"].part("../../etc", 0, 0)

    asyncio.run(ask())
