"""The wire between nodes: one authenticated TCP connection a pair, driven by `poll` from the raft thread.

Node ids are independent of the addresses that are dialled, so a link can run through a proxy. Of a pair
the node with the greater id dials. A connection that is silent for `dead_after_ms` is dropped, so a black
hole ends like a reset. Dials are staggered: one that hangs does not keep the next from being tried.
"""

from __future__ import annotations

import contextlib
import logging
import os
import selectors
import socket
from typing import TYPE_CHECKING, Any

from pysyncobj.node import Node
from pysyncobj.transport import Transport

from cluster.levels import Levels, quarrel
from cluster.raft import messages
from cluster.raft.complaints import Complaints
from cluster.raft.connection import Connection, Peer
from cluster.raft.dialing import Dialing
from cluster.raft.framing import HANDSHAKE, MESSAGE, PING, FramingError
from cluster.raft.handshake import NONCE_BYTES, Acceptor, Identity, Link, Refused, refusal
from cluster.raft.listener import Listener
from cluster.raft.sockets import Sockets
from cluster.raft.tls import PEER_SPEAKS_TLS, Tls, looks_like_tls

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Collection, Mapping

    from cluster.raft.settings import RaftSettings

logger = logging.getLogger(__name__)

_RECEIVE_BYTES = 256 * 1024
_RECEIVES_A_POLL = 8
_HANDSHAKE_S = 3.0
_MAX_STRANGERS = 64
_URGENT_LIMIT_BYTES = 1024 * 1024
_UPKEEP_S = 0.05
_MAX_GUESTS = 32
"""How many nodes that are no members, as far as this node knows, may be connected."""
_ALIVE_BEATS = 4
"""A link on which something came within so many heartbeats is alive."""


