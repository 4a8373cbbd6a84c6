"""Raft nodes as processes on loopback, to kill, freeze and restart; and a link that can go silent."""

from __future__ import annotations

import contextlib
import json
import selectors
import signal
import socket
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        socks = [stack.enter_context(socket.socket()) for _ in range(count)]
        for sock in socks:
            sock.bind(("127.0.0.1", 0))
        return [sock.getsockname()[1] for sock in socks]


def eventually(check: Callable[[], Any], within_s: float = 30.0, what: str = "condition") -> Any:
    deadline = time.monotonic() + within_s
    while True:
        found = check()
        if found:
            return found
        assert time.monotonic() < deadline, f"not within {within_s} s: {what}"
        time.sleep(0.01)


class Member:
    """One running process."""

    def __init__(self, options: dict[str, Any], log: Path) -> None:
        with log.open("ab") as out:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tests.integration.raft_member", json.dumps(options)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=out,
                text=True,
            )
        assert self._readline() == "{}", log.read_text()[-2000:]

    def _readline(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def ask(self, do: str, **values: Any) -> dict[str, Any]:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({"do": do, **values}) + "\n")
        self.process.stdin.flush()
        return json.loads(self._readline())

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(10)
        for pipe in (self.process.stdin, self.process.stdout):
            with contextlib.suppress(BrokenPipeError):
                pipe.close()  # type: ignore[union-attr]


class Cluster:
    """Three nodes; `members` are the live ones."""

    def __init__(self, folder: Path, ids: tuple[str, ...] = ("a", "b", "c"), **settings: Any) -> None:
        self.folder = folder
        self.ids = ids
        self.settings = settings
        self.ports = dict(zip(ids, free_ports(len(ids)), strict=True))
        self.dialled: dict[tuple[str, str], int] = {}
        self.members: dict[str, Member] = {}

    def start(self, *ids: str, **options: Any) -> None:
        for node_id in ids or self.ids:
            members = {
                other: ("127.0.0.1", self.dialled.get((node_id, other), port))
                for other, port in self.ports.items()
            }
            self.members[node_id] = Member(
                {
                    "id": node_id,
                    "members": members,
                    "port": self.ports[node_id],
                    "journal": str(self.folder / f"{node_id}.sqlite"),
                    "settings": self.settings,
                    **options,
                },
                self.folder / f"{node_id}.log",
            )

    def kill(self, *ids: str) -> None:
        for node_id in ids:
            self.members.pop(node_id).kill()

    def freeze(self, node_id: str) -> None:
        self.members[node_id].process.send_signal(signal.SIGSTOP)

    def thaw(self, node_id: str) -> None:
        self.members[node_id].process.send_signal(signal.SIGCONT)

    def close(self) -> None:
        for node_id in list(self.members):
            self.thaw(node_id)
            self.kill(node_id)

    def status(self, node_id: str) -> dict[str, Any]:
        return self.members[node_id].ask("status")

    def leader(self, among: tuple[str, ...] | None = None) -> str:
        """The leader that a majority of all follows."""

        def find() -> str | None:
            seen = {node_id: self.status(node_id) for node_id in among or tuple(self.members)}
            for node_id, status in seen.items():
                followers = [
                    s for s in seen.values() if s["leader"] == node_id and s["term"] == status["term"]
                ]
                if status["role"] == "leader" and 2 * len(followers) > len(self.ids):
                    return node_id
            return None

        return eventually(find, 30, "a leader")

    def write(self, text: str, **values: Any) -> int:
        """Write through whoever leads, until it is acknowledged."""

        def attempt() -> int:
            return self.members[self.leader()].ask("propose", text=text, **values).get("index", 0)

        return eventually(attempt, 60, f"write {text}")

    def agree(self, within_s: float = 30.0) -> int:
        """Wait until every live node has committed the same last entry; its index."""

        def same() -> int:
            statuses = [self.status(node_id) for node_id in self.members]
            last = max(status["last"] for status in statuses)
            return last if all(status["commit"] == last == status["last"] for status in statuses) else 0

        return eventually(same, within_s, "agreement")

    def texts(self, node_id: str) -> list[str]:
        return self.members[node_id].ask("texts")["texts"]


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
