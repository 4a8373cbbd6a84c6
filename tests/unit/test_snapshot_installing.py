"""An install that ends at any step is finished by the next start, and never leaves half of a state."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from cluster.errors import Fault
from cluster.failpoint import NAMES
from cluster.lock import DirectoryLock
from cluster.snapshot import files, installing
from cluster.snapshot.manifest import File, Manifest, checksum

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

OLD = {
    "state.sqlite": b"old state",
    "state.sqlite-wal": b"old log of the state",
    "state.sqlite-shm": b"old index of that log",
    "chroma/chroma.sqlite3": b"old database",
    "chroma/old-index/data.bin": b"old index",
    "raft.sqlite": b"journal",
}
NEW = {
    "state.sqlite": b"new state",
    "chroma/chroma.sqlite3": b"new database",
    "chroma/new-index/data.bin": b"new index",
}
POINTS = [point for point in NAMES if point.startswith("install.")]


class Killed(BaseException):
    """The process is gone."""


def lay(folder: Path, content: dict[str, bytes]) -> None:
    for name, data in content.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)


def content(folder: Path) -> dict[str, bytes]:
    return {
        name: (folder / name).read_bytes()
        for name in files.listed(folder)
        if "LOCK" not in name and name != "ahead"
    }


def fetched(directory: Path, name: str = "9-ab", new: dict[str, bytes] | None = None) -> Manifest:
    new = NEW if new is None else new
    manifest = Manifest(
        name,
        "c",
        "b",
        9,
        2,
        b"",
        0,
        tuple(File(path, len(data), checksum(data)) for path, data in new.items()),
    )
    folder = installing.incoming(directory) / name
    lay(folder / "files", new)
    (folder / "files" / "chroma").mkdir(exist_ok=True)
    (folder / "manifest").write_bytes(manifest.encode())
    return manifest


@pytest.fixture
def node(tmp_path: Path) -> Path:
    lay(tmp_path, OLD)
    return tmp_path


class Log:
    """Remembers what it was reset to."""

    def __init__(self, *, fits: bool = True) -> None:
        self.resets: list[int] = []
        self._fits = fits

    def reset(self, manifest: Manifest) -> bool | None:
        if not self._fits:
            return None
        self.resets.append(manifest.index)
        return len(self.resets) == 1


def killed_at(monkeypatch: pytest.MonkeyPatch, point: str, run: Callable[[], object]) -> bool:
    """Whether `run` came to the point and was killed there."""

    def reach(name: str) -> None:
        if name == point:
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(installing, "failpoint", reach)
        try:
            run()
        except Killed:
            return True
    return False


def test_an_install_puts_all_in_place_and_leaves_nothing_behind(node: Path) -> None:
    manifest, log = fetched(node), Log()
    (node / "snapshots" / "3-old").mkdir(parents=True)
    assert installing.finish(node, log.reset) is None, "not decided"
    assert content(node / "chroma")["chroma.sqlite3"] == b"old database"
    installing.decide(node, manifest.name)
    assert installing.is_decided(node)
    done = installing.finish(node, log.reset)
    assert done is not None
    assert (done.manifest, done.log_was_reset) == (manifest, True)
    assert content(node) == {**NEW, "raft.sqlite": b"journal"}
    assert not (node / "snapshots").exists()
    assert installing.finish(node, log.reset) is None
    assert log.resets == [9]


@pytest.mark.parametrize("second", [None, *POINTS])
@pytest.mark.parametrize("point", POINTS)
def test_killed_at_any_step_and_again(
    node: Path, monkeypatch: pytest.MonkeyPatch, point: str, second: str | None
) -> None:
    manifest, log = fetched(node), Log()

    def whole() -> None:
        installing.decide(node, manifest.name)
        installing.finish(node, log.reset)

    assert killed_at(monkeypatch, point, whole)
    if point == "install.before_decision":
        assert {name: data for name, data in content(node).items() if name in OLD} == OLD
        assert not installing.is_decided(node)
        return
    if second is not None:
        killed_at(monkeypatch, second, lambda: installing.finish(node, log.reset))
    installing.finish(node, log.reset)
    assert content(node) == {**NEW, "raft.sqlite": b"journal"}
    assert set(log.resets) == {9}


def test_a_wiped_node_without_any_files_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for point in POINTS[1:]:
        node = tmp_path / point
        manifest = fetched(node)

        def whole(node: Path = node, manifest: Manifest = manifest) -> None:
            installing.decide(node, manifest.name)
            installing.finish(node, Log().reset)

        assert killed_at(monkeypatch, point, whole) or point == "install.chroma_set_aside", point
        installing.finish(node, Log().reset)
        assert content(node) == NEW


def test_a_snapshot_of_an_empty_chroma(node: Path) -> None:
    manifest = fetched(node, new={"state.sqlite": b"new"})
    installing.decide(node, manifest.name)
    installing.finish(node, Log().reset)
    assert content(node) == {"state.sqlite": b"new", "raft.sqlite": b"journal"}


def test_what_does_not_fit_the_log_is_dropped(node: Path) -> None:
    manifest = fetched(node)
    installing.decide(node, manifest.name)
    assert installing.finish(node, Log(fits=False).reset) is None
    assert content(node) == OLD
    assert not installing.is_decided(node)


def test_a_journal_that_contradicts_stops_the_start_and_keeps_all(node: Path) -> None:
    def contradict(manifest: Manifest) -> bool:
        raise Fault("they contradict each other")

    manifest = fetched(node)
    installing.decide(node, manifest.name)
    with pytest.raises(Fault, match="contradict"):
        installing.finish(node, contradict)
    assert {name: data for name, data in content(node).items() if name in OLD} == OLD


@pytest.mark.parametrize("marker", [b"", b"{}", b"[]", b'{"id": "../x"}', b'{"id": "9-gone"}', b"\xff"])
def test_a_marker_that_means_nothing_is_said(node: Path, marker: bytes) -> None:
    fetched(node)
    (node / "install.json").write_bytes(marker)
    with pytest.raises(Fault, match="move the whole directory away"):
        installing.finish(node, Log().reset)
    assert {name: data for name, data in content(node).items() if name in OLD} == OLD


def test_an_engine_that_outlived_its_node_is_waited_for(node: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    manifest = fetched(node)
    installing.decide(node, manifest.name)
    monkeypatch.setattr(installing, "_ENGINE_WAIT_S", 0.1)
    held = DirectoryLock(node, "ENGINE.LOCK")
    with pytest.raises(Fault, match="in use by"):
        installing.finish(node, Log().reset)
    assert (node / "chroma/chroma.sqlite3").read_bytes() == b"old database", "it may still write there"
    held.release()
    assert installing.finish(node, Log().reset) is not None
