"""A link between two raft nodes that can go silent or slow."""

from __future__ import annotations

import selectors
import socket
import threading


class Link:
    """A TCP relay that can be made a black hole: what is sent then neither arrives nor fails."""

    def __init__(self, target_port: int) -> None:
        self.target_port = target_port
        self.is_silent = False
        self.bytes_per_s: float | None = None
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._others: dict[socket.socket, socket.socket] = {}
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._is_over.is_set():
            if self.is_silent:
                self._is_over.wait(0.02)
                continue
            for key, _ in self._selector.select(0.02):
                sock = key.fileobj
                assert isinstance(sock, socket.socket)
                if sock is self._listener:
                    self._accept()
                elif sock in self._others:
                    self._pump(sock)

    def _accept(self) -> None:
        here, _ = self._listener.accept()
        try:
            there = socket.create_connection(("127.0.0.1", self.target_port), 1)
        except OSError:
            here.close()
            return
        for one, other in ((here, there), (there, here)):
            self._others[one] = other
            self._selector.register(one, selectors.EVENT_READ)

    def _pump(self, sock: socket.socket) -> None:
        try:
            data = sock.recv(65536)
            if self.bytes_per_s is not None:
                self._is_over.wait(len(data) / self.bytes_per_s)
            if data:
                self._others[sock].sendall(data)
                return
        except OSError:
            pass
        self._drop(sock)

    def _drop(self, sock: socket.socket) -> None:
        for end in (sock, self._others[sock]):
            self._selector.unregister(end)
            del self._others[end]
            end.close()

    def close(self) -> None:
        self._is_over.set()
        self._thread.join(5)
        for sock in list(self._others):
            sock.close()
        self._listener.close()
        self._selector.close()
