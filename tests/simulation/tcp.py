"""TCP in memory: what the real transport uses of `socket` and `selectors`, under simulated time.

Bytes arrive in order or not at all. A black hole holds them back and delivers them when it ends; a reset
takes them along; a host that loses its power says nothing to anybody. Sockets take and give as few bytes at a
time as they like.
"""

from __future__ import annotations

import errno
import os
import selectors
import socket
from collections import deque
from contextlib import contextmanager
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from cluster.raft import dialing, listener, sockets, transport

if TYPE_CHECKING:
    import random
    from collections.abc import Iterator

    from tests.simulation.clock import Scheduler

Address = tuple[str, int]

_SYN, _ACCEPTED, _REFUSED, _FIN = b"syn", b"accepted", b"refused", b"fin"
_PATCHED = ("socket", "selectors")
_ROOM_BYTES = 64 * 1024
_CONSTANTS = (
    "AF_INET",
    "AF_INET6",
    "SOCK_STREAM",
    "IPPROTO_TCP",
    "TCP_NODELAY",
    "TCP_NOTSENT_LOWAT",
    "SOL_SOCKET",
    "SO_ERROR",
    "SO_REUSEADDR",
    "AI_PASSIVE",
)


class Socket:
    """One end. `peer` is the other one, whatever has become of it."""

    def __init__(self, world: World, host: str) -> None:
        self.world = world
        self.host = host
        self.peer: Socket | None = None
        self.target: Address | None = None
        self.is_open = self.is_closed = self.is_eof = False
        self.error = 0
        self.inbox = bytearray()
        self.backlog: deque[Socket] | None = None
        self.wire: deque[tuple[bytes, bool]] = deque()
        """What this end has sent and has not arrived: (bytes, is a sign of the protocol)."""
        self.under_way = 0
        self._due_s: deque[float] = deque()

    # ------------------------------------------------------------------ as the transport calls it

    def setblocking(self, flag: bool) -> None:
        assert not flag

    def setsockopt(self, *_: Any) -> None:
        if self.is_closed or self.error:
            raise OSError(errno.EINVAL, "gone")

    def getsockopt(self, _level: int, _option: int) -> int:
        error, self.error = self.error, 0
        return error

    def getpeername(self) -> Address:
        return (self.peer.host if self.peer else "nobody", 1)

    def getsockname(self) -> Address:
        return (self.host, 1)

    def bind(self, address: Address) -> None:
        assert address[0] == self.host

    def listen(self, _backlog: int) -> None:
        self.backlog = deque()
        self.world.listening[self.host] = self

    def accept(self) -> tuple[Socket, Address]:
        if not self.backlog:
            raise BlockingIOError
        found = self.backlog.popleft()
        return found, found.getpeername()

    def connect(self, address: Address) -> None:
        self.target = address
        self._put(_SYN, True)
        raise BlockingIOError

    def send(self, data: memoryview | bytes) -> int:
        if self.error:
            raise OSError(self.error, os.strerror(self.error))
        room = _ROOM_BYTES - self.under_way
        if not self.is_open or room <= 0:
            raise BlockingIOError
        taken = bytes(data[: self.world.piece(min(len(data), room))])
        self._put(taken, False)
        return len(taken)

    def recv(self, size: int) -> bytes:
        if self.error:
            raise OSError(self.error, os.strerror(self.error))
        if self.inbox:
            size = self.world.piece(min(size, len(self.inbox)))
            data = bytes(self.inbox[:size])
            del self.inbox[:size]
            return data
        if self.is_eof:
            return b""
        raise BlockingIOError

    def close(self) -> None:
        if self.is_closed:
            return
        self.is_closed = True
        if self.world.listening.get(self.host) is self:
            del self.world.listening[self.host]
        elif self.peer is not None and not self.error:
            self._put(_FIN, True)

    # ------------------------------------------------------------------ on the way

    @property
    def readable(self) -> bool:
        return bool(self.backlog or self.inbox or self.is_eof or self.error)

    @property
    def writable(self) -> bool:
        return bool(self.error) or (self.is_open and self.under_way < _ROOM_BYTES)

    @property
    def goes_to(self) -> str:
        if self.peer is not None:
            return self.peer.host
        return self.target[0] if self.target else ""

    def _put(self, data: bytes, is_sign: bool) -> None:
        self.wire.append((data, is_sign))
        self.under_way += len(data)
        last_s = self._due_s[-1] if self._due_s else 0.0
        self._due_s.append(max(last_s, self.world.scheduler.now + self.world.delay_s()))
        self.world.scheduler.at(self._due_s[-1], self._arrive)

    def send_again(self, delay_s: float) -> None:
        """What is on the wire was lost, and is sent anew after a while."""
        due_s = self.world.scheduler.now + delay_s
        self._due_s = deque(max(due_s, at_s) for at_s in self._due_s)
        for at_s in self._due_s:
            self.world.scheduler.at(at_s, self._arrive)

    def _arrive(self) -> None:
        if not self.wire or self._due_s[0] > self.world.scheduler.now:
            return
        if (self.host, self.goes_to) in self.world.blocked:
            return  # until that ends
        self._due_s.popleft()
        data, is_sign = self.wire.popleft()
        self.under_way -= len(data)
        if is_sign and data == _SYN:
            self._knock()
            return
        peer = self.peer
        if peer is None or self.goes_to in self.world.dark:
            return
        if is_sign and data == _REFUSED:
            peer.error = peer.error or errno.ECONNREFUSED
        elif is_sign and data == _ACCEPTED:
            peer.is_open = True
        elif is_sign:
            peer.is_eof = True
        elif peer.is_closed:
            self.fail()  # there is nobody to take it any more
        else:
            peer.inbox += data

    def _knock(self) -> None:
        if self.goes_to in self.world.dark:
            return
        other = self.world.make(self.goes_to)
        other.peer, self.peer = self, other
        door = self.world.listening.get(self.goes_to)
        if door is None or door.backlog is None:
            other.is_closed = True
            other._put(_REFUSED, True)
        else:
            other.is_open = True
            door.backlog.append(other)
            other._put(_ACCEPTED, True)

    def fail(self) -> None:
        """Reset: what is under way and what was not read is gone."""
        self.error = self.error or errno.ECONNRESET
        self.inbox.clear()
        self.forget()

    def forget(self) -> None:
        """Nothing of what was sent arrives any more."""
        self.wire.clear()
        self._due_s.clear()
        self.under_way = 0


