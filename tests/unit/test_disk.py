"""A full disk is named as such, whoever noticed it and in whatever words."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from cluster.disk import MEBIBYTE, DiskFull, Space, explained, space_at
from cluster.errors import Fault

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
