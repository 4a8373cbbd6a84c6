"""All workloads of a run, in their shares of the traffic. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from evaluation.traffic.workloads.append import Append
from evaluation.traffic.workloads.batch import Batch
from evaluation.traffic.workloads.catalogue import Catalogue
from evaluation.traffic.workloads.counter import Counter
from evaluation.traffic.workloads.query import Query
from evaluation.traffic.workloads.register import Register
from evaluation.traffic.workloads.set import Set

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Sequence

    from evaluation.history import Fate
    from evaluation.traffic.decision import Decision, Session, Workload

#: workload -> how it is made, and its share.
_KNOWN: dict[str, tuple[Callable[[], Workload], int]] = {
    "register": (Register, 38),
    "set": (Set, 17),
    "append": (Append, 12),
    "counter": (Counter, 16),
    "catalogue": (Catalogue, 3),
    "batch": (Batch, 10),
    "query": (Query, 4),
}

NAMES = tuple(_KNOWN)


class Mix:
    """Chooses a workload for each operation, and passes answers on to it."""

    def __init__(self, names: Sequence[str]) -> None:
        unknown = sorted(set(names) - _KNOWN.keys())
        if unknown or not names:
            raise ValueError(
                f"no such workload: {', '.join(unknown) or 'none given'}; known: {', '.join(NAMES)}"
            )
        self._workloads = {name: _KNOWN[name][0]() for name in names}
        self._shares = [_KNOWN[name][1] for name in names]
        self._names = list(names)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self._names)

    @property
    def collections(self) -> tuple[str, ...]:
        return tuple(name for workload in self._workloads.values() for name in workload.collections)

    def next(self, session: Session, rng: random.Random) -> Decision:
        return self._workloads[rng.choices(self._names, self._shares)[0]].next(session, rng)

    def answered(self, session: Session, decision: Decision, outcome: Fate, value: Any) -> None:
        self._workloads[decision.workload].answered(session, decision, outcome, value)

    def final(self) -> list[Decision]:
        return [decision for workload in self._workloads.values() for decision in workload.final()]
