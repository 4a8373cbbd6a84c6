"""Keeps one child process alive: starts it, watches it, starts it again when it died, and answers for it.

Two threads. One makes the processes and waits for their ends (the kernel kills a child when the
thread that made it ends, so it lives as long as the keeper); one is the watchdog's.

Invariant: what a finished call brought is taken in (`settle`) before the next process is opened.
"""

from __future__ import annotations

import itertools
import logging
import threading
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

from cluster.chroma.backoff import Backoff
from cluster.chroma.channel import unpack_answer
from cluster.chroma.death import death_of
from cluster.chroma.interface import Condition
from cluster.chroma.process import ChildProcess, Gone
from cluster.chroma.sampling import glance, look
from cluster.chroma.watchdog import TICK_S, Kill, Limits, Sample, Watchdog
from cluster.errors import ClusterError, EngineUnavailable, Fault, Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable

log = logging.getLogger(__name__)

#: A process that is not open by then is ended, and another one is tried.
_START_TIMEOUT_S: Final = 120.0
#: How long after a death a read waits for the next process.
READ_WAIT_S: Final = 3.0
#: How much longer it waits for the very first one.
_FIRST_WAIT_S: Final = 20.0
#: The longest that a read waits while the watchdog listens to a write; more than it takes to kill it.
_HUSHED_S: Final = 6.0
#: How long a write waits at a time, so that its caller can see whether it is to stop.
_WRITE_WAIT_S: Final = 0.25

State: TypeAlias = Literal["starting", "serving", "restarting", "hung"]


@dataclass(frozen=True, slots=True)
class Kept:
    """What is kept: `kind` of child, its number of readers, and what opens it (method and arguments)."""

    kind: Literal["engine", "scratch"]
    readers: int
    opening: Callable[[], tuple[str, tuple[Any, ...]]]


