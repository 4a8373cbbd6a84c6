"""When a node dials which peer at which address: first tries, staggered ones, and after a loss."""

from __future__ import annotations

import ipaddress
import os
import socket
import threading
from collections import deque
from typing import TYPE_CHECKING, Any, TypeAlias

from cluster.raft.framing import HANDSHAKE
from cluster.raft.handshake import NONCE_BYTES, Dialer, Identity

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Mapping

    from cluster.raft.complaints import Complaints
    from cluster.raft.connection import Connection, Peer
    from cluster.raft.sockets import Sockets

_NEXT_DIAL_S = 0.3
_MAX_DIALS = 6
_AFTER_LOSS_S = (0.05, 0.3)
_UNRESOLVED_S = 1.0
_PATIENCE_S = 2.0
"""A member that may not know this node is dialled when it has not dialled for so long."""

_Address: TypeAlias = tuple[int, Any]


class Dialing:
    """Of a pair the node with the greater id dials; the other too when it may be unknown there.

    One dial that hangs does not keep the next from a try.
    """

    def __init__(
        self,
        identity: Identity,
        peers: Mapping[str, Peer],
        sockets: Sockets,
        complaints: Complaints,
        *,
        clock: Callable[[], float],
        rng: random.Random,
    ) -> None:
        self._identity = identity
        self._peers = peers
        self._sockets = sockets
        self._complaints = complaints
        self._clock = clock
        self._rng = rng
        self._resolved: deque[tuple[str, list[_Address] | Exception]] = deque()

    def take_resolved(self) -> None:
        """Dial where names were resolved meanwhile."""
        while self._resolved:
            self._on_resolved(*self._resolved.popleft())

    def dial_due(self, now: float) -> None:
        """Dial every peer that is this node's to dial, has no link, and whose time has come."""
        for peer, state in self._peers.items():
            if state.connection is not None or state.address is None or now < state.dial_due_s:
                continue
            is_late = state.may_not_know_us and now - state.lost_s >= _PATIENCE_S
            if self._identity.node_id > peer or is_late:
                self._dial(peer, state, now)

    def soon_again(self, peer: Peer) -> None:
        """The link broke or a dial was refused: soon again, but not in a tight loop."""
        peer.dial_due_s = self._clock() + self._rng.uniform(*_AFTER_LOSS_S)

    def _dial(self, peer: str, state: Peer, now: float) -> None:
        state.dial_due_s = now + _NEXT_DIAL_S
        if len(state.dials) >= _MAX_DIALS or state.is_resolving:
            return
        assert state.address is not None
        host, port = state.address
        try:
            ipaddress.ip_address(host)
        except ValueError:
            state.is_resolving = True
            thread = threading.Thread(
                target=self._resolve, args=(peer, host, port), name=f"resolve-{peer}", daemon=True
            )
            try:
                thread.start()
            except RuntimeError as error:  # no more threads now
                self._on_resolved(peer, error)
        else:
            family = socket.AF_INET6 if ":" in host else socket.AF_INET
            self._connect(peer, state, (family, (host, port)))

    def _resolve(self, peer: str, host: str, port: int) -> None:
        """In a thread of its own: a name server may take seconds to answer."""
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
            self._resolved.append((peer, [(entry[0], entry[4]) for entry in found]))
        except OSError as error:
            self._resolved.append((peer, error))

    def _on_resolved(self, peer: str, found: list[_Address] | Exception) -> None:
        state = self._peers.get(peer)
        if state is None or state.address is None:
            return  # it is no member any more
        state.is_resolving = False
        if isinstance(found, Exception) or not found:
            self._complaints.warn(
                f"resolve {peer}", "cannot resolve %s of %s: %s", state.address[0], peer, found
            )
            state.dial_due_s = self._clock() + _UNRESOLVED_S
        elif state.connection is None:
            state.turn += 1
            self._connect(peer, state, found[state.turn % len(found)])

    def _connect(self, peer: str, state: Peer, target: _Address) -> None:
        family, address = target
        try:
            sock = socket.socket(family, socket.SOCK_STREAM)
        except OSError as error:  # descriptors or memory are used up now; the next dial is due soon
            self._complaints.warn(f"socket {peer}", "cannot dial %s: %s", peer, error)
            return
        connection: Connection | None = self._sockets.adopt(sock, is_dialer=True)
        if connection is None:
            return
        connection.peer = peer
        connection.dialer = Dialer(self._identity, peer, os.urandom(NONCE_BYTES))
        state.dials.add(connection)
        try:
            sock.connect(address)
        except BlockingIOError:
            pass
        except OSError as error:
            self._sockets.break_off(connection, str(error), quiet=True)
            return
        connection.writer.put_urgent(HANDSHAKE, connection.dialer.hello())
        connection.is_connecting = True
        self._sockets.watch(connection)
