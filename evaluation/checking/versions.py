"""Which value of a document is certainly older than a given write, by real time alone.

A value is older than a write if its own write was acknowledged before that one began. A write of unknown
outcome may take effect at any later time, so its value is never certainly older. Where one value was written
more than once (copies of a counter), whatever its writes allow is allowed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from evaluation.history import Action, Fate, Operation

if TYPE_CHECKING:
    from collections.abc import Sequence

#: Writes that take effect whatever was there.
SURE = frozenset({Action.UPSERT, Action.DELETE})
READS = frozenset({Action.GET, Action.GET_WHERE})


def returned(operation: Operation) -> float:
    """When its effect is certainly there: never, for what was not acknowledged."""
    if operation.outcome is Fate.OK and operation.returned_ns is not None:
        return operation.returned_ns
    return float("inf")


class Versions:
    """The writes of one document (workloads register, counter, batch)."""

    def __init__(self, operations: Sequence[Operation]) -> None:
        """`operations` in the order of invocation."""
        self.write_of: dict[Any, Operation] = {}
        """The first write of each value that was not refused."""
        self.repeated: set[Any] = set()
        self.sure: list[Operation] = []
        """Acknowledged writes that surely took effect, in the order of invocation."""
        self.refused: dict[Any, Operation] = {}
        self._last_delete = float("-inf")
        self._settled: dict[Any, float] = {}
        for operation in operations:
            if not operation.is_write:
                continue
            if operation.outcome is Fate.REFUSED:
                self.refused[operation.value] = operation
                continue
            if operation.action is Action.DELETE:
                self._last_delete = max(self._last_delete, returned(operation))
            else:
                value = operation.value
                if self.write_of.setdefault(value, operation) is not operation:
                    self.repeated.add(value)
                self._settled[value] = max(self._settled.get(value, float("-inf")), returned(operation))
            if operation.outcome is Fate.OK and operation.action in SURE:
                self.sure.append(operation)
        self.sure.sort(key=lambda operation: operation.invoked_ns)

    def settled(self, value: Any) -> float:
        """The time from which a write that begins later certainly replaces this value; infinite if none does.

        Of an absent document: when the last delete was acknowledged, for it may be the one that was seen.
        """
        if value is None:
            return self._last_delete
        return self._settled.get(value, float("inf"))

    def began(self, value: Any) -> float:
        """When the write of this value began: whoever sees it sees a state no older than that write.

        Of an absent document: nothing is known, it may be the state before all writes.
        """
        write = self.write_of.get(value)
        return float("-inf") if write is None else write.invoked_ns
