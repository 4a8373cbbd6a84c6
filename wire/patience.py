"""How long a write may take before its answer is "outcome unknown": longer for a larger one; pure."""

from __future__ import annotations

from typing import Final

_PER_BYTE_S: Final = 10.0 / (1024 * 1024)
_PER_RECORD_S: Final = 0.005
#: The most that size adds: more is no write that works, but one that hangs.
_MOST_S: Final = 600.0
#: What a body says of the records in it: few are smaller than 40 bytes.
_PER_BODY_BYTE_S: Final = _PER_RECORD_S / 40


def write_bound_s(base_s: float, size: int, records: int) -> float:
    """The bound for a write of `size` bytes and so many records, if `base_s` is that of a small one.

    Chroma writes some hundred records a second on a busy machine, and a few MiB of vectors in ten.
    """
    return base_s + min(_MOST_S, size * _PER_BYTE_S + records * _PER_RECORD_S)


def body_bound_s(base_s: float, body: int) -> float:
    """For whoever sees only the body of a write, of so many bytes: not below `write_bound_s`."""
    return base_s + min(_MOST_S, body * _PER_BODY_BYTE_S)
