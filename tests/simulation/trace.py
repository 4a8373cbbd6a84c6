"""What happened in one run: the last events in readable form, and a hash over all of them.

The hash is what two runs of one seed must share; the last events are what a failure prints.
"""

from __future__ import annotations

import hashlib
from collections import deque
from typing import Any


class Trace:
    """Events as tuples, formatted only when somebody reads them; hashed only on demand, for it costs time."""

    def __init__(self, *, keep: int = 2000, hashing: bool = False) -> None:
        self._events: deque[tuple[float, str, str, tuple[Any, ...]]] = deque(maxlen=keep)
        self._hasher = hashlib.blake2b(digest_size=16) if hashing else None
        self.count = 0

    def add(self, now_s: float, where: str, what: str, *details: Any) -> None:
        self.count += 1
        self._events.append((now_s, where, what, details))
        if self._hasher is not None:
            self._hasher.update(f"{now_s!r} {where} {what} {details!r}\n".encode())

    def digest(self) -> str:
        """The hash over every event so far; empty where it was not asked for."""
        return "" if self._hasher is None else self._hasher.hexdigest()

    def last(self, count: int) -> list[str]:
        """The newest events, oldest first, one line each."""
        return [_line(*event) for event in list(self._events)[-count:]]


def _line(now_s: float, where: str, what: str, details: tuple[Any, ...]) -> str:
    text = " ".join(_short(detail) for detail in details)
    return f"{now_s:10.6f}  {where:<12} {what:<10} {text}"


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else repr(value)
    return text if len(text) <= 160 else f"{text[:120]}... ({len(text)} characters)"
