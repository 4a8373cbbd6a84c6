"""Writes on which engines fail: which, on which nodes, how, and until when."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from cluster.state.commands import WriteRecords

if TYPE_CHECKING:
    import random
    from collections.abc import Sequence

    from cluster.state.commands import Command

#: Documents that begin so are poison.
MARK = "poison"

Kind = Literal["all", "some", "passing"]
Way = Literal["raises", "dies-after", "breaks"]
"""`raises`: nothing is done. `dies-after`: all is done, then the engine fails. `breaks`: nothing is done, and
the collection cannot be read from then on."""


@dataclass(frozen=True)
class PoisonPlan:
    """`all`: engines fail on every node, for ever. `some`: on some nodes, until the faults end. `passing`: on
    every node, until a moment of its own. `chance` is the part of the writes that are poison."""

    kind: Kind
    chance: float
    wait_ms: float


def poison_plan(rng: random.Random) -> PoisonPlan | None:
    """Of one seed; most have none."""
    if rng.random() < 0.65:
        return None
    kind: Kind = rng.choice(("all", "all", "some", "passing"))
    # A member that cannot be reached may have the write only if engines do not fail for ever on every node.
    wait_ms = rng.choice((500.0, 1500.0)) if kind == "all" else float("inf")
    return PoisonPlan(kind, rng.choice((0.02, 0.1)), wait_ms)


@dataclass(frozen=True, slots=True)
class Dose:
    """Of one poison write: what it does, and on each node until when."""

    way: Way
    until_s: dict[str, float]


class Poison:
    """All of one run's."""

    def __init__(self, plan: PoisonPlan | None, ids: Sequence[str], rng: random.Random) -> None:
        self.plan = plan
        self._ids = tuple(ids)
        self._rng = rng
        self._doses: dict[str, Dose] = {}
        self._is_over = False
        self.broken: set[tuple[str, str]] = set()
        """(node, collection) that cannot be read any more."""

    def wants(self) -> bool:
        """Whether the next write of records is to be poison."""
        return self.plan is not None and not self._is_over and self._rng.random() < self.plan.chance

    def brew(self, name: str, now_s: float) -> str:
        """The document of a new poison write."""
        assert self.plan is not None
        document = f"{MARK}.{name}"
        forever = float("inf")
        nodes = self._ids
        if self.plan.kind == "some":
            nodes = tuple(self._rng.sample(self._ids, self._rng.randrange(1, len(self._ids))))
        ends = {
            node: now_s + self._rng.uniform(0.1, 3.0) if self.plan.kind == "passing" else forever
            for node in nodes
        }
        way: Way = self._rng.choice(("raises", "raises", "dies-after", "breaks"))
        if self.plan.kind != "all":
            way = "raises" if way == "breaks" else way
        self.add(document, way, ends)
        return document

    def add(self, document: str, way: Way, until_s: dict[str, float]) -> None:
        """From now on writes with this document are poison, by node until a moment of simulated time."""
        self._doses[document] = Dose(way, until_s)

    def heal(self) -> None:
        """What is not for ever on every node is over."""
        self._is_over = True

    def is_poison(self, command: Command) -> bool:
        """Whether engines fail on it, or once did."""
        return isinstance(command, WriteRecords) and any(
            document in self._doses for document in command.documents or ()
        )

    def effect(self, node: str, command: Command, now_s: float) -> Way | None:
        """What the call does to this node's engine."""
        if self.plan is None or not isinstance(command, WriteRecords):
            return None
        for document in command.documents or ():
            dose = self._doses.get(document) if document is not None else None
            if dose is None or (self._is_over and self.plan.kind != "all"):
                continue
            if now_s < dose.until_s.get(node, 0.0):
                return dose.way
        return None
