"""Queries for documents by their own vectors: how often the index finds what is there. Never a verdict."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from evaluation.history import Action, Fate
from evaluation.traffic.decision import Decision, Session

if TYPE_CHECKING:
    import random

#: Documents that are written before the run and never change.
DOCUMENTS = 64


class Query:
    """Reads only."""

    name = "query"
    collections = ("query",)

    def next(self, session: Session, rng: random.Random) -> Decision:
        return Decision(self.name, Action.QUERY, document(rng.randrange(DOCUMENTS)))

    def answered(self, session: Session, decision: Decision, outcome: Fate, value: Any) -> None:
        """Nothing follows from an answer."""

    def final(self) -> list[Decision]:
        return [Decision(self.name, Action.QUERY, document(number)) for number in range(0, DOCUMENTS, 4)]


def document(number: int) -> str:
    return f"q-{number}"
