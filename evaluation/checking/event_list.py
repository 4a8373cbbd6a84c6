"""Calls and returns of one key in the order of time, from which a search takes calls and puts them back."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from evaluation.checking.models import Call


class EventList:
    """A doubly linked list: nodes 1..size in order of time, 0 is both ends. Of equal times, calls first.

    What is taken must be put back in the reverse order.
    """

    __slots__ = ("_before", "_call_node", "_return_node", "after", "is_call", "number_of")

    def __init__(self, calls: Sequence[Call]) -> None:
        events: list[tuple[float, int, int]] = []
        for number, call in enumerate(calls):
            events.append((call.invoked, 0, number))
            if not call.open:
                events.append((call.returned, 1, number))
        events.sort()
        size = len(events)
        self.after = [*range(1, size + 1), 0]
        """Node -> the next one; of 0 the first."""
        self._before = [size, *range(size)]
        self.number_of = [-1, *(number for _, _, number in events)]
        """Node -> which of the calls it belongs to."""
        self.is_call = [False, *(kind == 0 for _, kind, _ in events)]
        self._call_node = [0] * len(calls)
        self._return_node = [0] * len(calls)
        for node in range(1, size + 1):
            nodes = self._call_node if self.is_call[node] else self._return_node
            nodes[self.number_of[node]] = node

    def take(self, number: int) -> None:
        """Take a call out, and its return if it has one."""
        after, before = self.after, self._before
        node, end = self._call_node[number], self._return_node[number]
        after[before[node]] = after[node]
        before[after[node]] = before[node]
        if end:
            after[before[end]] = after[end]
            before[after[end]] = before[end]

    def put_back(self, number: int) -> int:
        """Where they were; the call's node."""
        after, before = self.after, self._before
        node, end = self._call_node[number], self._return_node[number]
        if end:
            after[before[end]] = end
            before[after[end]] = end
        after[before[node]] = node
        before[after[node]] = node
        return node
