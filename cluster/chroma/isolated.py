"""The engine in a process of its own, so that Chroma's long calls never hold up the node.

Chroma's writing calls hold Python's global lock to their end, and every 1,000 records one of them
writes the collection's whole index to disk: a second and more for a large one. In the node's own
process that would stop raft's heartbeats and the HTTP loop for as long, and cost it the leadership.

The calls travel over socket pairs (`cluster.chroma.channel`) to a child process (`cluster.chroma.child`).
"""

from __future__ import annotations

import contextlib
import os
import queue
import socket
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any, Final

from cluster.chroma.channel import (
    pack_call,
    pack_get,
    pack_query,
    pack_resolve,
    receive,
    send,
    unpack_answer,
    unpack_neighbours,
    unpack_records,
)
from cluster.chroma.gate import Gate
from cluster.chroma.interface import EVERY_RECORD, Get, Neighbours, Query, Records
from cluster.errors import Fault, Unavailable
from cluster.state.catalog import Change
from cluster.state.commands import DeleteRecords, WriteRecords

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from cluster.state.work import Call, Resolve

_START_TIMEOUT_S: Final = 60.0
_STOP_TIMEOUT_S: Final = 60.0
#: How long a read waits for the write to its collection that is under way.
_GATE_TIMEOUT_S: Final = 10.0


class IsolatedEngine:
    """`cluster.chroma.interface.Engine` in a child process; all of it is safe from any thread."""

    def __init__(
        self,
        directory: Path,
        local: Iterable[tuple[str, bytes]] = (),
        *,
        on_death: Callable[[Fault], None] = lambda fault: None,
        readers: int = 8,
    ) -> None:
        """Start the child and wait until its Chroma is open; to be called from the main thread.

        At most `readers` reads are under way at a time; more of them wait.

        `on_death` is told, from a thread of its own, if the child ends by itself.

        Raises:
            Fault: Chroma cannot be opened.
        """
        self._directory = directory
        self._on_death = on_death
        self._closing = False
        self._gate = Gate()
        self._writer_lock = threading.Lock()
        # One connection a call under way, and a thread of the child at its other end: two context
        # switches a call. The writer's own is never behind a read.
        pairs = [socket.socketpair() for _ in range(1 + readers)]
        self._writer, *reading = (ours for ours, _ in pairs)
        self._connections = (self._writer, *reading)
        self._free: queue.LifoQueue[socket.socket] = queue.LifoQueue()
        for connection in reading:
            self._free.put(connection)
        descriptors = [theirs.fileno() for _, theirs in pairs]
        self._child = subprocess.Popen(
            [sys.executable, "-m", "cluster.chroma.child", str(os.getpid()), *map(str, descriptors)],
            pass_fds=descriptors,
            stdin=subprocess.DEVNULL,
        )
        for _, theirs in pairs:
            theirs.close()
        threading.Thread(target=self._watch, name="engine-watch", daemon=True).start()
        try:
            self._writer.settimeout(_START_TIMEOUT_S)
            self._tell("open", str(directory), list(local))
            self._writer.settimeout(None)
        except BaseException:
            self.close()
            raise

    @property
    def pid(self) -> int:
        """Process id of the child."""
        return self._child.pid

    def close(self) -> None:
        """Let the calls under way finish, then end the child; a second close does nothing."""
        if self._closing:
            return
        self._closing = True
        for connection in self._connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_WR)
        try:
            self._child.wait(_STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait()
        for connection in self._connections:
            connection.close()

    def apply(self, call: Call) -> tuple[Change, ...]:
        changed = (
            call.command.collection_id if isinstance(call.command, WriteRecords | DeleteRecords) else None
        )
        with self._gate.writing(changed):
            return tuple(Change(key, value) for key, value in self._tell("apply", *pack_call(call)))

    def hide(self, collection_id: str | None) -> None:
        """Let nobody read this collection until it is told otherwise: a write to it is half done."""
        self._gate.hide(collection_id)

    def resolve(self, work: Resolve) -> tuple[str, ...]:
        return tuple(self._tell("resolve", *pack_resolve(work)))

    def get(self, collection_id: str, wanted: Get = EVERY_RECORD) -> Records:
        with self._gate.reading(collection_id, _GATE_TIMEOUT_S):
            return unpack_records(self._ask("get", collection_id, pack_get(wanted)))

    def query(self, collection_id: str, wanted: Query) -> Neighbours:
        with self._gate.reading(collection_id, _GATE_TIMEOUT_S):
            return unpack_neighbours(self._ask("query", collection_id, pack_query(wanted)))

    def count(self, collection_id: str) -> int:
        with self._gate.reading(collection_id, _GATE_TIMEOUT_S):
            return self._ask("count", collection_id)

    def collection(self, collection_id: str) -> dict[str, Any]:
        return self._ask("collection", collection_id)

    def collections(self, tenant: str, database: str) -> list[dict[str, Any]]:
        return self._ask("collections", tenant, database)

    def collection_ids(self) -> list[str]:
        return self._ask("collection_ids")

    def documents(self) -> int:
        return self._ask("documents")

    def _tell(self, method: str, *arguments: Any) -> Any:
        with self._writer_lock:
            return self._exchange(self._writer, method, arguments)

    def _ask(self, method: str, *arguments: Any) -> Any:
        connection = self._free.get()
        try:
            return self._exchange(connection, method, arguments)
        finally:
            self._free.put(connection)

    def _exchange(self, connection: socket.socket, method: str, arguments: tuple[Any, ...]) -> Any:
        if self._closing:
            raise Unavailable("This node is stopping; nothing was changed. Ask another node.")
        try:
            send(connection, [method, arguments])
            answer = receive(connection)
        except ConnectionError:
            answer = None
        except OSError as error:
            raise self._ended(f"does not answer ({error})") from None
        if answer is None:
            raise self._ended("ended by itself (out of memory, or killed?)")
        return unpack_answer(answer)

    def _ended(self, how: str) -> Fault:
        return Fault(
            f"The process {self._child.pid} with this node's Chroma in {self._directory} {how}. "
            "No log entry was skipped; this node stops serving. Restart the node."
        )

    def _watch(self) -> None:
        self._child.wait()
        if not self._closing:
            self._on_death(self._ended("ended by itself (out of memory, or killed?)"))