class _Selector:
    def __init__(self) -> None:
        self._keys: dict[Any, selectors.SelectorKey] = {}

    def register(self, sock: Any, events: int, data: Any = None) -> None:
        assert sock not in self._keys
        self._keys[sock] = selectors.SelectorKey(sock, 0, events, data)

    def modify(self, sock: Any, events: int, data: Any = None) -> None:
        self._keys[sock] = self._keys[sock]._replace(events=events, data=data)

    def unregister(self, sock: Any) -> None:
        del self._keys[sock]

    def select(self, _timeout_s: float) -> list[tuple[selectors.SelectorKey, int]]:
        found: list[tuple[selectors.SelectorKey, int]] = []
        for sock, key in self._keys.items():
            ready = (selectors.EVENT_READ if sock.readable else 0) | (
                selectors.EVENT_WRITE if sock.writable else 0
            )
            if ready & key.events:
                found.append((key, ready & key.events))
        return found

    def close(self) -> None:
        self._keys.clear()


class World:
    """All hosts and what is between them."""

    def __init__(self, scheduler: Scheduler, rng: random.Random) -> None:
        self.scheduler = scheduler
        self.rng = rng
        self.here = ""
        """The host whose code runs now: whose socket is a new one."""
        self.listening: dict[str, Socket] = {}
        self.sockets: list[Socket] = []
        self.blocked: set[tuple[str, str]] = set()
        self.dark: set[str] = set()
        self.most_s = 0.002
        world = self

        class OfWorld(Socket):
            """What the transport takes for the class `socket.socket`."""

            def __init__(self, *_: Any) -> None:
                super().__init__(world, world.here)
                world.sockets.append(self)

        self._kind = OfWorld

    def make(self, host: str) -> Socket:
        """A new socket of this host."""
        made = self._kind()
        made.host = host
        return made

    def delay_s(self) -> float:
        return self.rng.uniform(0.0002, self.most_s)

    def piece(self, size: int) -> int:
        """How many of `size` bytes a call takes or gives."""
        return size if self.rng.random() < 0.9 else self.rng.randint(1, size)

    @contextmanager
    def patched(self) -> Iterator[None]:
        """The transport's modules see these sockets instead of the real ones."""
        fake = SimpleNamespace(
            **{name: getattr(socket, name) for name in _CONSTANTS if hasattr(socket, name)},
            socket=self._kind,
            socketpair=lambda: (self.make(self.here), self.make(self.here)),
            getaddrinfo=lambda host, port, **_: [(socket.AF_INET, socket.SOCK_STREAM, 0, "", (host, port))],
        )
        waiting = SimpleNamespace(
            DefaultSelector=_Selector, EVENT_READ=selectors.EVENT_READ, EVENT_WRITE=selectors.EVENT_WRITE
        )
        modules: list[Any] = [dialing, listener, sockets, transport]
        held = [
            (module, name, getattr(module, name))
            for module in modules
            for name in _PATCHED
            if hasattr(module, name)
        ]
        for module, name, _ in held:
            setattr(module, name, fake if name == "socket" else waiting)
        try:
            yield
        finally:
            for module, name, real in held:
                setattr(module, name, real)

    # ------------------------------------------------------------------ faults

    def block(self, source: str, target: str) -> None:
        self.blocked.add((source, target))

    def unblock(self, source: str, target: str, most_s: float = 0.3) -> None:
        """What hung is sent again by and by, later than what is new: TCP waits ever longer between tries."""
        self.blocked.discard((source, target))
        for sock in self._between(source, target):
            sock.send_again(self.rng.uniform(most_s / 2, most_s))

    def reset(self, one: str, other: str) -> None:
        """Both ends fail, each in its own time."""
        for sock in [*self._between(one, other), *self._between(other, one)]:
            if sock.peer is not None:
                self.scheduler.after(self.rng.uniform(0.0, 0.05), sock.fail)

    def lose_power(self, host: str) -> None:
        """Nothing leaves the host any more, and nobody is told."""
        self.dark.add(host)
        self.listening.pop(host, None)
        for sock in self._from(host):
            sock.is_closed = True
            sock.forget()

    def _from(self, host: str) -> list[Socket]:
        return [sock for sock in self.sockets if sock.host == host]

    def _between(self, source: str, target: str) -> list[Socket]:
        return [sock for sock in self._from(source) if sock.goes_to == target]
