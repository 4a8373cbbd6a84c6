"""Every deliberate bug is found; how many seeds each takes is in docs/simulation.md."""

from __future__ import annotations

import pytest

from tests.simulation.courses import COURSES, Course
from tests.simulation.mutation_table import finds
from tests.simulation.mutations import MUTATIONS

SLOW = {"commit-old-term-by-count", "no-stickiness", "token-from-marker"}
"""Bugs that need a rare course of events; `make soak` looks for them."""


@pytest.mark.parametrize("name", sorted(MUTATIONS.keys() - SLOW - COURSES.keys()))
def test_the_bug_is_found(name: str) -> None:
    assert finds(MUTATIONS[name], limit=250), f"250 seeds did not find {name}"


@pytest.mark.soak
@pytest.mark.timeout(0)
@pytest.mark.parametrize("name", sorted(SLOW))
def test_the_rare_bug_is_found(name: str) -> None:
    assert finds(MUTATIONS[name], limit=5000), f"5000 seeds did not find {name}"


@pytest.mark.parametrize("course", sorted(set(COURSES.values()), key=lambda course: course.__name__))
def test_a_course_ends_well_without_a_bug(course: Course) -> None:
    assert course(None) is None


@pytest.mark.parametrize("name", sorted(COURSES))
def test_the_course_shows_the_bug(name: str) -> None:
    assert COURSES[name](name) is not None
