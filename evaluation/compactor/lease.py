"""The lock: one object with a holder, an expiry and a token; pure decisions, and the few writes they lead to.

It is a good lock: taken by a conditional write only, so that no two workers ever take the same lease, with a
token that grows with each holder. What it cannot do is stop a holder that is paused until after the expiry.
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import orjson

from evaluation.compactor.storage import Bucket, Conflict

if TYPE_CHECKING:
    from evaluation.compactor.storage import Stored

KEY = "lock"


@dataclass(frozen=True, slots=True)
class Lease:
    """Who holds the lock, until when (wall clock, ms), as the how-manieth holder."""

    holder: str
    token: int
    expires_ms: int

    def encode(self) -> bytes:
        return orjson.dumps(asdict(self))

    @staticmethod
    def decode(body: bytes) -> Lease:
        return Lease(**orjson.loads(body))


def claim(found: Lease | None, holder: str, now_ms: int, lasts_ms: int) -> Lease | None:
    """The lease that `holder` may try to write now, or None while another's is running."""
    if found is not None and found.expires_ms > now_ms:
        return None
    return Lease(holder, 1 if found is None else found.token + 1, now_ms + lasts_ms)


def now_ms() -> int:
    return time.time_ns() // 1_000_000


class Lock:
    """The lock of one worker."""

    def __init__(self, bucket: Bucket, holder: str, lasts_ms: int) -> None:
        self._bucket = bucket
        self._holder = holder
        self._lasts_ms = lasts_ms
        self._etag = ""

    def take(self) -> Lease | None:
        """The new lease, or None if another has it or was quicker."""
        stored = self._bucket.get(KEY)
        found = None if stored is None else Lease.decode(stored.body)
        wanted = claim(found, self._holder, now_ms(), self._lasts_ms)
        if wanted is None:
            return None
        try:
            self._etag = self._write(wanted, stored)
        except Conflict:
            return None
        return wanted

    def is_still(self, lease: Lease) -> bool:
        """Whether the lock held `lease`, unexpired, a moment ago."""
        stored = self._bucket.get(KEY)
        return stored is not None and Lease.decode(stored.body) == lease and lease.expires_ms > now_ms()

    def release(self, lease: Lease) -> bool:
        """End it now; false if it is another's by now. The object stays, so that tokens go on growing."""
        try:
            self._bucket.swap(KEY, Lease(lease.holder, lease.token, 0).encode(), self._etag)
        except Conflict:
            return False
        return True

    def _write(self, lease: Lease, found: Stored | None) -> str:
        if found is None:
            return self._bucket.create(KEY, lease.encode())
        return self._bucket.swap(KEY, lease.encode(), found.etag)
