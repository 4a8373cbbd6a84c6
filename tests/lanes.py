"""How `make test` spreads the suite over processes: which test file goes to which, and which come first.

One worker computes (unit tests, the simulation), the others start clusters. Those wait most of the time, for
elections or for a node to start, so that two of them share the processors well; the one that computes takes
what they leave, at a low priority, so that it slows down no election. A file is one piece of work: its tests
share a cluster.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

COMPUTING: Final = "gw0"
"""The worker that computes, in xdist's words; all others start clusters."""

NICENESS: Final = 10

LONG: Final = (
    "tests/simulation/test_seeds.py",
    "tests/simulation/",
    "tests/integration/test_containers.py",
    "tests/integration/test_failpoints.py",
    "tests/integration/test_faults.py",
    "tests/integration/test_differential.py",
    "tests/integration/test_evaluation_faults.py",
    "tests/integration/test_poison.py",
    "tests/integration/test_up_down.py",
)
"""What takes longest comes first, lest the others end and wait for it."""


def scope_of(test: str) -> str:
    """The file of a test."""
    return test.partition("::")[0]


def computes(file: str) -> bool:
    """Does this file compute, rather than start processes and wait for them?"""
    return file.startswith(("tests/unit/", "tests/simulation/"))


def rank(file: str) -> int:
    """Files of a smaller rank come first."""
    return next((at for at, prefix in enumerate(LONG) if file.startswith(prefix)), len(LONG))


def lane(worker: str, files: Iterable[str]) -> bool:
    """Does this worker compute, in a run of these files? Not if they all start clusters."""
    return worker == COMPUTING and any(computes(file) for file in files)


def choose(files: list[str], *, computing: bool) -> str | None:
    """Which of the `files` that nobody has begun a worker of this lane is to do; None: nothing any more.

    What starts clusters is never left to the worker that computes, whose low priority its nodes would
    inherit. The other way round it is welcome.
    """
    fitting = [file for file in files if computes(file) == computing]
    if not fitting and not computing:
        fitting = files
    return fitting[0] if fitting else None
