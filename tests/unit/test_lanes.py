"""How the suite is spread over processes: every file is run, what starts clusters never at low priority."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.lanes import COMPUTING, LONG, choose, computes, lane, rank, scope_of

ROOT = Path(__file__).parents[2]
FILES = sorted(str(path.relative_to(ROOT)) for path in (ROOT / "tests").rglob("test_*.py"))


def spread(files: list[str], workers: list[str]) -> dict[str, list[str]]:
    """What each worker does when they take turns."""
    left, done = sorted(files, key=rank), {worker: list[str]() for worker in workers}
    while chosen := [
        (worker, file) for worker in workers if (file := choose(left, computing=lane(worker, files)))
    ]:
        worker, file = min(chosen, key=lambda pair: len(done[pair[0]]))
        done[worker].append(file)
        left.remove(file)
    assert left == []
    return done


@pytest.mark.parametrize("workers", [[COMPUTING, "gw1"], [COMPUTING, "gw1", "gw2"], ["gw1", "gw3"]])
def test_every_file_is_done_and_what_starts_clusters_never_at_low_priority(workers: list[str]) -> None:
    done = spread(FILES, workers)
    assert sorted(file for files in done.values() for file in files) == FILES
    assert all(computes(file) for file in done.get(COMPUTING, []))
    assert all(files for files in done.values())


def test_a_worker_that_starts_clusters_helps_to_compute_when_there_are_none_left() -> None:
    assert choose(["tests/unit/test_a.py"], computing=False) == "tests/unit/test_a.py"
    assert (
        choose(["tests/unit/test_a.py", "tests/integration/test_b.py"], computing=False)
        == "tests/integration/test_b.py"
    )
    assert choose(["tests/integration/test_b.py"], computing=True) is None


def test_the_long_ones_exist_and_come_first() -> None:
    for at, prefix in enumerate(LONG):
        assert any(rank(file) == at for file in FILES), prefix
    assert rank("tests/unit/test_lanes.py") == len(LONG)


def test_a_file_is_one_piece_of_work() -> None:
    assert scope_of("tests/unit/test_lanes.py::test_a[b::c]") == "tests/unit/test_lanes.py"


def test_no_property_fails_because_the_machine_is_busy() -> None:
    assert settings().deadline is None
    assert HealthCheck.too_slow in settings().suppress_health_check


def test_without_anything_to_compute_all_workers_start_clusters() -> None:
    files = [file for file in FILES if not computes(file)]
    assert not lane(COMPUTING, files)
    assert all(spread(files, [COMPUTING, "gw1", "gw2"]).values())
