"""The figures of snapshots are read from what a node really logs."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from evaluation.costs.snapshots import taken
from tests.unit.test_snapshot_taking import Donor

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def test_the_line_of_a_donor_is_understood(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    donor = Donor(tmp_path)
    with caplog.at_level(logging.INFO):
        manifest = donor.taker.take()
    formatter = logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s")
    log = "\n".join(["another line", *map(formatter.format, caplog.records), "and one more"])
    assert taken(log) == [{"bytes": manifest.size, "donor_pause_ms": 0}]
    assert taken("another line") == []
