"""Collections created and deleted by everybody, under few names."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from evaluation.history import Action, Fate
from evaluation.traffic.decision import Decision, KeyPool, Session

if TYPE_CHECKING:
    import random

_KINDS = (Action.CREATE, Action.DROP, Action.EXISTS)


class Catalogue:
    """Collections are dear to make, so there are few of them, and few operations on each."""

    name = "catalogue"
    collections: tuple[str, ...] = ()

    def __init__(self, names: int = 3) -> None:
        self._pool = KeyPool("cat", size=names, most_operations=25, most_unknown=3)

    def next(self, session: Session, rng: random.Random) -> Decision:
        return Decision(self.name, rng.choices(_KINDS, (3, 2, 5))[0], self._pool.choose(rng))

    def answered(self, session: Session, decision: Decision, outcome: Fate, value: Any) -> None:
        if decision.action.is_write and outcome is Fate.UNKNOWN:
            self._pool.unknown(decision.key)

    def final(self) -> list[Decision]:
        return [Decision(self.name, Action.EXISTS, key) for key in self._pool.keys]
