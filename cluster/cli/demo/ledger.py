"""What was acknowledged, and when: the demo's own books, against which the cluster is held. Pure."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


@dataclass(frozen=True, slots=True)
class Pause:
    """The longest time between two acknowledged writes, and when it began."""

    seconds: float
    began_at: float


@dataclass
class Ledger:
    """Every acknowledged id with the words that were written; several threads may write to it."""

    clock: Callable[[], float]
    words: dict[str, str] = field(default_factory=dict[str, str])
    acks: list[float] = field(default_factory=list[float])
    retries: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def acknowledged(self, written: Mapping[str, str]) -> None:
        """The cluster said yes to these."""
        with self._lock:
            self.words.update(written)
            self.acks.append(self.clock())

    def retried(self) -> None:
        """A write got no answer or an error, and is sent again."""
        with self._lock:
            self.retries += 1

    def longest_pause(self, since: float) -> Pause | None:
        """The longest pause that ended after `since`."""
        pauses = [
            Pause(later - earlier, earlier)
            for earlier, later in zip(self.acks, self.acks[1:], strict=False)
            if later >= since
        ]
        return max(pauses, key=lambda pause: pause.seconds, default=None)

    def usual_gap(self) -> float | None:
        """The median time between two acknowledged writes."""
        gaps = sorted(later - earlier for earlier, later in zip(self.acks, self.acks[1:], strict=False))
        return gaps[len(gaps) // 2] if gaps else None

    def lost(self, stored: Mapping[str, str | None]) -> list[str]:
        """Acknowledged ids that are not in `stored`, or with other words."""
        return [key for key, words in self.words.items() if stored.get(key) != words]


@dataclass(frozen=True, slots=True)
class Difference:
    """One record that is not the same on all nodes: which fields differ, and on which nodes."""

    id: str
    fields: tuple[str, ...]
    nodes: tuple[str, ...]


FIELDS = ("document", "metadata", "uri", "vector")


@dataclass(frozen=True, slots=True)
class Record:
    """One record as a node holds it; `vector` is its float32 bytes."""

    document: str | None
    metadata: Any
    uri: str | None
    vector: bytes | None


def differences(nodes: Mapping[str, Mapping[str, Record]]) -> list[Difference]:
    """Every record that is missing somewhere or differs in any field or bit, by id."""
    found: list[Difference] = []
    names = list(nodes)
    for key in sorted({key for records in nodes.values() for key in records}):
        held = {name: nodes[name].get(key) for name in names}
        first = held[names[0]]
        odd = tuple(name for name in names if held[name] != first)
        if odd:
            fields = tuple(
                part
                for part in FIELDS
                if len({repr(getattr(record, part, "missing")) for record in held.values()}) > 1
            )
            found.append(Difference(key, fields, odd))
    return found
