"""How long to wait before a process that died is started again; pure."""

from __future__ import annotations

from typing import Final

_DELAYS_S: Final = (0.0, 0.2, 0.5, 1.0, 2.0, 5.0)
#: A process that lived so long is none that dies again and again.
_SOUND_S: Final = 30.0


class Backoff:
    """At once after the first death, then ever later, up to 5 s; from the beginning after 30 s of life."""

    def __init__(self) -> None:
        self._deaths = 0

    def after(self, lived_s: float) -> float:
        """Seconds to wait after a life of `lived_s` seconds (0 for one that could not begin)."""
        if lived_s >= _SOUND_S:
            self._deaths = 0
        delay_s = _DELAYS_S[min(self._deaths, len(_DELAYS_S) - 1)]
        self._deaths += 1
        return delay_s