class TcpTransport(Transport):
    """All methods but `wake` belong to the thread that calls `poll`; callbacks come from within `poll`."""

    def __init__(
        self,
        identity: Identity,
        members: Mapping[str, tuple[str, int] | None],
        bind: tuple[str, int],
        settings: RaftSettings,
        *,
        clock: Callable[[], float],
        rng: random.Random,
        tls: Tls | None = None,
    ) -> None:
        super().__init__(None, None, ())
        self._identity = identity
        self._settings = settings
        self._clock = clock
        self._tls = tls
        self._peers: dict[str, Peer] = {}
        self.set_members(members)
        self.on_alive: Callable[[Node, bool], None] | None = None
        """Called when bytes came from a peer; True when they were pieces of a long message."""
        self._complaints = Complaints(identity.node_id, clock)
        self._sockets = Sockets(settings, clock, self._complaints, tls, self._on_closed)
        self._listener = Listener(identity.node_id, bind, self._complaints)
        self._dialing = Dialing(identity, self._peers, self._sockets, self._complaints, clock=clock, rng=rng)
        self._encoded: tuple[Any, bytes] | None = None
        self._upkeep_due_s = 0.0
        self._upkeep_last_s: float | None = None
        self._wake_receiver, self._wake_sender = socket.socketpair()
        self._wake_receiver.setblocking(False)
        self._wake_sender.setblocking(False)
        self._sockets.selector.register(self._wake_receiver, selectors.EVENT_READ, None)

    # ------------------------------------------------------------------ for the node and the driver

    def open(self) -> int:
        """Bind and listen; the port.

        Raises:
            Fault: the address cannot be bound.
        """
        sock = self._listener.open()
        self._sockets.selector.register(sock, selectors.EVENT_READ, self._listener)
        return int(sock.getsockname()[1])

    def set_members(
        self, members: Mapping[str, tuple[str, int] | None], newcomers: Collection[str] = ()
    ) -> None:
        """Who is a member from now on, and where it is dialled; the own id may be among them.

        Links stay, also to those that are no members any more: it is the node that judges what they say.
        `newcomers` may not know this node, or it is one itself: see `Dialing`.
        """
        now = self._clock()
        for peer, state in list(self._peers.items()):
            if peer not in members:
                state.is_member, state.address = False, None
                self._drop_guest(peer, state)
        for peer, address in members.items():
            if peer == self._identity.node_id:
                continue
            state = self._peers.get(peer)
            if state is None:
                state = self._peers[peer] = Peer(Node(peer), address)
                state.lost_s = now
            if state.address != address:
                state.address, state.dial_due_s = address, 0.0
            state.is_member, state.may_not_know_us = True, peer in newcomers

    def _drop_guest(self, peer: str, state: Peer) -> None:
        """Nothing is remembered of one that is neither member nor connected."""
        if not state.is_member and state.connection is None and not state.dials:
            self._peers.pop(peer, None)

    @property
    def connected(self) -> tuple[str, ...]:
        """The ids of the peers with a live, authenticated connection."""
        return tuple(peer for peer, state in self._peers.items() if state.connection is not None)

    @property
    def levels(self) -> dict[str, Levels]:
        """What each connected peer said of command levels when it connected."""
        links = {peer: state.connection.link for peer, state in self._peers.items() if state.connection}
        return {peer: link.peer_levels for peer, link in links.items() if link is not None}

    @property
    def refused(self) -> dict[str, str]:
        """Why there is no link, by the ids of the members with which one was refused last."""
        return {peer: state.refused for peer, state in self._peers.items() if state.refused is not None}

    def send(self, node: Node, message: Any) -> bool:
        """Queue `message` and send what the socket takes at once; False when there is no room or link.

        Never calls back: a connection that breaks here is reported by the next `poll`.
        """
        state = self._peers.get(node.id)
        connection = None if state is None else state.connection
        if connection is None or connection.is_broken:
            return False
        data = self._encode(message)
        if type(message) is messages.Append and message.entries:
            if connection.writer.bulk_bytes > self._settings.inflight_bytes:
                return False
            connection.writer.put_bulk(data)
        else:
            if connection.writer.urgent_bytes > _URGENT_LIMIT_BYTES:
                self._sockets.break_off(connection, "it does not take what is sent to it")
                return False
            connection.writer.put_urgent(MESSAGE, data)
        self._sockets.write(connection)
        return not connection.is_broken

    def _encode(self, message: Any) -> bytes:
        """Followers at one place are sent one and the same message: encode it once."""
        if self._encoded is None or self._encoded[0] is not message:
            self._encoded = (message, messages.encode(message))
        return self._encoded[1]

    def wake(self) -> None:
        """Make a waiting `poll` return; any thread."""
        with contextlib.suppress(BlockingIOError, OSError):
            self._wake_sender.send(b"w")

    def poll(self, timeout_s: float) -> None:
        """Wait for the network up to `timeout_s`, then handle all that is there."""
        now = self._clock()
        self._encoded = None
        if self._sockets.has_broken:
            timeout_s = 0.0
        wait_s = max(0.0, min(timeout_s, self._upkeep_due_s - now))
        for key, events in self._sockets.selector.select(wait_s):
            if key.data is None:
                with contextlib.suppress(BlockingIOError):
                    while self._wake_receiver.recv(4096):
                        pass
            elif isinstance(key.data, Connection):
                self._serve(key.data, events)
            else:
                self._accept()
        self._sockets.drop_broken()
        now = self._clock()
        if now >= self._upkeep_due_s:
            self._upkeep(now)
            self._sockets.drop_broken()

    def destroy(self) -> None:
        for connection in list(self._sockets.connections):
            self._sockets.close(connection)
        selector = self._sockets.selector
        if self._listener.sock is not None:
            with contextlib.suppress(KeyError, ValueError):
                selector.unregister(self._listener.sock)
            self._listener.close()
        with contextlib.suppress(KeyError, ValueError):
            selector.unregister(self._wake_receiver)
        selector.close()
        self._wake_receiver.close()
        self._wake_sender.close()

    # ------------------------------------------------------------------ upkeep: dials, pings, dead links

    def _upkeep(self, now: float) -> None:
        last = self._upkeep_last_s
        self._upkeep_last_s = now
        self._upkeep_due_s = now + _UPKEEP_S
        if last is not None and now - last > 5 * _UPKEEP_S:
            # This thread itself was held up: what the others sent meanwhile is only being read now.
            for connection in self._sockets.connections:
                connection.received_s = min(now, connection.received_s + now - last)
        if self._listener.is_resting and self._listener.sock is not None:
            self._listener.is_resting = False
            self._sockets.selector.register(self._listener.sock, selectors.EVENT_READ, self._listener)
        self._dialing.take_resolved()
        for connection in list(self._sockets.connections):
            self._look_after(connection, now)
        self._dialing.dial_due(now)

    def _look_after(self, connection: Connection, now: float) -> None:
        if connection.peer is None or not connection.is_established:
            if now - connection.opened_s > _HANDSHAKE_S:
                why = "its handshake took too long"
                self._sockets.break_off(connection, why, quiet=connection.is_dialer)
        elif (why := self._outgrown(connection, connection.peer)) is not None:
            self._sockets.break_off(connection, why)
        elif now - connection.received_s > self._settings.dead_after_s:
            why = f"nothing came from it for {self._settings.dead_after_ms} ms"
            self._sockets.break_off(connection, why)
        elif now - connection.sent_s >= self._settings.heartbeat_s:
            connection.writer.put_urgent(PING, b"")
            self._sockets.write(connection)

    def _outgrown(self, connection: Connection, peer: str) -> str | None:
        """The level rose since the peer connected, and it is no member for which that would have waited."""
        link = connection.link
        return None if link is None else quarrel(self._identity.levels(), peer, link.peer_levels)

    # ------------------------------------------------------------------ connections

    def _accept(self) -> None:
        while (sock := self._listener.accept()) is not None:
            strangers = [
                other for other in self._sockets.connections if other.acceptor and not other.is_established
            ]
            if len(strangers) >= _MAX_STRANGERS:
                self._sockets.close(min(strangers, key=lambda other: other.opened_s))
            connection = self._sockets.adopt(sock, is_dialer=False)
            if connection is None:
                return
            connection.acceptor = Acceptor(self._identity, self._refuses, os.urandom(NONCE_BYTES))
            connection.is_connecting = self._tls is not None
        if self._listener.is_resting and self._listener.sock is not None:
            self._sockets.selector.unregister(self._listener.sock)

    def _refuses(self, peer: str, run: str) -> str | None:
        """Whether a node is let in that says it is `peer`. Members or not: that is for the node to judge."""
        state = self._peers.get(peer)
        if state is None:
            guests = sum(not other.is_member for other in self._peers.values())
            return "too many nodes that are no members are connected" if guests >= _MAX_GUESTS else None
        alive_s = _ALIVE_BEATS * self._settings.heartbeat_s
        connection = state.connection
        if connection is None or state.run == run or self._clock() - connection.received_s > alive_s:
            return None
        return (
            f"another process is running as {peer} and is connected: one of the two runs on a copy of the "
            "other's directory, or under the other's id. Stop this one"
        )

    def _serve(self, connection: Connection, events: int) -> None:
        if connection.is_broken:
            return
        if connection.is_connecting and not self._sockets.make_ready(connection):
            return
        if events & selectors.EVENT_WRITE:
            self._sockets.write(connection)
        tls = connection.tls
        if (events & selectors.EVENT_READ or (tls and tls.wants_write)) and not connection.is_broken:
            self._read(connection)
            if tls is not None and not connection.is_broken:
                self._sockets.watch(connection)

    def _read(self, connection: Connection) -> None:
        for _ in range(_RECEIVES_A_POLL):
            try:
                data = connection.sock.recv(_RECEIVE_BYTES)
            except BlockingIOError:
                break
            except OSError as error:
                self._sockets.fail(connection, error)
                break
            if not data:
                self._sockets.break_off(connection, "it closed the connection")
                break
            connection.received_s = self._clock()
            connection.reader.feed(data)
            pieces = connection.reader.pieces_seen
            is_whole = self._handle_messages(connection)
            if connection.is_established and not connection.is_broken and self.on_alive is not None:
                state = self._peers[connection.peer or ""]
                self.on_alive(state.node, connection.reader.pieces_seen > pieces)
            if not is_whole or len(data) < _RECEIVE_BYTES:
                break

    def _handle_messages(self, connection: Connection) -> bool:
        try:
            while not connection.is_broken:
                found = connection.reader.next_message()
                if found is None:
                    return True
                kind, body = found
                if kind == HANDSHAKE:
                    self._shake_hands(connection, body)
                elif kind == MESSAGE:
                    state = self._peers[connection.peer or ""]
                    self._onMessageReceived(state.node, messages.decode(body))
        except (FramingError, ValueError) as error:
            if (
                self._tls is None
                and not connection.is_established
                and looks_like_tls(connection.reader.unread)
            ):
                self._refuse(connection, PEER_SPEAKS_TLS)
            else:
                self._sockets.break_off(connection, f"it sent {error}")
        except Refused as refused:
            state = self._peers.get(refused.peer or "")
            if state is not None and state.connection is None:
                state.refused = refused.reason
            self._refuse(connection, refused.reason)
        return False

    def _shake_hands(self, connection: Connection, body: bytes) -> None:
        if connection.dialer is not None and connection.peer is not None:
            proof, keys = connection.dialer.on_challenge(body)
            connection.writer.put_urgent(HANDSHAKE, proof)
            self._sockets.write(connection)
            connection.writer.set_key(keys.dialer)
            connection.reader.set_key(keys.acceptor)
            self._establish(connection, connection.peer, connection.dialer.link)
        elif connection.acceptor is not None and connection.acceptor.wants_hello:
            connection.writer.put_urgent(HANDSHAKE, connection.acceptor.on_hello(body))
            self._sockets.write(connection)
        elif connection.acceptor is not None:
            peer, keys = connection.acceptor.on_proof(body)
            link = connection.acceptor.link
            if link is not None and (reason := self._refuses(peer, link.peer_run)) is not None:
                raise Refused(reason)
            connection.writer.set_key(keys.acceptor)
            connection.reader.set_key(keys.dialer)
            self._establish(connection, peer, link)

    def _establish(self, connection: Connection, peer: str, link: Link | None) -> None:
        assert link is not None
        state = self._peers.get(peer)
        if state is None:
            state = self._peers[peer] = Peer(Node(peer), None)
            state.is_member = False
        if connection.number < state.newest:
            # What hung in the network since before the peer dialled anew: it has given this one up long ago.
            self._sockets.break_off(connection, "the peer has connected anew since", quiet=True)
            return
        state.newest = connection.number
        if state.connection is not None:
            # The peer has given the old connection up, or it would not have dialled again.
            self._sockets.close(state.connection)
            self._peers[peer] = state  # a guest is forgotten with its link
        connection.peer = peer
        connection.is_established = True
        connection.link = link
        state.connection, state.run, state.refused = connection, link.peer_run, None
        for other in list(state.dials):
            state.dials.discard(other)
            if other is not connection:
                self._sockets.close(other)
        self._complaints.forget(f"lost {peer}")
        logger.info("raft %s: connected to %s", self._identity.node_id, peer)
        self._onNodeConnected(state.node)

    def _refuse(self, connection: Connection, reason: str) -> None:
        if connection.acceptor is not None:
            with contextlib.suppress(OSError):
                connection.writer.put_urgent(HANDSHAKE, refusal(reason))
                self._sockets.write(connection)
        self._complaints.warn(
            f"refused {connection.peer}: {reason}", "refused %s: %s", connection.name, reason
        )
        self._sockets.break_off(connection, reason, quiet=True)

    def _on_closed(self, connection: Connection) -> None:
        state = self._peers.get(connection.peer or "")
        if state is None:
            return
        state.dials.discard(connection)
        if state.connection is connection:
            state.connection = None
            state.lost_s = self._clock()
            self._dialing.soon_again(state)
            self._onNodeDisconnected(state.node)
        elif connection.is_dialer and state.connection is None:
            self._dialing.soon_again(state)
        self._drop_guest(connection.peer or "", state)
