"""The weak systems are convicted of what they are known for; else silence about others means nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from evaluation.run import matrix
from evaluation.run.matrix import Result
from tests.chaos.theatre import Theatre

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

DEFAULT = (
    ("naive-lww", "minority-isolated"),
    ("postgres-async", "leader-isolated"),
    ("postgres-quorum", "minority-isolated"),
    ("shared-dir", "kill-follower"),
)


def _cells() -> list[object]:
    known = [(each.system, fault) for each in matrix.CONVICTIONS for fault in each.faults]
    assert set(DEFAULT) <= set(known), "a conviction of the default suite is gone: correct this test"
    rest = [cell for cell in dict.fromkeys(known) if cell not in DEFAULT]
    return [*DEFAULT, *(pytest.param(*cell, marks=pytest.mark.chaos) for cell in rest)]


@pytest.mark.parametrize(("system", "fault"), _cells())
def test_a_weak_system_is_convicted(system: str, fault: str, tmp_path: Path) -> None:
    theatre = Theatre(system)
    try:
        judged = theatre.play(fault, tmp_path)
    finally:
        theatre.close()
    # What it does promise (a fenced Postgres has one primary) it must keep all the same.
    assert judged.conclusion.result is Result.CONVICTED, judged.story()
