"""Single documents written and read by everybody: `add`, `upsert`, `update`, `delete`, `get`, `get_where`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from evaluation.history import Action, Fate
from evaluation.traffic.decision import Decision, KeyPool, Session

if TYPE_CHECKING:
    import random

_KINDS = (Action.UPSERT, Action.ADD, Action.UPDATE, Action.DELETE, Action.GET, Action.GET_WHERE)
_WEIGHTS = (25, 5, 6, 7, 45, 12)


class Register:
    """A dozen documents at a time; each value is written once in the run."""

    name = "register"
    collections = ("register",)

    def __init__(self, keys: int = 10) -> None:
        self._pool = KeyPool("r", size=keys, most_operations=60, most_unknown=5)
        self._written = 0
        self._own: dict[str, str] = {}

    def next(self, session: Session, rng: random.Random) -> Decision:
        mine = self._own.pop(session.name, None)
        if mine is not None and rng.random() < 0.4:
            return Decision(self.name, Action.GET, mine)
        action = rng.choices(_KINDS, _WEIGHTS)[0]
        if not action.is_write:
            old = self._pool.any_old(rng) if rng.random() < 0.06 else None
            return Decision(self.name, action, old or self._pool.choose(rng))
        key = self._pool.choose(rng)
        if action is Action.DELETE:
            return Decision(self.name, action, key)
        self._written += 1
        return Decision(self.name, action, key, f"v{self._written}")

    def answered(self, session: Session, decision: Decision, outcome: Fate, value: Any) -> None:
        if decision.action.is_write:
            if outcome is Fate.UNKNOWN:
                self._pool.unknown(decision.key)
            elif outcome is Fate.OK:
                self._own[session.name] = decision.key

    def final(self) -> list[Decision]:
        return [Decision(self.name, Action.GET, key) for key in self._pool.keys]
