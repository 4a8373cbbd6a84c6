"""What a donor copies: whole, of one moment, kept for as long as it is fetched."""

from __future__ import annotations

import os
import sqlite3
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

import pytest

from cluster.apply.store import Marker, Store
from cluster.disk import Space
from cluster.errors import Fault, Unavailable
from cluster.snapshot import files, taking
from cluster.snapshot.manifest import Manifest
from cluster.snapshot.taking import Source, Taker
from cluster.state.catalog import Change

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


class Donor:
    """A node's directory, whose applier stands at `index` and lets everybody in at once."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.index = 7
        self.now = 1000.0
        self.sizes: list[int] = []
        self.lets_in = True
        (directory / "chroma" / "uuid").mkdir(parents=True)
        self.write("chroma/chroma.sqlite3", b"database")
        self.write("chroma/uuid/data.bin", bytes(3_000_000))
        self.store = Store(directory / "state.sqlite")
        self.store.write([Change("k", b"v")], 7)
        self.taker = self.make()

    def make(self, node: str = "node-1") -> Taker:
        source = Source(
            self.directory,
            "c",
            node,
            self.visit,
            self.store.copy_to,
            lambda index: 3,
            lambda index: b"members",
            on_taken=self.sizes.append,
        )
        return Taker(source, clock=lambda: self.now)

    def visit(self, look: Callable[[int], Any], at: int | None) -> Future[Any]:
        future: Future[Any] = Future()
        if not self.lets_in:
            return future
        future.set_running_or_notify_cancel()
        try:
            future.set_result(look(self.index))
        except Exception as error:
            future.set_exception(error)
        return future

    def write(self, name: str, data: bytes) -> None:
        (self.directory / name).write_bytes(data)
        past = 1_000_000_000
        os.utime(self.directory / name, ns=(past, past))

    def left(self) -> list[str]:
        folder = self.directory / "snapshots"
        return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


@pytest.fixture
def donor(tmp_path: Path) -> Donor:
    return Donor(tmp_path)


def test_all_of_it_and_nothing_else(donor: Donor) -> None:
    (donor.directory / "raft.sqlite").write_bytes(b"not this")
    found = donor.taker.take()
    assert (found.index, found.term, found.configuration, found.node_id) == (7, 3, b"members", "node-1")
    assert [file.path for file in found.files] == [
        "chroma/chroma.sqlite3",
        "chroma/uuid/data.bin",
        "state.sqlite",
    ]
    for file in found.files:
        path = donor.taker.path_of(found.name, file)
        assert (path.stat().st_size, files.sum_of(path)) == (file.size, file.checksum)
    copy = Store(donor.taker.path_of(found.name, found.files[2]))
    assert (copy.marker(), copy.items()) == (Marker(7, 0), [("k", b"v")])
    copy.close()
    assert donor.sizes == [found.size]
    assert Manifest.decode((donor.directory / "snapshots" / found.name / "manifest").read_bytes()) == found


def test_the_state_has_no_log_beside_it(donor: Donor) -> None:
    found = donor.taker.take()
    path = donor.taker.path_of(found.name, found.files[-1])
    with sqlite3.connect(path) as db:
        assert db.execute("PRAGMA journal_mode").fetchone() == ("delete",)
    db.close()
    assert [it.name for it in path.parent.iterdir() if it.is_file()] == ["state.sqlite"]


@pytest.mark.parametrize("change", ["content", "new file", "hot journal", "gone"])
def test_files_that_change_meanwhile_are_copied_again(
    donor: Donor, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    copied: list[str] = []
    real = files.copy

    def copy(source: Path, target: Path) -> None:
        real(source, target)
        copied.append(source.name)
        if len(copied) == 1:
            match change:
                case "content":
                    (donor.directory / "chroma/chroma.sqlite3").write_bytes(b"DATABASE")
                case "new file":
                    (donor.directory / "chroma/uuid/more.bin").write_bytes(b"more")
                case "hot journal":
                    donor.write("chroma/chroma.sqlite3-journal", b"hot")
                case _:
                    (donor.directory / "chroma/uuid/data.bin").unlink()
        elif len(copied) == 4 and change == "hot journal":
            (donor.directory / "chroma/chroma.sqlite3-journal").unlink()

    monkeypatch.setattr(files, "copy", copy)
    found = donor.taker.take()
    for file in found.files[:-1]:
        held = donor.taker.path_of(found.name, file).read_bytes()
        assert held == (donor.directory / file.path).read_bytes()
    assert {file.path for file in found.files[:-1]} == {
        f"chroma/{path}" for path in files.listed(donor.directory / "chroma")
    }


def test_files_that_never_rest_are_no_snapshot(donor: Donor, monkeypatch: pytest.MonkeyPatch) -> None:
    real = files.copy

    def copy(source: Path, target: Path) -> None:
        real(source, target)
        (donor.directory / "chroma/chroma.sqlite3").write_bytes(os.urandom(9))

    monkeypatch.setattr(files, "copy", copy)
    with pytest.raises(Fault, match="changed again and again"):
        donor.taker.take()
    assert donor.left() == []


def test_a_failed_copy_leaves_nothing(donor: Donor, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(source: Path, target: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files, "copy", full)
    with pytest.raises(Fault, match="No space left"):
        donor.taker.take()
    assert donor.left() == []


def test_without_room_nothing_is_begun(donor: Donor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(taking, "space_at", lambda path: Space(str(path), 60 * 1024 * 1024, 1 << 40))
    with pytest.raises(Unavailable, match="free space there"):
        donor.taker.take()
    assert donor.left() == []


def test_an_applier_that_does_not_come_is_not_waited_for(donor: Donor) -> None:
    donor.lets_in = False
    with pytest.raises(Unavailable, match="did not come to the end of an entry"):
        donor.taker.take(timeout_s=0.01)


def test_the_newest_is_kept_and_what_is_being_fetched(donor: Donor) -> None:
    first = donor.taker.take()
    donor.index = 8
    second = donor.taker.take()
    assert donor.taker.newest() == second
    donor.now += 50
    assert donor.taker.find(first.name) == first, "it is being fetched"
    donor.now += 50
    donor.taker.tidy()
    assert donor.left() == sorted([first.name, second.name])
    donor.now += 61
    donor.taker.tidy()
    assert donor.left() == [second.name]
    assert donor.taker.find(first.name) is None
    donor.now += 600
    donor.taker.tidy()
    assert donor.left() == []
    assert donor.taker.newest() is None
    assert donor.sizes == [first.size, second.size, 0], "the log need not be as long any more"


def test_a_restart_keeps_what_is_whole_and_removes_the_rest(donor: Donor) -> None:
    found = donor.taker.take()
    folder = donor.directory / "snapshots"
    (folder / ".unfinished" / "files").mkdir(parents=True)
    (folder / "9-damaged").mkdir()
    (folder / "9-damaged" / "manifest").write_bytes(b"x")
    (folder / "9-moved").mkdir()
    (folder / "9-moved" / "manifest").write_bytes(found.encode())
    again = donor.make()
    assert again.find(found.name) == found
    assert donor.left() == [found.name]
    assert donor.make("node-2").newest() is None, "another node's"
    assert donor.left() == []


def test_without_the_kernels_help_files_are_copied_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unable(*arguments: int) -> int:
        raise OSError(18, "Invalid cross-device link")

    (tmp_path / "a").write_bytes(os.urandom(3_000_000))
    monkeypatch.setattr(os, "copy_file_range", unable)
    files.copy(tmp_path / "a", tmp_path / "b")
    assert (tmp_path / "b").read_bytes() == (tmp_path / "a").read_bytes()
