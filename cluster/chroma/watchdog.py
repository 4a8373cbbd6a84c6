"""Whether a process that works on calls still gets on: a decision over samples of it; pure.

Slow is not hung: writing a large index takes Chroma tens of seconds, in which the process uses its
processor or its disk. Hung is what does neither:

    stopped (SIGSTOP)                   killed after `stopped_s`; no request is to blame
    quiet: a call is under way, and     killed after `hang_s`; the calls that were under way all the time
    nothing runs, is read or written    are suspects
    a write that is quiet whenever no   killed after `hang_s` of such moments; that write is to blame
    read is under way beside it
    quiet, but a thread waits for the   never killed, for a new process would wait for the same disk
    kernel to finish a disk access
    a read that goes on and on          killed after `read_limit_s` of working on it; it is to blame

What reads do hides what a write does not: only between reads can be seen whether it gets on. If they leave no
moment for `_UNHEARD_S` the watchdog asks for silence (`wants_silence`), until a moment has shown progress.

Time is what was watched: if this process itself stood still, that time counts for nobody. After each
kill of a read the limit doubles, for a read may wait for work that the process has to do before it can
answer anybody, and that begins anew after each restart; an hour without such a kill brings it back.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterable

#: How often the process is looked at.
TICK_S: Final = 0.25
#: The longest time between two looks that counts in full.
_LONGEST_STEP_S: Final = 2 * TICK_S
#: From here on the process is said to be hung, so that others are asked.
_SUSPICIOUS_S: Final = 1.0
#: So long a write may go on without a moment in which no read was beside it.
_UNHEARD_S: Final = 8.0
_FORGIVEN_AFTER_S: Final = 3600.0
_LONGEST_LIMIT_S: Final = 3600.0


@dataclass(frozen=True, slots=True)
class Limits:
    """When a process is killed; seconds. `read_limit_s` None: reads may take for ever."""

    hang_s: float = 4.0
    stopped_s: float = 1.5
    read_limit_s: float | None = 25.0


@dataclass(frozen=True, slots=True)
class Sample:
    """A process at one moment. `work` grows with its processor time and its I/O, `answers` with each call
    that it has answered."""

    work: int
    stopped: bool = False
    runs: bool = False
    waits_for_disk: bool = False
    answers: int = 0


@dataclass(frozen=True, slots=True)
class Underway:
    """A call that the process works on; `number` never comes again."""

    number: int
    reads: bool


@dataclass(frozen=True, slots=True)
class Kill:
    """End the process. `culprits` are the numbers of the calls that may be the cause."""

    why: Literal["stopped", "hung", "slow"]
    culprits: frozenset[int]
    after_s: float


Verdict: TypeAlias = Literal["fine", "stalled"] | Kill


class Watchdog:
    """Watches one process after the other; times in seconds of one monotonic clock."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._doublings = 0
        self._slow_at: float | None = None
        self._before: float | None = None
        self._work = self._answers = 0
        self._quiet_s = 0.0
        self._stopped_s = 0.0
        self._watched: dict[int, float] = {}
        # The write under way, for how long it was quiet in moments without reads, and since the last such.
        self._write: int | None = None
        self._write_quiet_s = self._unheard_s = 0.0
        self._had_reads = False
        self.wants_silence = False
        """Whether reads are to be held back, so that it can be seen whether the write gets on."""

    def new_process(self) -> None:
        """What is sampled from here on is another process."""
        self._before = None
        self._work = self._answers = 0
        self._quiet_s = self._stopped_s = 0.0
        self._watched = {}
        self._write = None
        self._write_quiet_s = self._unheard_s = 0.0
        self._had_reads = self.wants_silence = False

    def observe(self, now: float, sample: Sample, underway: Iterable[Underway]) -> Verdict:
        """What to think of the process at `now`, from this sample and those before."""
        step = 0.0 if self._before is None else min(now - self._before, _LONGEST_STEP_S)
        self._before = now
        calls = tuple(underway)
        self._watched = {
            # A stopped process does not work on anything.
            call.number: self._watched.get(call.number, -step) + (0.0 if sample.stopped else step)
            for call in calls
        }
        self._stopped_s = self._stopped_s + step if sample.stopped else 0.0
        idle = not sample.runs and not sample.stopped and sample.work == self._work
        quiet = bool(calls) and idle and sample.answers == self._answers
        self._quiet_s = self._quiet_s + step if quiet else 0.0
        self._listen(step, sample, calls, idle=idle)
        self._work, self._answers = sample.work, sample.answers
        quiet_s = max(self._stopped_s * 2, self._quiet_s, self._write_quiet_s)
        return self._kill(now, sample, calls) or ("stalled" if quiet_s >= _SUSPICIOUS_S else "fine")

    def _listen(self, step: float, sample: Sample, calls: tuple[Underway, ...], *, idle: bool) -> None:
        """To the write under way, if nothing else was under way since the last look."""
        write = next((call.number for call in calls if not call.reads), None)
        reads = any(call.reads for call in calls)
        is_alone = not reads and not self._had_reads and sample.answers == self._answers
        self._had_reads = reads
        if write is None or write != self._write or sample.stopped:
            self._write = write
            self._write_quiet_s = self._unheard_s = 0.0
        elif is_alone:
            self._write_quiet_s = self._write_quiet_s + step if idle else 0.0
            self._unheard_s = 0.0
        else:
            self._unheard_s += step
        doubtful = self._unheard_s >= _UNHEARD_S or (self.wants_silence and self._write_quiet_s > 0)
        # A long read would go on all the same, and the write may wait for it.
        long = any(call.reads and self._watched[call.number] >= _SUSPICIOUS_S for call in calls)
        self.wants_silence = doubtful and not long

    def _kill(self, now: float, sample: Sample, calls: tuple[Underway, ...]) -> Kill | None:
        limits = self._limits
        if self._stopped_s >= limits.stopped_s:
            return Kill("stopped", frozenset(), self._stopped_s)
        if self._quiet_s >= limits.hang_s and not sample.waits_for_disk:
            suspects = {number for number, age_s in self._watched.items() if age_s >= self._quiet_s - TICK_S}
            return Kill("hung", frozenset(suspects), self._quiet_s)
        if self._write is not None and self._write_quiet_s >= limits.hang_s and not sample.waits_for_disk:
            return Kill("hung", frozenset({self._write}), self._write_quiet_s)
        limit_s = self._read_limit_s(now)
        slow = [
            call.number
            for call in calls
            if call.reads and limit_s is not None and self._watched[call.number] >= limit_s
        ]
        if not slow:
            return None
        self._doublings += 1
        self._slow_at = now
        return Kill("slow", frozenset(slow), max(self._watched[number] for number in slow))

    def _read_limit_s(self, now: float) -> float | None:
        if self._limits.read_limit_s is None:
            return None
        if self._slow_at is not None and now - self._slow_at > _FORGIVEN_AFTER_S:
            self._doublings = 0
        return min(self._limits.read_limit_s * 2**self._doublings, _LONGEST_LIMIT_S)
