"""What a leader proves to a follower about the age of its word, without comparing their clocks. Pure.

That a message arrives now says nothing about when it was sent: it may have waited in a slow link, or in the
socket of a process that stood still. So nothing is counted from arrivals.

- The leader numbers its quorum rounds and remembers when each began. What a majority has answered proves
  that it still led when that round began: nobody newer was elected, so its commit index lacks nothing.
- The follower remembers when it answered which round. The leader's heartbeat names the newest of its answers
  that the leader has (`echo`), how long ago that came in (`heard`), and how long ago the leader surely
  led (`led`), both by the leader's clock at sending. That answer came in after it was given, so at the
  latest `heard - led` after the follower gave it the commit index of the heartbeat was all there was.

Only durations cross the wire; a stamp is looked up in the memory of the process that made it.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Final

from cluster.staleness import Knowledge

_NEVER_S: Final = float("-inf")
_STAMPS_KEPT: Final = 1000
_SPACING_S: Final = 0.01
"""Reads may begin thousands of rounds a second; a number between two stamps has the earlier one's."""
_MICRO: Final = 1_000_000


class Stamps:
    """When numbers came by that only grow: a bounded memory of it, never later than the truth."""

    def __init__(self) -> None:
        self._newest = 0
        self._kept: deque[tuple[int, float]] = deque(maxlen=_STAMPS_KEPT)

    def clear(self) -> None:
        """The numbers begin anew."""
        self._newest = 0
        self._kept.clear()

    def note(self, number: int, now_s: float) -> None:
        """`number` came by; if it has before, then that counts."""
        if number <= self._newest:
            return
        self._newest = number
        if not self._kept or now_s - self._kept[-1][1] >= _SPACING_S:
            self._kept.append((number, now_s))

    def at(self, number: int) -> float:
        """A time at or before that at which `number` came by; -inf if it is not known."""
        if number > self._newest:
            return _NEVER_S
        for kept, at_s in reversed(self._kept):
            if kept <= number:
                return at_s
        return _NEVER_S


@dataclass(frozen=True, slots=True)
class Claim:
    """What a heartbeat carries for its receiver: see the module. In microseconds; echo 0: nothing."""

    echo: int = 0
    heard_us: int = 0
    led_us: int = 0


NO_CLAIM: Final = Claim()


def claim(echo: int, heard_s: float, led_s: float, now_s: float) -> Claim:
    """What a leader may say now: it has heard the answer to round `echo` at `heard_s`, and led at `led_s`.

    Rounded so that the follower's conclusion is rather too old than too new.
    """
    if not echo or led_s == _NEVER_S:
        return NO_CLAIM
    return Claim(echo, int((now_s - heard_s) * _MICRO), int((now_s - led_s) * _MICRO) + 1)


def conclusion(commit: int, answered_s: float, heard_us: int, led_us: int, drift: float) -> Knowledge:
    """What a follower knows that answered the echoed round at `answered_s` (-inf: it does not remember)."""
    span_s = (heard_us - led_us) / _MICRO
    return Knowledge(commit, answered_s + span_s - abs(span_s) * drift)
