"""Warnings of the transport that would else fill the log: a peer that is gone fails at each try."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

logger = logging.getLogger(__name__)

_AGAIN_S = 10.0
_MAX_KEYS = 1000


class Complaints:
    """A warning, but the same one only every few seconds."""

    def __init__(self, node_id: str, clock: Callable[[], float]) -> None:
        self._node_id = node_id
        self._clock = clock
        self._said: dict[str, float] = {}

    def warn(self, key: str, text: str, *values: object) -> None:
        """Log `text % values`, unless this was done for the same `key` lately."""
        now = self._clock()
        if now - self._said.get(key, -1e9) >= _AGAIN_S:
            if len(self._said) > _MAX_KEYS:
                self._said.clear()
            self._said[key] = now
            logger.warning("raft %s: " + text, self._node_id, *values)

    def forget(self, key: str) -> None:
        """The cause is over: the next warning of this key is news."""
        self._said.pop(key, None)
