"""Vectors that follow from texts: unique, well apart, the same in every run. Pure."""

from __future__ import annotations

from hashlib import blake2b

DIMENSION = 8


def vector(text: str) -> list[float]:
    """Each coordinate is one of 65,536 values in [-1, 1)."""
    digest = blake2b(text.encode(), digest_size=2 * DIMENSION).digest()
    return [int.from_bytes(digest[2 * n : 2 * n + 2], "big") / 32768 - 1 for n in range(DIMENSION)]
