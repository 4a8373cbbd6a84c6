"""The wire between nodes: one authenticated TCP connection a pair, driven by `poll` from the raft thread.

Node ids are independent of the addresses that are dialled, so a link can run through a proxy. Of a pair
the node with the greater id dials. A connection that is silent for `dead_after_ms` is dropped, so a black
hole ends like a reset. Dials are staggered: one that hangs does not keep the next from being tried.
"""

from __future__ import annotations

import contextlib
import ipaddress
import logging
import os
import selectors
import socket
import threading
from collections import deque
from typing import TYPE_CHECKING, Any

from pysyncobj.node import Node
from pysyncobj.transport import Transport

from cluster.errors import Fault
from cluster.raft import messages
from cluster.raft.framing import HANDSHAKE, MESSAGE, PING, FrameReader, FrameWriter, FramingError
from cluster.raft.handshake import NONCE_BYTES, Acceptor, Dialer, Identity, Refused, refusal
from cluster.raft.tls import PEER_SPEAKS_TLS, TLS_REQUIRED, NotTls, Tls, TlsSocket, looks_like_tls

if TYPE_CHECKING:
    import random
    from collections.abc import Callable

    from cluster.raft.settings import RaftSettings

logger = logging.getLogger(__name__)

_RECEIVE_BYTES = 256 * 1024
_RECEIVES_A_POLL = 8
_UNSENT_BYTES = 128 * 1024
"""How much may wait unsent in the kernel: what is there cannot be overtaken by a heartbeat."""
_HANDSHAKE_S = 3.0
_NEXT_DIAL_S = 0.3
_MAX_DIALS = 6
_MAX_STRANGERS = 64
_URGENT_LIMIT_BYTES = 1024 * 1024
_UPKEEP_S = 0.05
_LOG_AGAIN_S = 10.0


