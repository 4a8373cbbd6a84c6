"""One life of a child process (`cluster.chroma.child`): its socket pairs, its calls, its end."""

from __future__ import annotations

import contextlib
import os
import queue
import socket
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING, Any, Final

from cluster.chroma.channel import receive, send
from cluster.chroma.watchdog import Underway

if TYPE_CHECKING:
    from cluster.chroma.death import Death
    from cluster.chroma.watchdog import Kill

_STOP_TIMEOUT_S: Final = 60.0
#: A process whose sockets are closed is dead or dying; its end is judged within this time.
_OBITUARY_TIMEOUT_S: Final = 10.0


class Gone(Exception):
    """The process ended before it had answered; `begun`: it had the whole call by then."""

    def __init__(self, *, begun: bool) -> None:
        super().__init__()
        self.begun = begun


class ChildProcess:
    """A child with one socket pair for each call at a time: two context switches a call.

    The kernel kills the child when the thread that made it ends: make it from one that lives as long.
    """

    def __init__(self, kind: str, readers: int) -> None:
        pairs = [socket.socketpair() for _ in range(1 + readers)]
        try:
            self._writer, *reading = (ours for ours, _ in pairs)
            self._connections = (self._writer, *reading)
            self._free: queue.LifoQueue[socket.socket | None] = queue.LifoQueue()
            for connection in reading:
                self._free.put(connection)
            descriptors = [theirs.fileno() for _, theirs in pairs]
            self._child = subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    "cluster.chroma.child",
                    kind,
                    str(os.getpid()),
                    *map(str, descriptors),
                ],
                pass_fds=descriptors,
                stdin=subprocess.DEVNULL,
            )
        except BaseException:
            for ours, _ in pairs:
                ours.close()
            raise
        finally:
            for _, theirs in pairs:
                theirs.close()
        self.began = time.monotonic()
        self.answered = 0
        self.kill_order: Kill | None = None
        self.asked: str | None = None
        self._writer_lock = threading.Lock()
        self._lock = threading.Lock()
        self._underway: dict[int, Underway] = {}
        self._nothing_underway = threading.Condition(self._lock)
        self._death: Death | None = None
        self._judged = threading.Event()

    @property
    def pid(self) -> int:
        return self._child.pid

    def underway(self) -> tuple[Underway, ...]:
        """The calls that the process works on."""
        with self._lock:
            return tuple(self._underway.values())

    # -------------------------------------------------------------------------------- calls

    def write(
        self, number: int, method: str, arguments: tuple[Any, ...], timeout_s: float | None = None
    ) -> Any:
        """The answer to a call of the writer's, one at a time; reads never hold it up.

        Raises:
            Gone: the process ended before it had answered; `verdict` says why.
        """
        with self._writer_lock:
            return self._exchange(self._writer, Underway(number, reads=False), method, arguments, timeout_s)

    def read(self, number: int, method: str, arguments: tuple[Any, ...]) -> Any:
        """As `write`, of a reader; more reads than there are connections wait."""
        connection = self._free.get()
        try:
            if connection is None:
                raise Gone(begun=False)
            return self._exchange(connection, Underway(number, reads=True), method, arguments)
        finally:
            self._free.put(connection)

    def _exchange(
        self,
        connection: socket.socket,
        call: Underway,
        method: str,
        arguments: tuple[Any, ...],
        timeout_s: float | None = None,
    ) -> list[Any]:
        with self._lock:
            self._underway[call.number] = call
        try:
            connection.settimeout(timeout_s)
            send(connection, [method, arguments])
            answer = receive(connection)
        except OSError:
            # The socket was closed before, at the other end (EPIPE) or, when the process's end was settled
            # before this call got here, at this one (EBADF); or with bytes of the call unread (ECONNRESET).
            raise Gone(begun=False) from None
        if answer is None:
            raise Gone(begun=True)
        return answer

    def finish(self, number: int) -> None:
        """The caller has taken in the answer, or the verdict: the call is no longer under way."""
        with self._lock:
            self.answered += 1
            self._underway.pop(number, None)
            if not self._underway:
                self._nothing_underway.notify_all()

    def verdict(self) -> Death | None:
        """How the process ended, waiting for its end; None if that does not come (it lives, but is deaf)."""
        if not self._judged.wait(_OBITUARY_TIMEOUT_S):
            self.kill()
        return self._death

    # -------------------------------------------------------------------------------- the end

    def kill(self) -> None:
        self._child.kill()

    def wait(self) -> int:
        """The exit status, when the process has ended (negative: a signal)."""
        return self._child.wait()

    def judge(self, death: Death) -> None:
        """Tell all who wait for an answer how the process ended, and wait until they have taken it in."""
        self._death = death
        self._judged.set()
        for connection in self._connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        # One for those who wait for a connection, each of whom puts it back for the next.
        self._free.put(None)
        with self._lock:
            self._nothing_underway.wait_for(lambda: not self._underway, _OBITUARY_TIMEOUT_S)

    def close(self) -> None:
        """Let the calls under way finish, then end the process and let go of the sockets."""
        for connection in self._connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_WR)
        try:
            self._child.wait(_STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait()

    def release(self) -> None:
        """Close the sockets; nobody uses them any more."""
        for connection in self._connections:
            connection.close()
