"""A bound on the bytes that are buffered at one time, over all requests."""

from __future__ import annotations


class Budget:
    """Bytes that may still be buffered. Taken before they are read, given back when the request ends."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit = limit_bytes
        self._used = 0

    @property
    def used(self) -> int:
        return self._used

    def take(self, size: int) -> bool:
        """Reserve `size` bytes; False, and nothing reserved, if that is over the bound."""
        if self._used + size > self._limit:
            return False
        self._used += size
        return True

    def give_back(self, size: int) -> None:
        """Return bytes that were taken."""
        self._used -= size
