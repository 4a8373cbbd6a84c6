"""What holds for all tests, and how a run in several processes is spread over them (`tests/lanes.py`)."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import hypothesis
import pytest

from tests.lanes import NICENESS, lane, rank, scope_of

if TYPE_CHECKING:
    from xdist.remote import Producer

    from tests.scheduling import LaneScheduling

# No test asserts a speed, hypothesis neither: a machine that is busy with clusters is slow at times.
hypothesis.settings.register_profile(
    "unhurried", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("unhurried")


def _worker(config: pytest.Config) -> str | None:
    """Which of several processes this is; None if it is the only one, or the one that starts the others."""
    given: dict[str, str] | None = getattr(config, "workerinput", None)
    return given["workerid"] if given else None


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if _worker(config) is not None:
        items.sort(key=lambda item: rank(scope_of(item.nodeid)))


def pytest_collection_finish(session: pytest.Session) -> None:
    # Not before: the others wait until every worker has collected.
    worker = _worker(session.config)
    if worker and lane(worker, (scope_of(item.nodeid) for item in session.items)):
        os.nice(NICENESS)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> LaneScheduling:
    from tests.scheduling import LaneScheduling

    config.option.loadscopereorder = False  # they are in order already
    return LaneScheduling(config, log)
