"""A full disk is named as such, whoever noticed it and in whatever words."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from cluster.disk import MEBIBYTE, DiskFull, Space, explained, machine_fault, space_at, unwritable
from cluster.errors import EngineDied, Fault

if TYPE_CHECKING:
    from pathlib import Path

GIB = 1024 * MEBIBYTE
FULL = Space("/data", 4096, GIB)
ROOMY = Space("/data", 900 * MEBIBYTE, GIB)


@pytest.mark.parametrize(
    "text",
    [
        "This node's Chroma failed to apply log entry 4: InternalError: Error in compaction: ...",
        "the journal could not be written or read (OSError: [Errno 28] No space left on device)",
        "This node cannot write its state file: database or disk is full",
    ],
)
def test_a_full_disk_is_the_cause_that_is_told(text: str) -> None:
    told = explained(Fault(text), FULL)
    assert isinstance(told, DiskFull)
    assert told.message == f"The disk is full: 4096 bytes are free at /data. What failed: {text}"


def test_room_that_is_there_is_not_called_full() -> None:
    vague = Fault("Error in compaction")
    assert explained(vague, ROOMY) is vague
    sure = explained(Fault("database or disk is full"), ROOMY)
    assert not isinstance(sure, DiskFull)
    assert "quotas" in sure.message
    damaged = Fault("The journal is damaged: a checksum does not match.")
    assert explained(damaged, FULL) is damaged, "that is no matter of room"
    assert explained(vague, None) is vague


def test_it_is_tried_again_only_with_a_margin() -> None:
    for total in (16 * MEBIBYTE, GIB, 1024 * GIB):
        frees = [total * share // 1000 for share in range(1001)]
        assert not any(Space("", free, total).is_short and Space("", free, total).is_enough for free in frees)
        assert Space("", 0, total).is_short
        assert Space("", total, total).is_enough


def test_the_file_system_is_asked(tmp_path: Path) -> None:
    found = space_at(tmp_path)
    assert found is not None
    assert 0 <= found.free <= found.total
    assert space_at(tmp_path / "gone") is None


@pytest.mark.parametrize(
    "failure", [Fault("Error in compaction"), EngineDied("crashed with SIGBUS", proven=True)]
)
def test_a_full_disk_explains_any_failure_in_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, failure: Fault | EngineDied
) -> None:
    assert machine_fault(failure, tmp_path) is None
    monkeypatch.setattr("cluster.disk.space_at", lambda _: FULL)
    fault = machine_fault(failure, tmp_path)
    assert isinstance(fault, DiskFull)
    assert failure.message in fault.message
    assert explained(fault, FULL) is fault, "it is not explained twice"


@pytest.mark.parametrize("call", ["open", "write", "fsync"])
def test_what_cannot_be_written_explains_any_failure(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, call: str
) -> None:
    def fail(*_: object) -> int:
        raise OSError(5, "Input/output error")

    (tmp_path / "index").mkdir()
    (tmp_path / "index" / "data.bin").touch()
    assert unwritable(tmp_path) is None
    assert [path.name for path in tmp_path.iterdir()] == ["index"], "nothing is left behind"
    monkeypatch.setattr(f"os.{call}", fail)
    fault = machine_fault(Fault("Error in compaction"), tmp_path)
    assert fault is not None
    assert "Input/output error" in fault.message


def test_rights_of_a_single_file_are_looked_at(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "index").mkdir()
    (tmp_path / "index" / "data.bin").touch()
    monkeypatch.setattr("os.access", lambda path, mode: "data.bin" not in str(path))
    assert "data.bin is not writable" in str(unwritable(tmp_path))
    assert unwritable(tmp_path / "gone") is not None
