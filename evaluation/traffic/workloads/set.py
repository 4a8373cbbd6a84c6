"""Many adds to a collection, and reads of all of it: what is lost, there twice, or never added."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from evaluation.history import Action, Fate
from evaluation.traffic.decision import Decision, Session

if TYPE_CHECKING:
    import random


class Set:
    """One collection after the other: reading all of a large one would take most of the time."""

    name = "set"

    def __init__(self, sets: int = 5, most_adds: int = 150) -> None:
        self.collections = tuple(f"set-{number}" for number in range(sets))
        self._most_adds = most_adds
        self._added = 0

    def next(self, session: Session, rng: random.Random) -> Decision:
        current = min(self._added // self._most_adds, len(self.collections) - 1)
        chance = rng.random()
        if chance < 0.66:
            self._added += 1
            return Decision(self.name, Action.ADD, self.collections[current], f"e{self._added}")
        key = self.collections[rng.randint(0, current) if rng.random() < 0.1 else current]
        return Decision(self.name, Action.GET_ALL if chance < 0.84 else Action.COUNT, key)

    def answered(self, session: Session, decision: Decision, outcome: Fate, value: Any) -> None:
        """Adds are of new ids always: nothing follows from an answer."""

    def final(self) -> list[Decision]:
        return [
            Decision(self.name, action, key)
            for key in self.collections
            for action in (Action.GET_ALL, Action.COUNT)
        ]
