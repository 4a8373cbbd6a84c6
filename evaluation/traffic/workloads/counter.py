"""Counters that only grow, read by everybody, and copies of what was read: stale and backward reads."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from evaluation.history import Action, Fate
from evaluation.traffic.decision import Decision, Session

if TYPE_CHECKING:
    import random


class Counter:
    """A few sessions write a counter each; a few others copy what they read; all others read.

    After a write of unknown outcome its key gets no more: the old value could arrive late and let the
    counter go back, which no system could be blamed for. A session that reads at level `eventual` copies
    nothing: what it reads may go back.
    """

    name = "counter"
    collections = ("counter",)

    def __init__(self, highest: int = 120) -> None:
        self._highest = highest
        self._mine: dict[str, str] = {}
        """Session -> the counter it writes now."""
        self._value: dict[str, int] = {}
        """Counter -> last value begun, in the order of creation."""
        self._copier: dict[str, str] = {}
        """Counter -> the one session that copies it."""
        self._copied: dict[str, int] = {}
        self._spoilt: set[str] = set()
        self._next: dict[str, Decision] = {}
        """Session -> what it must do directly after what it did last."""

    def next(self, session: Session, rng: random.Random) -> Decision:
        follow = self._next.pop(session.name, None)
        if follow is not None:
            return follow
        if not self._value or (session.number % 5 in (0, 2) and rng.random() < 0.6):
            return self._count(session)
        key = rng.choice(list(self._value)[-8:])
        if key in self._copied and rng.random() < 0.5:
            self._next[session.name] = Decision(self.name, Action.GET, key)
            return Decision(self.name, Action.GET, f"{key}/copy")
        return Decision(self.name, Action.GET, key)

    def answered(self, session: Session, decision: Decision, outcome: Fate, value: Any) -> None:
        key = decision.key
        if decision.action is Action.UPSERT:
            if outcome is Fate.UNKNOWN:
                self._spoilt.add(key)
                if self._mine.get(session.name) == key:
                    del self._mine[session.name]
            return
        if key.endswith("/copy") or session.level == "eventual" or not isinstance(value, int):
            return
        copy = f"{key}/copy"
        copier = self._copier.setdefault(key, session.name)
        if copier == session.name and copy not in self._spoilt and value > self._copied.get(key, 0):
            self._copied[key] = value
            self._next[session.name] = Decision(self.name, Action.UPSERT, copy, value)

    def final(self) -> list[Decision]:
        keys = [*self._value, *(f"{key}/copy" for key in self._copied)]
        return [Decision(self.name, Action.GET, key) for key in keys]

    def _count(self, session: Session) -> Decision:
        key = self._mine.get(session.name)
        if key is None or self._value[key] >= self._highest:
            key = self._mine[session.name] = f"c-{len(self._value)}"
            self._value[key] = 0
        self._value[key] += 1
        return Decision(self.name, Action.UPSERT, key, self._value[key])
