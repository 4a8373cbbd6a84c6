"""One socket between two nodes, and what is known about the peer at its other end."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from cluster.raft.framing import FrameReader, FrameWriter

if TYPE_CHECKING:
    import socket

    from pysyncobj.node import Node

    from cluster.raft.handshake import Acceptor, Dialer, Link
    from cluster.raft.settings import RaftSettings
    from cluster.raft.tls import TlsSocket


class Connection:
    """One socket with its framing and the state of its handshake."""

    def __init__(self, sock: socket.socket, settings: RaftSettings, now: float, *, is_dialer: bool) -> None:
        self.sock: socket.socket | TlsSocket = sock
        self.tls: TlsSocket | None = None
        self.is_dialer = is_dialer
        # A message may hold one entry of the largest size after others of nearly append_bytes together.
        limit = settings.max_frame_bytes + settings.append_bytes
        self.reader = FrameReader(settings.fragment_bytes, limit)
        self.writer = FrameWriter(settings.fragment_bytes)
        self.peer: str | None = None
        self.dialer: Dialer | None = None
        self.acceptor: Acceptor | None = None
        self.link: Link | None = None
        """What was agreed on, once the peer has proven itself."""
        self.is_connecting = False
        """TCP or TLS is not ready for frames yet."""
        self.is_established = False
        self.is_broken = False
        self.unsent: memoryview = memoryview(b"")
        self.opened_s = self.received_s = self.sent_s = now
        self.number = 0
        """Counts this node's sockets in the order in which they were opened or accepted."""
        self.watched = 0

    @property
    def name(self) -> str:
        """Who is at the other end, for the log."""
        if self.peer is not None:
            return self.peer
        with contextlib.suppress(OSError):
            return f"a stranger at {self.sock.getpeername()}"
        return "a stranger"


class Peer:
    """What is known about one node: its link if there is one, and the attempts to get one.

    Without an address it is not dialled: a stranger that dialled this node, or a member whose address is not
    known here.
    """

    def __init__(self, node: Node, address: tuple[str, int] | None) -> None:
        self.node = node
        self.address = address
        self.is_member = True
        self.may_not_know_us = False
        """It may have settings without this node: it is dialled although it should dial, if it does not."""
        self.lost_s = float("-inf")
        """Since when there is no link."""
        self.run = ""
        """Which life of its process the link is to."""
        self.refused: str | None = None
        """Why there is no link: one of the two refused the other, the last time that they spoke."""
        self.connection: Connection | None = None
        self.dials: set[Connection] = set()
        self.newest = 0
        """The number of the latest connection over which it has proven itself."""
        self.dial_due_s = 0.0
        self.is_resolving = False
        self.turn = -1
        """Which of the addresses that its name has was dialled last."""
