"""What a client does next. Pure: decisions follow from the seed and from what clients were answered."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import random

    from evaluation.history import Action, Fate


@dataclass(frozen=True, slots=True)
class Decision:
    """One operation to be done. Meaning of key and value: `evaluation.history.WORKLOADS`."""

    workload: str
    action: Action
    key: str
    value: Any = None


@dataclass(frozen=True, slots=True)
class Session:
    """One client for the whole run: where it connects and what it asks for."""

    name: str
    number: int
    entry: str
    level: str
    """Read level of all its reads."""
    ack: str
    """When its writes are answered: applied, committed, or `default` on systems without such a choice."""


class Workload(Protocol):
    """One kind of traffic: keys, values, and who may do what next. Methods take microseconds."""

    @property
    def name(self) -> str: ...

    @property
    def collections(self) -> tuple[str, ...]:
        """Collections that must exist before the first decision."""
        ...

    def next(self, session: Session, rng: random.Random) -> Decision:
        """The next operation of a session, which has none under way."""
        ...

    def answered(self, session: Session, decision: Decision, outcome: Fate, value: Any) -> None:
        """What came of the last decision of that session. `value`: what was read, else None."""
        ...

    def final(self) -> list[Decision]:
        """The reads that show, at one entry, everything that this workload ever wrote."""
        ...


class KeyPool:
    """A few keys in use at a time; one that has seen enough is replaced, so that no key grows hot.

    Unknown writes count separately: each may double the work of a search for an order.
    """

    def __init__(self, prefix: str, size: int, most_operations: int, most_unknown: int) -> None:
        self._prefix = prefix
        self._most_operations = most_operations
        self._most_unknown = most_unknown
        self._active = [f"{prefix}-{number}" for number in range(size)]
        self._used: dict[str, int] = dict.fromkeys(self._active, 0)
        self._unknown: dict[str, int] = dict.fromkeys(self._active, 0)

    @property
    def keys(self) -> list[str]:
        """All there ever were, in the order of their first use."""
        return list(self._used)

    def choose(self, rng: random.Random) -> str:
        """One in use."""
        key = rng.choice(self._active)
        self._used[key] += 1
        if self._used[key] >= self._most_operations:
            self._replace(key)
        return key

    def any_old(self, rng: random.Random) -> str | None:
        """One that is no longer in use, if there is one: it must not change any more."""
        old = len(self._used) - len(self._active)
        if old <= 0:
            return None
        retired = [key for key in self._used if key not in self._active]
        return rng.choice(retired)

    def unknown(self, key: str) -> None:
        """The outcome of a write of this key is not known."""
        self._unknown[key] += 1
        if self._unknown[key] >= self._most_unknown and key in self._active:
            self._replace(key)

    def _replace(self, key: str) -> None:
        fresh = f"{self._prefix}-{len(self._used)}"
        self._active[self._active.index(key)] = fresh
        self._used[fresh] = self._unknown[fresh] = 0
