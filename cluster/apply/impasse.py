"""The write that this node's engine fails on, if there is one: when it is tried again, when it must not be.

Shared by the applier's thread, which tries, and the event loop, which deliberates with the other nodes.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Final

from cluster.apply.containment import Progress, Stuck

if TYPE_CHECKING:
    from collections.abc import Callable

    from cluster.apply.containment import Question
    from cluster.state.refusals import Point

#: Seconds until the next attempt, after one, two, ... of them; the last for ever.
BACK_OFF_S: Final = (0.5, 1.0, 2.0, 4.0, 8.0)


class Impasse:
    """Thread-safe. While `at` is None there is none."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._at: Stuck | None = None
        self._attempts = 0
        self._next_s = 0.0
        self._is_trying = False
        # The term of the leader that was promised that the write is not tried again; 0: nobody was.
        self._held_term = 0
        self._seen_term = 0
        self.is_local = False
        """Another node has applied the write: this node's own fault."""

    @property
    def at(self) -> Stuck | None:
        return self._at

    def note(self, stuck: Stuck) -> None:
        """The engine has failed on it (again)."""
        with self._lock:
            self._at = stuck
            self._next_s = self._clock() + BACK_OFF_S[min(self._attempts, len(BACK_OFF_S) - 1)]
            self._attempts += 1
            self._is_trying = False

    def clear(self) -> None:
        """The write is applied, or refused."""
        with self._lock:
            self._at = None
            self._attempts = self._held_term = 0
            self._is_trying = self.is_local = False

    def may_try(self) -> bool:
        """Whether it is time for another attempt. True is also the beginning of it."""
        with self._lock:
            if self._held_term or self._clock() < self._next_s:
                return False
            self._is_trying = True
            return True

    def hold(self, point: Point, term: int) -> bool:
        """Promise a leader of `term` that the write at `point` is not tried again; whether it is promised.

        It is not while an attempt is under way, or if this node is not stuck there. The promise ends when the
        leader lets go, or when a later term's entry is committed: what the leader proposed stands before
        that in the log, or nowhere.
        """
        with self._lock:
            if self._at is None or self._at.point != point or self._is_trying or term < self._seen_term:
                return False
            self._held_term = max(self._held_term, term)
            return True

    def let_go(self, term: int) -> None:
        """The leader of `term` has proposed nothing that could still be committed."""
        with self._lock:
            if self._held_term == term:
                self._held_term = 0

    def saw_term(self, term: int) -> None:
        """An entry of `term` is committed; everything before it has been looked through."""
        with self._lock:
            self._seen_term = max(self._seen_term, term)
            if term > self._held_term:
                self._held_term = 0

    def answer(self, question: Question, place: Point) -> Progress:
        """What this node, which applies `place` next, says when it is asked."""
        held = False
        if question.hold is not None:
            held = self.hold(question.hold, question.term)
        elif question.term:
            self.let_go(question.term)
        return Progress(place, self._at, held)
