"""Who wants to look at a node's files while nothing changes them: a line before the applier's thread."""

from __future__ import annotations

import threading
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from cluster.errors import Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")
_Visit: TypeAlias = "tuple[int | None, Callable[[int], Any], Future[Any], bool]"


class Visits:
    """`ask` and `close` are thread-safe; the applier's thread calls the rest.

    A visitor is let in between two log entries: Chroma has all of those before and nothing of those after,
    the state file says so, and neither changes until the visitor is done.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._line: list[_Visit] = []
        self._is_closed = False

    def ask(self, visit: Callable[[int], T], at: int | None = None, *, exact: bool = True) -> Future[T]:
        """Call `visit` with the applied index, which is exactly `at` if that is given, as soon as may be.

        It is called on the applier's thread, which stands still meanwhile. A visit that has not begun may be
        cancelled. Without `exact` it may also be let in while the node is stuck (`Applier.may_be_copied`),
        when Chroma may have something of what comes after the applied index. The future fails with
        `Unavailable` if the node stops, or is past `at` already.
        """
        future: Future[T] = Future()
        with self._lock:
            if not self._is_closed:
                self._line.append((at, visit, future, exact))
                return future
        future.set_exception(_too_late("this node is stopping or has a fault"))
        return future

    @property
    def is_waited_for(self) -> bool:
        """Whether anybody is in the line."""
        return bool(self._line)

    def next_stop(self) -> int | None:
        """No step may go beyond this log index, None: any may."""
        if not self._line:
            return None
        with self._lock:
            return min(
                (at for at, _, future, _ in self._line if at is not None and not future.done()), default=None
            )

    def admit(self, applied: int, *, exact: bool = True) -> None:
        """Let in all who want to look at this index; not `exact`: only those who do not mind."""
        with self._lock:
            due = [visit for visit in self._line if visit[0] is None or visit[0] <= applied]
            due = [visit for visit in due if exact or not visit[3]]
            self._line = [visit for visit in self._line if visit not in due]
        for at, visit, future, _ in due:
            if not future.set_running_or_notify_cancel():
                continue
            try:
                if at is not None and at < applied:
                    raise _too_late(f"it has applied entry {applied} already, not {at}")
                future.set_result(visit(applied))
            except Exception as error:
                future.set_exception(error)

    def close(self) -> None:
        """Nobody is let in any more."""
        with self._lock:
            self._is_closed = True
            line, self._line = self._line, []
        for _, _, future, _ in line:
            if future.set_running_or_notify_cancel():
                future.set_exception(_too_late("this node is stopping or has a fault"))


def _too_late(why: str) -> Unavailable:
    return Unavailable(f"The node's files cannot be looked at: {why}. Nothing was changed.")
