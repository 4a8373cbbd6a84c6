"""The open sockets of one node: made ready for frames (TLS included), written to, watched, broken off."""

from __future__ import annotations

import contextlib
import os
import selectors
import socket
from typing import TYPE_CHECKING

from cluster.raft.connection import Connection
from cluster.raft.framing import HANDSHAKE
from cluster.raft.handshake import refusal
from cluster.raft.tls import TLS_REQUIRED, NotTls

if TYPE_CHECKING:
    from collections.abc import Callable

    from cluster.raft.complaints import Complaints
    from cluster.raft.settings import RaftSettings
    from cluster.raft.tls import Tls

_UNSENT_BYTES = 128 * 1024
"""How much may wait unsent in the kernel: what is there cannot be overtaken by a heartbeat."""


class Sockets:
    """`on_closed` is called after a connection was closed, never from within `write` or `break_off`."""

    def __init__(
        self,
        settings: RaftSettings,
        clock: Callable[[], float],
        complaints: Complaints,
        tls: Tls | None,
        on_closed: Callable[[Connection], None],
    ) -> None:
        self.selector = selectors.DefaultSelector()
        self.connections: set[Connection] = set()
        self._settings = settings
        self._clock = clock
        self._complaints = complaints
        self._tls = tls
        self._on_closed = on_closed
        self._broken: list[tuple[Connection, str]] = []
        self._adopted = 0

    @property
    def has_broken(self) -> bool:
        """Whether `drop_broken` has something to do."""
        return bool(self._broken)

    def adopt(self, sock: socket.socket, *, is_dialer: bool) -> Connection | None:
        """A connection on a new socket, watched for what comes in; None, the socket closed, if that fails."""
        try:
            return self._adopt(sock, is_dialer=is_dialer)
        except OSError as error:  # memory or watches are used up, or whoever dialled has gone
            sock.close()
            self._complaints.warn("adopt", "cannot use a new connection: %s", error)
            return None

    def _adopt(self, sock: socket.socket, *, is_dialer: bool) -> Connection:
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with contextlib.suppress(AttributeError, OSError):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, _UNSENT_BYTES)
        connection = Connection(sock, self._settings, self._clock(), is_dialer=is_dialer)
        self._adopted += 1
        connection.number = self._adopted
        self.selector.register(sock, selectors.EVENT_READ, connection)
        self.connections.add(connection)
        connection.watched = selectors.EVENT_READ
        return connection

    # ------------------------------------------------------------------ opening

    def make_ready(self, connection: Connection) -> bool:
        """The socket is connected or broken: go on to the point at which frames can be sent; True there."""
        if isinstance(connection.sock, socket.socket):
            error = connection.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if error:
                self.break_off(connection, os.strerror(error), quiet=True)
                return False
        if self._tls is not None and not self._secure(connection, self._tls):
            return False
        connection.is_connecting = False
        return True

    def _secure(self, connection: Connection, tls: Tls) -> bool:
        """Go on with the TLS handshake, which the upkeep ends at its deadline; True when it is done."""
        try:
            if isinstance(connection.sock, socket.socket):
                self.selector.unregister(connection.sock)
                connection.tls = tls.wrap(connection.sock, is_dialer=connection.is_dialer)
                connection.sock = connection.tls
                self.selector.register(connection.sock, selectors.EVENT_READ, connection)
                connection.watched = selectors.EVENT_READ
            is_secure = connection.sock.handshake()
        except OSError as error:
            if isinstance(error, NotTls) and connection.tls is not None and connection.acceptor is not None:
                connection.writer.put_urgent(HANDSHAKE, refusal(TLS_REQUIRED))
                connection.tls.send_plain(connection.writer.next_frame() or b"")
            self.fail(connection, error)
            return False
        if not is_secure:
            self.watch(connection)
            return False
        connection.is_connecting = False
        self.write(connection)
        return not connection.is_broken

    # ------------------------------------------------------------------ sending

    def write(self, connection: Connection) -> None:
        """Send as much of what is queued as the socket takes at once."""
        if connection.is_connecting or connection.is_broken:
            return
        try:
            while True:
                if not connection.unsent:
                    frame = connection.writer.next_frame()
                    if frame is None:
                        break
                    connection.unsent = memoryview(frame)
                sent = connection.sock.send(connection.unsent)
                connection.unsent = connection.unsent[sent:]
                connection.sent_s = self._clock()
        except BlockingIOError:
            pass
        except OSError as error:
            self.fail(connection, error)
            return
        self.watch(connection)

    def watch(self, connection: Connection) -> None:
        """Wake up for what this connection waits for now."""
        wanted = selectors.EVENT_READ
        if connection.unsent or (
            connection.is_connecting if connection.tls is None else connection.tls.wants_write
        ):
            wanted |= selectors.EVENT_WRITE
        if wanted != connection.watched:
            self.selector.modify(connection.sock, wanted, connection)
            connection.watched = wanted

    # ------------------------------------------------------------------ ending

    def fail(self, connection: Connection, error: OSError) -> None:
        """The socket failed. Until TLS peers know each other every reason is logged, not just the latest.

        A dialer may see just a reset at first, and at the next try that its certificate is refused.
        """
        if connection.tls is not None and not connection.is_established:
            self._complaints.warn(
                f"tls {connection.peer}: {error}", "no TLS connection with %s: %s", connection.name, error
            )
            self.break_off(connection, str(error), quiet=True)
        else:
            self.break_off(connection, str(error))

    def break_off(self, connection: Connection, why: str, *, quiet: bool = False) -> None:
        """This connection is over; `drop_broken` closes it and, unless `quiet`, says why."""
        if not connection.is_broken:
            connection.is_broken = True
            self._broken.append((connection, "" if quiet else why))

    def drop_broken(self) -> None:
        while self._broken:
            broken, self._broken = self._broken, []
            for connection, why in broken:
                if why:
                    self._complaints.warn(
                        f"lost {connection.peer}", "lost the connection to %s: %s", connection.name, why
                    )
                self.close(connection)

    def close(self, connection: Connection) -> None:
        if connection not in self.connections:
            return
        self.connections.discard(connection)
        connection.is_broken = True
        with contextlib.suppress(KeyError, ValueError):
            self.selector.unregister(connection.sock)
        connection.sock.close()
        self._on_closed(connection)
