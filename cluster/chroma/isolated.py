"""The engine in a process of its own, so that Chroma's long calls never hold up the node.

Chroma's writing calls hold Python's global lock to their end, and every 1,000 records one of them
writes the collection's whole index to disk: a second and more for a large one. In the node's own
process that would stop raft's heartbeats and the HTTP loop for as long, and cost it the leadership.

`IsolatedEngine` is an `Engine` whose calls travel to a child process over socket pairs, as msgpack.
The child dies with its parent, whatever way that ends (the kernel kills it), and holds a lock beside
the directory, so that a node restarted at once waits for the old child to be gone.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib.util
import itertools
import os
import queue
import signal
import socket
import struct
import subprocess
import sys
import threading
import types
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgpack
import numpy as np

from cluster.chroma.embedded import Engine, Neighbours, Records
from cluster.errors import ClusterError, Fault, Refusal, Unavailable
from cluster.failpoint import arm, failpoint
from cluster.lock import DirectoryLock
from cluster.state.catalog import Change
from cluster.state.commands import Proposal, decode_proposal, encode_proposal
from cluster.state.work import Call, Resolve, Target

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from cluster.chroma.embedded import Vectors

_FRAME: Final = struct.Struct("<Q")
_LOCK_NAME: Final = "ENGINE.LOCK"
#: A child whose parent was killed ends with the disk write that it is in.
_LOCK_WAIT_S: Final = 30.0
_START_TIMEOUT_S: Final = 60.0
_STOP_TIMEOUT_S: Final = 60.0
_PR_SET_PDEATHSIG: Final = 1

#: The errors that cross the socket, by tag; anything else is a fault.
_ERRORS: Final[dict[str, type[ClusterError]]] = {
    "fault": Fault,
    "unavailable": Unavailable,
    "error": ClusterError,
}


class IsolatedEngine(Engine):
    """An `Engine` in a child process; the same methods, the same errors, safe from any thread."""

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
        # Not super().__init__(): nothing of Chroma is opened in this process.
        self._directory = directory
        self._on_death = on_death
        self._closing = False
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
            [sys.executable, "-m", "cluster.chroma.isolated", str(os.getpid()), *map(str, descriptors)],
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
        command = encode_proposal(Proposal("", b"", call.command))
        target = None if call.target is None else _pack_target(call.target)
        changes = self._tell("apply", command, target, call.index, call.dropped)
        return tuple(Change(key, value) for key, value in changes)

    def resolve(self, work: Resolve) -> tuple[str, ...]:
        command = encode_proposal(Proposal("", b"", work.command))
        return tuple(self._tell("resolve", command, _pack_target(work.target), work.index))

    def get(
        self,
        collection_id: str,
        *,
        ids: Sequence[str] | None = None,
        where: str | None = None,
        limit: int | None = None,
        offset: int = 0,
        where_document: str | None = None,
        include: Sequence[str] = ("metadatas", "documents"),
    ) -> Records:
        names, embeddings, documents, uris, metadatas = self._ask(
            "get", collection_id, ids, where, limit, offset, where_document, include
        )
        vectors = None if embeddings is None else [_floats(row) for row in embeddings]
        return Records(names, vectors, documents, uris, metadatas)

    def query(
        self,
        collection_id: str,
        embeddings: Vectors,
        *,
        n_results: int = 10,
        ids: Sequence[str] | None = None,
        where: str | None = None,
        where_document: str | None = None,
        include: Sequence[str] = ("metadatas", "documents", "distances"),
    ) -> Neighbours:
        with np.errstate(over="ignore"):  # beyond float32 is infinity, as in Chroma's own conversion
            rows = [np.asarray(row, dtype="<f4").tobytes() for row in embeddings]
        names, vectors, documents, uris, metadatas, distances = self._ask(
            "query", collection_id, rows, n_results, ids, where, where_document, include
        )
        if vectors is not None:
            vectors = [[None if row is None else _floats(row) for row in found] for found in vectors]
        return Neighbours(names, vectors, documents, uris, metadatas, distances)

    def count(self, collection_id: str) -> int:
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
            _send_frame(connection, [method, arguments])
            frame = _read_frame(connection)
        except ConnectionError:
            frame = None
        except OSError as error:
            raise self._ended(f"does not answer ({error})") from None
        if frame is None:
            raise self._ended("ended by itself (out of memory, or killed?)")
        tag, value = _unpack(frame)
        if tag == "ok":
            return value
        raise Refusal(*value) if tag == "refusal" else _ERRORS[tag](value)

    def _ended(self, how: str) -> Fault:
        return Fault(
            f"The process {self._child.pid} with this node's Chroma in {self._directory} {how}. "
            "No log entry was skipped; this node stops serving. Restart the node."
        )

    def _watch(self) -> None:
        self._child.wait()
        if not self._closing:
            self._on_death(self._ended("ended by itself (out of memory, or killed?)"))


class _Child:
    """The other end: a thread for each connection, one of which is the writer's."""

    def __init__(self) -> None:
        self._engine: Engine | None = None

    def serve(self, descriptors: Sequence[int]) -> None:
        """Answer until the parent closes its ends; calls under way are finished."""
        threads = [threading.Thread(target=self._serve, args=(number,)) for number in descriptors]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if self._engine is not None:
            self._engine.close()

    def _serve(self, descriptor: int) -> None:
        with socket.socket(fileno=descriptor) as connection, contextlib.suppress(OSError):
            while (frame := _read_frame(connection)) is not None:
                method, arguments = _unpack(frame)
                _send_frame(connection, self._answer(method, arguments))

    def _answer(self, method: str, arguments: list[Any]) -> list[Any]:
        try:
            return ["ok", self._do(method, arguments)]
        except Refusal as refusal:
            return ["refusal", [refusal.status, refusal.error, refusal.message]]
        except Fault as fault:
            return ["fault", fault.message]
        except Unavailable as unavailable:
            return ["unavailable", unavailable.message]
        except ClusterError as error:
            return ["error", error.message]
        except BaseException as error:
            return ["fault", f"The engine's {method} failed: {type(error).__name__}: {error}"]

    def _do(self, method: str, arguments: list[Any]) -> Any:
        if method == "open":
            directory, local = arguments
            self._engine = _open_when_free(Path(directory), [(key, value) for key, value in local])
            return None
        engine = self._engine
        if engine is None:
            raise Fault("Chroma is not open in this process.")
        match method:
            case "apply":
                command, target, index, dropped = arguments
                call = Call(_command(command), _unpack_target(target), index, tuple(dropped))
                failpoint("engine.before_call")
                changes = engine.apply(call)
                failpoint("engine.after_call")
                return [[change.key, change.value] for change in changes]
            case "resolve":
                command, target, index = arguments
                return engine.resolve(Resolve(_command(command), Target(*target), index))
            case "get":
                return _pack_records(_get(engine, *arguments))
            case "query":
                return _pack_neighbours(_query(engine, *arguments))
            case "count" | "collection" | "collections" | "collection_ids" | "documents":
                return getattr(engine, method)(*arguments)
            case _:
                raise Fault(f"The engine has no {method}.")


