"""The address at which a node's peers dial it."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

from cluster.errors import Fault

if TYPE_CHECKING:
    from cluster.raft.complaints import Complaints

_BACKLOG = 128


class Listener:
    """A listening socket, from `open` to `close`."""

    def __init__(self, node_id: str, bind: tuple[str, int], complaints: Complaints) -> None:
        self.sock: socket.socket | None = None
        self.is_resting = False
        """Who dials cannot be accepted now, for want of descriptors: look again later, not all the time."""
        self._node_id = node_id
        self._bind = bind
        self._complaints = complaints

    def open(self) -> socket.socket:
        """Bind and listen.

        Raises:
            Fault: the address cannot be bound.
        """
        host, port = self._bind
        sock: socket.socket | None = None
        try:
            family, kind, proto, _, address = socket.getaddrinfo(
                host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
            )[0]
            sock = socket.socket(family, kind, proto)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind(address)
        except OSError as error:
            if sock is not None:
                sock.close()
            raise Fault(
                f"Node {self._node_id} cannot listen for its peers on {host}:{port}: {error}. "
                "Nothing was changed; free the address or configure another."
            ) from error
        sock.listen(_BACKLOG)
        sock.setblocking(False)
        self.sock = sock
        return sock

    def accept(self) -> socket.socket | None:
        """The next who dialled; None when nobody waits or it cannot be accepted now."""
        if self.sock is None:
            return None
        try:
            return self.sock.accept()[0]
        except BlockingIOError:
            return None
        except OSError as error:
            self.is_resting = True
            self._complaints.warn("accept", "cannot accept a connection: %s", error)
            return None

    def close(self) -> None:
        if self.sock is not None:
            self.sock.close()
            self.sock = None
