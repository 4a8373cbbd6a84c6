"""Of interest to a run in several processes only (`make test`): see `tests/lanes.py`."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from tests.lanes import COMPUTING, NICENESS, rank, scope_of

if TYPE_CHECKING:
    from tests.scheduling import LaneScheduling


def _worker(config: pytest.Config) -> str | None:
    """Which of several processes this is; None if it is the only one, or the one that starts the others."""
    given: dict[str, str] | None = getattr(config, "workerinput", None)
    return given["workerid"] if given else None


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if _worker(config) is not None:
        items.sort(key=lambda item: rank(scope_of(item.nodeid)))


def pytest_collection_finish(session: pytest.Session) -> None:
    # Not before: the others wait until every worker has collected.
    if _worker(session.config) == COMPUTING:
        os.nice(NICENESS)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config) -> LaneScheduling:
    from tests.scheduling import LaneScheduling

    config.option.loadscopereorder = False  # they are in order already
    return LaneScheduling(config)