class TcpTransport(Transport):
    """All methods but `wake` belong to the thread that calls `poll`; callbacks come from within `poll`."""

    def __init__(
        self,
        identity: Identity,
        members: dict[str, tuple[str, int]],
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
        self._rng = rng
        self._bind = bind
        self._tls = tls
        self._peers = {
            peer: _Peer(Node(peer), address) for peer, address in members.items() if peer != identity.node_id
        }
        self._selector = selectors.DefaultSelector()
        self.on_alive: Callable[[Node, bool], None] | None = None
        """Called when bytes came from a peer; True when they were pieces of a long message."""
        self._listener: socket.socket | None = None
        self._connections: set[_Connection] = set()
        self._broken: list[tuple[_Connection, str]] = []
        self._resolved: deque[tuple[str, list[_Address] | Exception]] = deque()
        self._encoded: tuple[Any, bytes] | None = None
        self._upkeep_due_s = 0.0
        self._upkeep_last_s: float | None = None
        self._logged: dict[str, float] = {}
        self._wake_receiver, self._wake_sender = socket.socketpair()
        self._wake_receiver.setblocking(False)
        self._wake_sender.setblocking(False)
        self._selector.register(self._wake_receiver, selectors.EVENT_READ, None)

    # ------------------------------------------------------------------ for the node and the driver

    def open(self) -> int:
        """Bind and listen; the port.

        Raises:
            Fault: the address cannot be bound.
        """
        host, port = self._bind
        listener: socket.socket | None = None
        try:
            family, kind, proto, _, address = socket.getaddrinfo(
                host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
            )[0]
            listener = socket.socket(family, kind, proto)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
        except OSError as error:
            if listener is not None:
                listener.close()
            raise Fault(
                f"Node {self._identity.node_id} cannot listen for its peers on {host}:{port}: {error}. "
                "Nothing was changed; free the address or configure another."
            ) from error
        listener.listen(128)
        listener.setblocking(False)
        self._listener = listener
        self._selector.register(listener, selectors.EVENT_READ, listener)
        return int(listener.getsockname()[1])

    @property
    def connected(self) -> tuple[str, ...]:
        """The ids of the peers with a live, authenticated connection."""
        return tuple(peer for peer, state in self._peers.items() if state.connection is not None)

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
                self._break(connection, "it does not take what is sent to it")
                return False
            connection.writer.put_urgent(MESSAGE, data)
        self._write(connection)
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
        if self._broken:
            timeout_s = 0.0
        wait_s = max(0.0, min(timeout_s, self._upkeep_due_s - now))
        for key, events in self._selector.select(wait_s):
            if key.data is None:
                with contextlib.suppress(BlockingIOError):
                    while self._wake_receiver.recv(4096):
                        pass
            elif isinstance(key.data, _Connection):
                self._serve(key.data, events)
            else:
                self._accept()
        self._drop_broken()
        now = self._clock()
        if now >= self._upkeep_due_s:
            self._upkeep(now)
            self._drop_broken()

    def destroy(self) -> None:
        for connection in list(self._connections):
            self._close(connection)
        if self._listener is not None:
            self._selector.unregister(self._listener)
            self._listener.close()
            self._listener = None
        with contextlib.suppress(KeyError, ValueError):
            self._selector.unregister(self._wake_receiver)
        self._selector.close()
        self._wake_receiver.close()
        self._wake_sender.close()

    # ------------------------------------------------------------------ upkeep: dials, pings, dead links

    def _upkeep(self, now: float) -> None:
        last = self._upkeep_last_s
        self._upkeep_last_s = now
        self._upkeep_due_s = now + _UPKEEP_S
        if last is not None and now - last > 5 * _UPKEEP_S:
            # This thread itself was held up: what the others sent meanwhile is only being read now.
            for connection in self._connections:
                connection.received_s += now - last
        while self._resolved:
            self._on_resolved(*self._resolved.popleft())
        dead_after_s = self._settings.dead_after_ms / 1000
        for connection in list(self._connections):
            if connection.peer is None or not connection.is_established:
                if now - connection.opened_s > _HANDSHAKE_S:
                    self._break(connection, "its handshake took too long", quiet=connection.is_dialer)
            elif now - connection.received_s > dead_after_s:
                self._break(connection, f"nothing came from it for {self._settings.dead_after_ms} ms")
            elif now - connection.sent_s >= self._settings.heartbeat_ms / 1000:
                connection.writer.put_urgent(PING, b"")
                self._write(connection)
        for peer, state in self._peers.items():
            if self._identity.node_id > peer and state.connection is None and now >= state.dial_due_s:
                self._dial(peer, state, now)

    def _dial(self, peer: str, state: _Peer, now: float) -> None:
        state.dial_due_s = now + _NEXT_DIAL_S
        if len(state.dials) >= _MAX_DIALS or state.is_resolving:
            return
        host, port = state.address
        try:
            ipaddress.ip_address(host)
        except ValueError:
            state.is_resolving = True
            threading.Thread(
                target=self._resolve, args=(peer, host, port), name=f"resolve-{peer}", daemon=True
            ).start()
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
        state = self._peers[peer]
        state.is_resolving = False
        if isinstance(found, Exception) or not found:
            self._log(f"resolve {peer}", "cannot resolve %s of %s: %s", state.address[0], peer, found)
            state.dial_due_s = self._clock() + 1.0
        elif state.connection is None:
            state.turn += 1
            self._connect(peer, state, found[state.turn % len(found)])

    def _connect(self, peer: str, state: _Peer, target: _Address) -> None:
        family, address = target
        sock = socket.socket(family, socket.SOCK_STREAM)
        connection = self._adopt(sock, is_dialer=True)
        connection.peer = peer
        connection.dialer = Dialer(self._identity, peer, os.urandom(NONCE_BYTES))
        state.dials.add(connection)
        try:
            sock.connect(address)
        except BlockingIOError:
            pass
        except OSError as error:
            self._break(connection, str(error), quiet=True)
            return
        connection.writer.put_urgent(HANDSHAKE, connection.dialer.hello())
        connection.is_connecting = True
        self._watch(connection)

    # ------------------------------------------------------------------ connections

    def _accept(self) -> None:
        listener = self._listener
        while listener is not None:
            try:
                sock, _ = listener.accept()
            except BlockingIOError:
                return
            except OSError as error:
                self._log("accept", "cannot accept a connection: %s", error)
                return
            strangers = [other for other in self._connections if other.acceptor and not other.is_established]
            if len(strangers) >= _MAX_STRANGERS:
                self._close(min(strangers, key=lambda other: other.opened_s))
            connection = self._adopt(sock, is_dialer=False)
            connection.acceptor = Acceptor(self._identity, frozenset(self._peers), os.urandom(NONCE_BYTES))
            connection.is_connecting = self._tls is not None

    def _adopt(self, sock: socket.socket, *, is_dialer: bool) -> _Connection:
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with contextlib.suppress(AttributeError, OSError):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, _UNSENT_BYTES)
        connection = _Connection(sock, self._settings, self._clock(), is_dialer=is_dialer)
        self._connections.add(connection)
        self._selector.register(sock, selectors.EVENT_READ, connection)
        connection.watched = selectors.EVENT_READ
        return connection

    def _serve(self, connection: _Connection, events: int) -> None:
        if connection.is_broken:
            return
        if connection.is_connecting and not self._open_way(connection):
            return
        if events & selectors.EVENT_WRITE:
            self._write(connection)
        tls = connection.tls
        if (events & selectors.EVENT_READ or (tls and tls.wants_write)) and not connection.is_broken:
            self._read(connection)
            if tls is not None and not connection.is_broken:
                self._watch(connection)

    def _open_way(self, connection: _Connection) -> bool:
        """The socket is connected or broken: go on to the point at which frames can be sent; True there."""
        if isinstance(connection.sock, socket.socket):
            error = connection.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if error:
                self._break(connection, os.strerror(error), quiet=True)
                return False
        if self._tls is not None and not self._secure(connection, self._tls):
            return False
        connection.is_connecting = False
        return True

    def _secure(self, connection: _Connection, tls: Tls) -> bool:
        """Go on with the TLS handshake, which `upkeep` ends at its deadline; True when it is done."""
        try:
            if isinstance(connection.sock, socket.socket):
                self._selector.unregister(connection.sock)
                connection.tls = tls.wrap(connection.sock, is_dialer=connection.is_dialer)
                connection.sock = connection.tls
                self._selector.register(connection.sock, selectors.EVENT_READ, connection)
                connection.watched = selectors.EVENT_READ
            is_secure = connection.sock.handshake()
        except OSError as error:
            if isinstance(error, NotTls) and connection.tls is not None and connection.acceptor is not None:
                connection.writer.put_urgent(HANDSHAKE, refusal(TLS_REQUIRED))
                connection.tls.send_plain(connection.writer.next_frame() or b"")
            self._fail(connection, error)
            return False
        if not is_secure:
            self._watch(connection)
            return False
        connection.is_connecting = False
        self._write(connection)
        return not connection.is_broken

    def _read(self, connection: _Connection) -> None:
        for _ in range(_RECEIVES_A_POLL):
            try:
                data = connection.sock.recv(_RECEIVE_BYTES)
            except BlockingIOError:
                break
            except OSError as error:
                self._fail(connection, error)
                break
            if not data:
                self._break(connection, "it closed the connection")
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

    def _handle_messages(self, connection: _Connection) -> bool:
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
                self._break(connection, f"it sent {error}")
        except Refused as refused:
            self._refuse(connection, refused.reason)
        return False

    def _shake_hands(self, connection: _Connection, body: bytes) -> None:
        if connection.dialer is not None and connection.peer is not None:
            proof, keys = connection.dialer.on_challenge(body)
            connection.writer.put_urgent(HANDSHAKE, proof)
            self._write(connection)
            connection.writer.set_key(keys.dialer)
            connection.reader.set_key(keys.acceptor)
            self._establish(connection, connection.peer)
        elif connection.acceptor is not None and connection.acceptor.wants_hello:
            connection.writer.put_urgent(HANDSHAKE, connection.acceptor.on_hello(body))
            self._write(connection)
        elif connection.acceptor is not None:
            peer, keys = connection.acceptor.on_proof(body)
            connection.writer.set_key(keys.acceptor)
            connection.reader.set_key(keys.dialer)
            self._establish(connection, peer)

    def _establish(self, connection: _Connection, peer: str) -> None:
        state = self._peers[peer]
        if state.connection is not None:
            # The peer has given the old connection up, or it would not have dialled again.
            self._close(state.connection)
        connection.peer = peer
        connection.is_established = True
        state.connection = connection
        for other in list(state.dials):
            state.dials.discard(other)
            if other is not connection:
                self._close(other)
        self._logged.pop(f"lost {peer}", None)
        logger.info("raft %s: connected to %s", self._identity.node_id, peer)
        self._onNodeConnected(state.node)

    def _refuse(self, connection: _Connection, reason: str) -> None:
        if connection.acceptor is not None:
            with contextlib.suppress(OSError):
                connection.writer.put_urgent(HANDSHAKE, refusal(reason))
                self._write(connection)
        self._log(f"refused {connection.peer}: {reason}", "refused %s: %s", self._name(connection), reason)
        self._break(connection, reason, quiet=True)

    def _write(self, connection: _Connection) -> None:
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
            self._fail(connection, error)
            return
        self._watch(connection)

    def _watch(self, connection: _Connection) -> None:
        wanted = selectors.EVENT_READ
        if connection.unsent or (
            connection.is_connecting if connection.tls is None else connection.tls.wants_write
        ):
            wanted |= selectors.EVENT_WRITE
        if wanted != connection.watched:
            self._selector.modify(connection.sock, wanted, connection)
            connection.watched = wanted

    def _fail(self, connection: _Connection, error: OSError) -> None:
        """The socket failed. Until TLS peers know each other every reason is logged, not just the latest.

        A dialer may see just a reset at first, and at the next try that its certificate is refused.
        """
        if connection.tls is not None and not connection.is_established:
            name = self._name(connection)
            self._log(f"tls {connection.peer}: {error}", "no TLS connection with %s: %s", name, error)
            self._break(connection, str(error), quiet=True)
        else:
            self._break(connection, str(error))

    def _break(self, connection: _Connection, why: str, *, quiet: bool = False) -> None:
        if not connection.is_broken:
            connection.is_broken = True
            self._broken.append((connection, "" if quiet else why))

    def _drop_broken(self) -> None:
        while self._broken:
            broken, self._broken = self._broken, []
            for connection, why in broken:
                if why:
                    name = self._name(connection)
                    self._log(f"lost {connection.peer}", "lost the connection to %s: %s", name, why)
                self._close(connection)

    def _close(self, connection: _Connection) -> None:
        if connection not in self._connections:
            return
        self._connections.discard(connection)
        connection.is_broken = True
        with contextlib.suppress(KeyError, ValueError):
            self._selector.unregister(connection.sock)
        connection.sock.close()
        state = self._peers.get(connection.peer or "")
        if state is None:
            return
        state.dials.discard(connection)
        if state.connection is connection:
            state.connection = None
            state.dial_due_s = self._clock() + self._rng.uniform(0.05, 0.3)
            self._onNodeDisconnected(state.node)
        elif connection.is_dialer and state.connection is None:
            # A refused dial: soon again, but not in a tight loop.
            state.dial_due_s = self._clock() + self._rng.uniform(0.05, 0.3)

    def _name(self, connection: _Connection) -> str:
        if connection.peer is not None:
            return connection.peer
        with contextlib.suppress(OSError):
            return f"a stranger at {connection.sock.getpeername()}"
        return "a stranger"

    def _log(self, key: str, text: str, *values: object) -> None:
        """A warning, but the same one only every few seconds."""
        now = self._clock()
        if now - self._logged.get(key, -1e9) >= _LOG_AGAIN_S:
            if len(self._logged) > 1000:
                self._logged.clear()
            self._logged[key] = now
            logger.warning("raft %s: " + text, self._identity.node_id, *values)


_Address = tuple[int, Any]


class _Peer:
    """What is known about one member: its link if there is one, and the attempts to get one."""

    def __init__(self, node: Node, address: tuple[str, int]) -> None:
        self.node = node
        self.address = address
        self.connection: _Connection | None = None
        self.dials: set[_Connection] = set()
        self.dial_due_s = 0.0
        self.is_resolving = False
        self.turn = -1


class _Connection:
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
        self.is_connecting = False
        """TCP or TLS is not ready for frames yet."""
        self.is_established = False
        self.is_broken = False
        self.unsent: memoryview = memoryview(b"")
        self.opened_s = self.received_s = self.sent_s = now
        self.watched = 0
