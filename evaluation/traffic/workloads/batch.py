"""Groups of documents written in one request and read in one: whether a part of a write is ever seen."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from evaluation.history import Action, Fate
from evaluation.traffic.decision import Decision, KeyPool, Session

if TYPE_CHECKING:
    import random

#: Documents of a group.
WIDTH = 4
#: Documents of a wide group: a system that cuts a write into pieces shows it by these.
WIDE = 600
#: How much of this traffic is for the wide group: its operations take much longer.
_WIDE_SHARE = 0.1


class Batch:
    """Every session writes and reads every group in use."""

    name = "batch"
    collections = ("batch",)

    def __init__(self, groups: int = 4) -> None:
        self._pool = KeyPool("b", size=groups, most_operations=60, most_unknown=5)
        self._wide = KeyPool("wide", size=1, most_operations=60, most_unknown=5)
        self._written = 0

    def next(self, session: Session, rng: random.Random) -> Decision:
        key = (self._wide if rng.random() < _WIDE_SHARE else self._pool).choose(rng)
        if rng.random() < 0.5:
            self._written += 1
            return Decision(self.name, Action.UPSERT, key, f"w{self._written}")
        return Decision(self.name, Action.GET, key)

    def answered(self, session: Session, decision: Decision, outcome: Fate, value: Any) -> None:
        if decision.action.is_write and outcome is Fate.UNKNOWN:
            (self._wide if _is_wide(decision.key) else self._pool).unknown(decision.key)

    def final(self) -> list[Decision]:
        return [Decision(self.name, Action.GET, key) for key in (*self._pool.keys, *self._wide.keys)]


def members(key: str) -> list[str]:
    """The ids of a group's documents."""
    return [f"{key}/{number}" for number in range(WIDE if _is_wide(key) else WIDTH)]


def shown(key: str, values: list[Any]) -> list[Any]:
    """What a history keeps of a group's values: of a wide group only those that differ."""
    return list(dict.fromkeys(values)) if _is_wide(key) else values


def _is_wide(key: str) -> bool:
    return key.startswith("wide")
