"""Deliberate bugs."""

from tests.simulation.parts import Parts


def parts_of(name: str | None) -> Parts:
    return Parts()
