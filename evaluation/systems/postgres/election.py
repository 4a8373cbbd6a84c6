"""Which replica may be promoted without losing an acknowledged write, as far as the profile allows; pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True, slots=True)
class Candidate:
    """A replica that answers, and how far it has received the primary's log."""

    member: str
    received: int


def needed(replicas: int, acknowledging: int) -> int:
    """How many of the replicas must be seen, so that one with every acknowledged write is among them.

    `acknowledging`: how many replicas must have a write before it is acknowledged. With none, any one will
    do, and what it lacks is lost.
    """
    return replicas - acknowledging + 1 if acknowledging else 1


def choose(candidates: Sequence[Candidate], replicas: int, acknowledging: int) -> str | None:
    """The most advanced of them, the first by name among equals; None if too few answer."""
    if len(candidates) < needed(replicas, acknowledging):
        return None
    return min(candidates, key=lambda one: (-one.received, one.member)).member


def parse_lsn(text: str | None) -> int:
    """A position in the log as a number; 0 for none."""
    if not text:
        return 0
    high, low = text.split("/")
    return (int(high, 16) << 32) + int(low, 16)


def lease_over(asked_s: Sequence[float], now_s: float, lease_s: float) -> bool:
    """Whether every word given (at these times) has lost its force."""
    return all(now_s - asked >= lease_s for asked in asked_s)
