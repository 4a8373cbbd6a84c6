"""Which properties a system promises: only these can be broken, a violation of others is an anomaly."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

#: What a property's violation breaks: fields of `Promises`.
_NEEDS = {
    "lost": "durable",
    "lost-updates": "durable",
    "duplicated": "durable",
    "phantom": "durable",
    "resurrected": "durable",
    "fractured": "atomic_batches",
    "diverged": "converges",
    "split-brain": "one_leader",
}

_SESSION = {"read-your-writes", "monotonic-reads", "monotonic-writes", "writes-follow-reads"}


def promised(name: str, promises: Mapping[str, Any]) -> bool:
    """Does the system promise this property, at the read levels it offers?"""
    by_level: dict[str, str] = promises.get("levels") or {}
    levels = set(by_level.values())
    if name == "lost-updates" and not levels & {"linearizable", "session"}:
        return False  # who may read an old list writes it back, however durable that is
    if name in _NEEDS:
        return bool(promises.get(_NEEDS[name]))
    if name == "linearizable":
        return "linearizable" in levels
    if name in _SESSION:
        return bool(levels & {"linearizable", "session"})
    # An acknowledgement that contradicts the log is a defect whatever is promised.
    return True
