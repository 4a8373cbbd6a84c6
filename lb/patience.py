"""How long one attempt at a write may take: longer for a larger body, above what the nodes allow; pure."""

from __future__ import annotations

from typing import Final

#: 40 bytes are one small record, for which a node allows 5 ms.
_PER_BYTE_S: Final = 0.005 / 40
_MOST_S: Final = 600.0


def write_try_s(base_s: float, body: int) -> float:
    """The bound for a body of so many bytes, if `base_s` is that of a small one."""
    return base_s + min(_MOST_S, body * _PER_BYTE_S)
