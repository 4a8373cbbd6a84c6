"""Which requests have been answered already, and how: a retry gets the first outcome again.

Pure, replicated, bounded by log time and by count. Eviction depends on nothing but the sequence
of recorded requests, so every replica forgets the same ones at the same log position.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING

import msgpack

from cluster.state.catalog import Change, Outcome

if TYPE_CHECKING:
    from collections.abc import Iterable

PREFIX = "r/"


@dataclass(frozen=True, slots=True)
class Answered:
    """A request's outcome, what was asked (`digest`), and where and when in the log it stands."""

    digest: bytes
    outcome: Outcome
    index: int
    position: int
    time_ms: int


def unscoped(request_id: str) -> str | None:
    """The id under which an earlier program remembered a key, then without a scope; None for other ids."""
    scope, space, key = request_id.partition(" ")
    return f"{scope[:2]}{key}" if space else None


class RequestTable:
    """Answered requests by id, oldest first; changed only through `put`.

    A request is remembered for `window_ms` of log time, and no longer than until `max_requests`
    newer ones came.
    """

    def __init__(self, window_ms: int, max_requests: int) -> None:
        self.window_ms = window_ms
        self.max_requests = max_requests
        # Ordered dictionaries drop their oldest in constant time, plain ones do not.
        self._answered: OrderedDict[str, Answered] = OrderedDict()

    def load(self, items: Iterable[tuple[str, bytes]]) -> None:
        """Take the pairs of a whole table, in any order."""
        found = [(key.removeprefix(PREFIX), _unpack(value)) for key, value in items]
        found.sort(key=lambda pair: (pair[1].index, pair[1].position))
        self._answered = OrderedDict(found)

    def items(self) -> list[tuple[str, bytes]]:
        """The whole table as pairs sorted by key."""
        return sorted(
            (PREFIX + request_id, _pack(answered)) for request_id, answered in self._answered.items()
        )

    def put(self, change: Change) -> None:
        """Make one change part of the table; puts must come in log order."""
        request_id = change.key.removeprefix(PREFIX)
        self._answered.pop(request_id, None)
        if change.value is not None:
            self._answered[request_id] = _unpack(change.value)

    def plan(self) -> RequestPlan:
        return RequestPlan(self._answered, self.window_ms, self.max_requests)

    def __contains__(self, request_id: str) -> bool:
        return request_id in self._answered

    def __len__(self) -> int:
        return len(self._answered)


class RequestPlan:
    """The table as one step will leave it, and the changes that lead there."""

    def __init__(self, answered: OrderedDict[str, Answered], window_ms: int, max_requests: int) -> None:
        self._table = answered
        self._window_ms = window_ms
        self._max_requests = max_requests
        self._oldest = iter(answered)
        self._next = next(self._oldest, None)
        self._evicted: dict[str, None] = {}
        self._fresh: OrderedDict[str, Answered] = OrderedDict()

    def find(self, request_id: str, digest: bytes, time_ms: int) -> Answered | None:
        """The request's answer, unless forgotten by `time_ms`; it may be that of another `digest`."""
        answered = self._find(request_id, time_ms)
        if answered is None and (earlier := unscoped(request_id)) is not None:
            # What has the digest, which covers the path, has the scope.
            answered = self._find(earlier, time_ms)
            return answered if answered is not None and answered.digest == digest else None
        return answered

    def _find(self, request_id: str, time_ms: int) -> Answered | None:
        answered = self._fresh.get(request_id)
        if answered is None and request_id not in self._evicted:
            answered = self._table.get(request_id)
        return None if answered is None or self._expired(answered, time_ms) else answered

    def record(self, request_id: str, answered: Answered) -> None:
        """Remember one more, and forget what is too old or too much by then."""
        while (oldest := self._peek()) is not None and self._expired(oldest, answered.time_ms):
            self._drop()
        self._fresh[request_id] = answered
        while len(self._table) - len(self._evicted) + len(self._fresh) > self._max_requests:
            self._drop()

    def changes(self) -> list[Change]:
        """First what is forgotten, then what is new, in log order."""
        forgotten = (
            Change(PREFIX + request_id, None) for request_id in self._evicted if request_id not in self._fresh
        )
        new = (Change(PREFIX + request_id, _pack(answered)) for request_id, answered in self._fresh.items())
        return list(chain(forgotten, new))

    def _expired(self, answered: Answered, time_ms: int) -> bool:
        return time_ms - answered.time_ms > self._window_ms

    def _peek(self) -> Answered | None:
        if self._next is not None:
            return self._table[self._next]
        return next(iter(self._fresh.values()), None)

    def _drop(self) -> None:
        if self._next is not None:
            self._evicted[self._next] = None
            self._next = next(self._oldest, None)
        else:
            self._fresh.popitem(last=False)


def _pack(answered: Answered) -> bytes:
    outcome = answered.outcome
    fields = [
        answered.digest,
        outcome.status,
        outcome.body,
        answered.index,
        answered.position,
        answered.time_ms,
    ]
    return msgpack.packb(fields)


def _unpack(value: bytes) -> Answered:
    digest, status, body, index, position, time_ms = msgpack.unpackb(value)
    return Answered(digest, Outcome(status, body), index, position, time_ms)
