"""Conflicts wait for an operator: concurrent versions stay where they are, neither side wins. Pure.

Vector clocks find the conflicts. Until the decision the members answer differently, each with its own
version, and go on taking writes to it.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from evaluation.systems.naive.strategy import Queue, Spread, fold
from evaluation.systems.naive.vector_clock import Sibling, Siblings, VectorClocks, dominates, join

if TYPE_CHECKING:
    from collections.abc import Mapping


class ManualQueue(VectorClocks):
    """A member's state is always one version. Merging takes a version only if it has seen the member's own:
    idempotent, but for concurrent versions neither commutative nor converging. That is its point."""

    name = "manual"

    def merge(self, a: Siblings, b: Siblings) -> Siblings:
        return b if dominates(b[0].clock, a[0].clock) and b[0].clock != a[0].clock else a

    def decide(self, states: Mapping[str, Siblings]) -> Spread | Queue:
        merged = fold(VectorClocks(), states)
        return Spread(merged) if len(merged) == 1 else Queue(dict(states))


def resolved(states: Mapping[str, Siblings], winner: str) -> Siblings:
    """The operator's decision: the version of `winner`, made to have seen all others."""
    chosen: Sibling = states[winner][0]
    clock = join(version.clock for state in states.values() for version in state)
    clock["operator"] = clock.get("operator", 0) + 1
    return (replace(chosen, clock=clock),)