def _get(
    engine: Engine,
    collection_id: str,
    ids: list[str] | None,
    where: str | None,
    limit: int | None,
    offset: int,
    where_document: str | None,
    include: list[str],
) -> Records:
    return engine.get(
        collection_id,
        ids=ids,
        where=where,
        limit=limit,
        offset=offset,
        where_document=where_document,
        include=include,
    )


def _query(
    engine: Engine,
    collection_id: str,
    rows: list[bytes],
    n_results: int,
    ids: list[str] | None,
    where: str | None,
    where_document: str | None,
    include: list[str],
) -> Neighbours:
    return engine.query(
        collection_id,
        [np.frombuffer(row, dtype="<f4") for row in rows],
        n_results=n_results,
        ids=ids,
        where=where,
        where_document=where_document,
        include=include,
    )


def _open_when_free(directory: Path, local: list[tuple[str, bytes]]) -> Engine:
    """Open Chroma once the child of a parent that was just killed is gone."""
    waited = threading.Event()
    for attempt in itertools.count():
        try:
            # Never released: it ends with this process.
            DirectoryLock(directory.parent, _LOCK_NAME)
            return Engine(directory, local)
        except Fault as fault:
            if "in use by" not in fault.message or attempt * 0.02 > _LOCK_WAIT_S:
                raise
            waited.wait(0.02)
    raise AssertionError("unreachable")


def _pack_records(found: Records) -> list[Any]:
    vectors = None if found.embeddings is None else [_bytes(row) for row in found.embeddings]
    return [found.ids, vectors, found.documents, found.uris, found.metadatas]


def _pack_neighbours(found: Neighbours) -> list[Any]:
    vectors = None
    if found.embeddings is not None:
        vectors = [[None if row is None else _bytes(row) for row in rows] for rows in found.embeddings]
    return [found.ids, vectors, found.documents, found.uris, found.metadatas, found.distances]


def _bytes(row: list[float]) -> bytes:
    return np.array(row, dtype="<f4").tobytes()


def _floats(row: bytes) -> list[float]:
    return np.frombuffer(row, dtype="<f4").tolist()


def _command(encoded: bytes) -> Any:
    return decode_proposal(encoded).command


def _pack_target(target: Target) -> list[str]:
    return [target.tenant, target.database, target.name, target.collection_id]


def _unpack_target(packed: list[str] | None) -> Target | None:
    return None if packed is None else Target(*packed)


def _pack(value: Any) -> bytes:
    return msgpack.packb(value, use_bin_type=True)


def _unpack(frame: bytes) -> Any:
    return msgpack.unpackb(frame, raw=False, strict_map_key=False)


def _send_frame(connection: socket.socket, value: Any) -> None:
    frame = _pack(value)
    connection.sendall(_FRAME.pack(len(frame)) + frame)


def _read_frame(connection: socket.socket) -> bytes | None:
    """The next frame, or None at the end of the stream."""
    header = _read_exactly(connection, _FRAME.size)
    return None if header is None else _read_exactly(connection, _FRAME.unpack(header)[0])


def _read_exactly(connection: socket.socket, size: int) -> bytes | None:
    buffer = bytearray(size)
    view, filled = memoryview(buffer), 0
    while filled < size:
        got = connection.recv_into(view[filled:])
        if got == 0:
            return None
        filled += got
    return bytes(buffer)


def _leave_out_the_client_library() -> None:
    """Let `chromadb.errors`, which the bindings raise from, be imported without all of chromadb.

    Executing the package itself takes 1.8 s and 50 MB; nothing in this process uses it.
    """
    found = importlib.util.find_spec("chromadb")
    if found is not None and found.submodule_search_locations is not None:
        package = types.ModuleType("chromadb")
        package.__path__ = found.submodule_search_locations
        sys.modules.setdefault("chromadb", package)


def main(parent: int, descriptors: Sequence[int]) -> None:
    """The child: serve on the inherited sockets until the parent closes them or is gone."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        return  # it ended before the line above took effect
    # Ctrl-C and a service manager's SIGTERM go to the whole group: the parent decides.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    arm(os.environ)
    _leave_out_the_client_library()
    _Child().serve(descriptors)


if __name__ == "__main__":
    main(int(sys.argv[1]), [int(text) for text in sys.argv[2:]])
