"""Which requests were in an engine when it died, and are refused for a while; pure.

A client that repeats a request which ends Chroma's process would take down one engine after the other.
Not every request that was under way at a death caused it, so there are two terms:

    proven      it was alone when the process crashed, or in an engine at two deaths    60 s
    suspected   others were under way too, or the process was killed from outside        2 s

A suspect whose term is over may try again, one suspect at a time, so that a second death tells which
it was. One that is answered is cleared. Times are seconds of one monotonic clock.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from hashlib import blake2b
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote_to_bytes

from cluster.errors import Quarantined

if TYPE_CHECKING:
    from collections.abc import Iterator

_PROVEN_S: Final = 60.0
_SUSPECTED_S: Final = 2.0
#: How long a suspect is remembered that does not come again.
_REMEMBERED_S: Final = 120.0
#: A suspect that is being tried holds up the other suspects no longer than that.
_TRIAL_S: Final = 5.0
#: Requests that are remembered; beyond it the oldest are forgotten.
_CAPACITY: Final = 1024


@dataclass(frozen=True, slots=True)
class _Suspect:
    cause: str
    until: float
    at: float
    strikes: int
    tried_at: float | None = None


def digest_of_request(method: str, path: str, body: bytes) -> bytes:
    """By what a request is recognised: method, decoded path and body; other spellings are other requests."""
    hasher = blake2b(digest_size=16)
    for part in (method.encode(), unquote_to_bytes(path), body):
        hasher.update(len(part).to_bytes(8, "little"))
        hasher.update(part)
    return hasher.digest()


class Quarantine:
    """Not thread-safe: it belongs to the node's event loop."""

    def __init__(self, capacity: int = _CAPACITY) -> None:
        self._capacity = capacity
        self._suspects: dict[bytes, _Suspect] = {}

    def __bool__(self) -> bool:
        """Whether any request is suspected: without that there is nothing to look up."""
        return bool(self._suspects)

    def admit(self, digest: bytes, now: float) -> None:
        """Let a request pass, or not.

        Raises:
            Quarantined: it is refused for some more seconds, which the message tells.
        """
        suspect = self._suspects.get(digest)
        if suspect is None:
            return
        if now >= suspect.at + _REMEMBERED_S:
            del self._suspects[digest]
            return
        until = max([suspect.until, *self._trials_of_others(digest)])
        if now < until:
            raise Quarantined(
                f"This very request was in a Chroma process when that ended: {suspect.cause} It is refused "
                f"for {until - now:.1f} more seconds, on every node, so that it cannot take one after the "
                "other down. Nothing was read or changed; send another request, for instance a smaller one."
            )
        self._suspects[digest] = replace(suspect, tried_at=now)

    def died(self, digest: bytes, cause: str, now: float, *, proven: bool) -> float:
        """An engine died with this request in it; for how many seconds it is refused from here on."""
        before = self._suspects.pop(digest, None)
        recent = before is not None and now < before.at + _REMEMBERED_S
        strikes = (before.strikes if before is not None and recent else 0) + 1
        term_s = _PROVEN_S if proven or strikes > 1 else _SUSPECTED_S
        self._put(digest, _Suspect(cause, now + term_s, now, strikes))
        return term_s

    def heard(self, digest: bytes, cause: str, for_s: float, now: float) -> None:
        """Another node refuses this request for `for_s` seconds."""
        before = self._suspects.pop(digest, None)
        until = now + min(max(for_s, 0.0), _PROVEN_S)
        if before is not None:
            until = max(until, before.until)
        self._put(digest, _Suspect(cause, until, now, 1 if before is None else max(1, before.strikes)))

    def answered(self, digest: bytes) -> None:
        """The request was answered by an engine that lives: it is cleared."""
        self._suspects.pop(digest, None)

    def _put(self, digest: bytes, suspect: _Suspect) -> None:
        while len(self._suspects) >= self._capacity:
            del self._suspects[next(iter(self._suspects))]
        self._suspects[digest] = suspect

    def _trials_of_others(self, digest: bytes) -> Iterator[float]:
        """Until when other suspects are being tried."""
        for other, suspect in self._suspects.items():
            if other != digest and suspect.tried_at is not None and suspect.until <= suspect.tried_at:
                yield suspect.tried_at + _TRIAL_S