class Keeper:
    """One child at a time. Thread-safe; `close` ends it for good."""

    def __init__(self, kept: Kept, limits: Limits, on_change: Callable[[], None] = lambda: None) -> None:
        """`on_change` is told, from any thread, that `condition` has changed."""
        self._kept = kept
        self._on_change = on_change
        self._watchdog = Watchdog(limits)
        self._numbers = itertools.count(1)
        self._news = threading.Condition()
        self._state: State = "starting"
        self._life: ChildProcess | None = None
        self._down_since = self._ended_at = time.monotonic()
        self._lives = 0
        self._last_death = ""
        self._opening_failed: ClusterError | None = None
        # Reads wait: the watchdog listens whether the write beside them gets on.
        self._is_hushed = False
        self._closing = threading.Event()
        self._threads = [
            threading.Thread(target=self._keep, name=f"{kept.kind}-keeper", daemon=True),
            threading.Thread(target=self._watch, name=f"{kept.kind}-watchdog", daemon=True),
        ]

    def start(self, *, wait: bool) -> None:
        """Start the child; with `wait`, return when it is open.

        Raises:
            ClusterError: it cannot be opened; the keeper is closed.
        """
        for thread in self._threads:
            thread.start()
        if not wait:
            return
        with self._news:
            self._news.wait_for(lambda: self._state == "serving" or self._opening_failed is not None)
            failed = self._opening_failed
        if failed is not None:
            self.close()
            raise failed

    def close(self) -> None:
        """Let the calls under way finish, then end the child; a second close does nothing."""
        with self._news:
            if self._closing.is_set():
                return
            self._closing.set()
            life, is_well = self._life, self._state == "serving"
            self._news.notify_all()
        if life is not None:
            if not is_well:
                life.kill()  # it would not end by itself
            life.close()
        for thread in self._threads:
            thread.join()

    @property
    def pid(self) -> int | None:
        """Process id of the child, None while there is none."""
        life = self._life
        return None if life is None else life.pid

    def condition(self) -> Condition:
        """How the child is, without asking it."""
        with self._news:
            down_s = 0.0 if self._state == "serving" else time.monotonic() - self._down_since
            state = "restarting" if self._state == "starting" else self._state
            return Condition(state, max(0, self._lives - 1), self.pid, self._last_death, down_s)

    def restart(self, why: str) -> None:
        """End the child, so that it is opened anew; reads under way are told to go elsewhere."""
        with self._news:
            life = self._life if self._state == "serving" else None
        if life is not None:
            life.asked = why
            life.kill()

    # --------------------------------------------------------------------------------- calls

    def read(self, method: str, *arguments: Any) -> Any:
        """The answer of any process; one that ends meanwhile is the call's failure.

        Raises:
            EngineDied: the process ended, perhaps because of this call.
            EngineUnavailable: it ended for another reason, or is not there again in time.
            ClusterError: what the process answered.
        """
        while True:
            life = self._serving(
                self._ended_at + READ_WAIT_S, "Nothing was read or changed; ask again, or another node."
            )
            with self._news:
                self._news.wait_for(lambda: not self._is_hushed or self._closing.is_set(), _HUSHED_S)
            answer = self._call(life, life.read, method, arguments, None)
            if answer is not None:
                return answer[0]

    def write(self, method: str, *arguments: Any, settle: Callable[[Any], None] | None = None) -> Any:
        """As `read`, in the writer's place; `settle` takes in the answer.

        Raises:
            EngineUnavailable: there is no process at the moment; nothing was begun; try again.
        """
        while True:
            until = time.monotonic() + _WRITE_WAIT_S
            life = self._serving(until, "The write was not begun here; it waits.")
            answer = self._call(life, life.write, method, arguments, settle)
            if answer is not None:
                return answer[0]

    def _serving(self, until: float, meanwhile: str) -> ChildProcess:
        with self._news:
            while self._state not in ("serving", "hung") or self._life is None:
                if self._closing.is_set():
                    break
                # The first opening takes its time, above all on a machine that has just started.
                patience_s = _FIRST_WAIT_S if self._state == "starting" else 0.0
                left = until + patience_s - time.monotonic()
                if left <= 0:
                    raise EngineUnavailable(
                        "This node's Chroma process is being started again "
                        f"({self._last_death or 'it is not open yet'}). {meanwhile}"
                    )
                self._news.wait(left)
            life = self._life
        if self._closing.is_set() or life is None:
            raise Unavailable("This node is stopping; nothing was changed. Ask another node.")
        return life

    def _call(
        self,
        life: ChildProcess,
        ask: Callable[[int, str, tuple[Any, ...]], Any],
        method: str,
        arguments: tuple[Any, ...],
        settle: Callable[[Any], None] | None,
    ) -> tuple[Any] | None:
        """The answer as a tuple; None if that process had not begun with it."""
        number = next(self._numbers)
        try:
            value = unpack_answer(ask(number, method, arguments))
            if settle is not None:
                settle(value)
            return (value,)
        except Gone as gone:
            death = life.verdict()
            if self._closing.is_set():
                raise Unavailable("This node is stopping; nothing was changed. Ask another node.") from None
            failure = death.verdict(number) if death is not None and gone.begun else None
            if failure is not None:
                raise failure from None
            self._wait_for_another(life)
            return None
        finally:
            life.finish(number)

    def _wait_for_another(self, life: ChildProcess) -> None:
        with self._news:
            self._news.wait_for(lambda: self._life is not life or self._closing.is_set(), READ_WAIT_S)

    # -------------------------------------------------------------------- the keeper's thread

    def _keep(self) -> None:
        backoff = Backoff()
        while not self._closing.is_set():
            began = time.monotonic()
            try:
                life = ChildProcess(self._kept.kind, self._kept.readers)
            except OSError as error:  # no memory, no descriptors, too many processes: all may pass
                self._fell(f"cannot be started ({error})", Fault(f"The process with Chroma {error}."))
            else:
                self._live(life)
            self._closing.wait(backoff.after(time.monotonic() - began))

    def _live(self, life: ChildProcess) -> None:
        with self._news:
            self._life = life
            if self._closing.is_set():
                life.kill()  # `close` did not see it
        opener: threading.Thread | None = threading.Thread(
            target=self._open, args=(life,), name="opener", daemon=True
        )
        try:
            opener.start()
        except RuntimeError as error:  # no more threads for now
            life.asked = str(error)
            life.kill()
            opener = None
        returncode = life.wait()
        underway = frozenset(call.number for call in life.underway())
        death = death_of(life.pid, returncode, underway, life.kill_order, life.asked)
        with self._news:
            self._life = None
        if not self._closing.is_set():
            log.error(
                "Chroma's process (%s) %s; %d calls were under way", self._kept.kind, death.how, len(underway)
            )
            self._fell(death.how, None)
        life.judge(death)
        if opener is not None:
            opener.join()
        life.release()

    def _open(self, life: ChildProcess) -> None:
        """On a thread of its own, for the keeper's must see the end of a process that does not open."""
        method, arguments = self._kept.opening()
        number = next(self._numbers)
        try:
            unpack_answer(life.write(number, method, arguments, _START_TIMEOUT_S))
        except Gone:
            life.kill()  # deaf, if it is not dead
        except ClusterError as failure:
            life.asked = f"it could not be opened: {failure.message}"
            with self._news:
                self._opening_failed = failure
                self._news.notify_all()
            life.kill()
        else:
            self._watchdog.new_process()
            with self._news:
                self._lives += 1
                self._state = "serving"
                self._news.notify_all()
            self._on_change()
        finally:
            life.finish(number)

    def _fell(self, how: str, failed: ClusterError | None) -> None:
        with self._news:
            now = time.monotonic()
            if self._state == "serving":
                self._down_since = now
            if self._state in ("serving", "hung"):
                self._ended_at = now  # reads wait from here on, however long it hung before
            self._state = "restarting" if self._lives else "starting"
            self._last_death = how
            self._opening_failed = failed or self._opening_failed
            self._news.notify_all()
        self._on_change()

    # ------------------------------------------------------------------ the watchdog's thread

    def _watch(self) -> None:
        while not self._closing.wait(TICK_S):
            life = self._life
            if life is None:
                continue
            if self._state not in ("serving", "hung"):
                self._watch_opening(life)
                continue
            calls = life.underway()
            sample = self._sample(life, busy=bool(calls))
            if sample is None:
                continue
            verdict = self._watchdog.observe(time.monotonic(), sample, calls)
            self._hush(self._watchdog.wants_silence)
            if isinstance(verdict, Kill):
                life.kill_order = verdict
                life.kill()
            else:
                self._suspect(life, hung=verdict == "stalled")

    def _hush(self, wanted: bool) -> None:
        with self._news:
            if wanted != self._is_hushed:
                self._is_hushed = wanted
                self._news.notify_all()

    def _sample(self, life: ChildProcess, *, busy: bool) -> Sample | None:
        found = look(life.pid) if busy else glance(life.pid)
        if found is None or not busy:
            return found
        # An answer is progress of whoever asked, whatever the counters say.
        return replace(found, answers=life.answered)

    def _watch_opening(self, life: ChildProcess) -> None:
        """Opening waits for the lock of a process before it, quietly; only one that is stopped is ended."""
        sample = glance(life.pid)
        verdict = "fine" if sample is None else self._watchdog.observe(time.monotonic(), sample, ())
        if isinstance(verdict, Kill):
            life.kill_order = verdict
            life.kill()

    def _suspect(self, life: ChildProcess, *, hung: bool) -> None:
        with self._news:
            if self._life is not life or (self._state == "hung") == hung:
                return
            self._state = "hung" if hung else "serving"
            if hung:
                self._down_since = time.monotonic() - 1.0  # it has been quiet for about that long
            self._news.notify_all()
        self._on_change()
