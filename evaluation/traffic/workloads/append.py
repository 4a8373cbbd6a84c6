"""Lists with one writer each, who reads the list and writes it back longer: lost updates, divergence."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from evaluation.history import Action, Fate
from evaluation.traffic.decision import Decision, Session

if TYPE_CHECKING:
    import random


class Append:
    """Each session appends to a list of its own and reads everybody's.

    After an append of unknown outcome the list gets no more: the old request may arrive late and would
    put back the list as it was before, which no system could be blamed for.
    """

    name = "append"
    collections = ("append",)

    def __init__(self, longest: int = 40) -> None:
        self._longest = longest
        self._lists: dict[str, str] = {}
        """Session -> its list."""
        self._begun: dict[str, int] = {}
        """List -> appends begun, in the order of creation."""

    def next(self, session: Session, rng: random.Random) -> Decision:
        if not self._begun or rng.random() < 0.55:
            key = self._lists.get(session.name)
            if key is None or self._begun[key] >= self._longest:
                key = self._lists[session.name] = f"a-{len(self._begun)}"
                self._begun[key] = 0
            self._begun[key] += 1
            return Decision(self.name, Action.APPEND, key, f"{key}.{self._begun[key]}")
        return Decision(self.name, Action.GET, rng.choice(list(self._begun)[-40:]))

    def answered(self, session: Session, decision: Decision, outcome: Fate, value: Any) -> None:
        if decision.action is Action.APPEND and outcome is Fate.UNKNOWN:
            self._lists.pop(session.name, None)

    def final(self) -> list[Decision]:
        return [Decision(self.name, Action.GET, key) for key in self._begun]
