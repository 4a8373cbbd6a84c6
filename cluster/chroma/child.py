"""A process with a Chroma: `python -m cluster.chroma.child engine|scratch <parent's pid> <descriptors>`.

It has the node's own Chroma (engine) or an empty one in memory that judges requests (scratch), and dies
with its parent, whatever way that ends: the kernel kills it. The engine holds a lock beside the
directory, so that a node restarted at once waits for the old child to be gone.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib.util
import itertools
import os
import signal
import socket
import sys
import threading
import types
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar

from cluster.chroma import poison
from cluster.chroma.channel import (
    pack_error,
    pack_neighbours,
    pack_records,
    receive,
    send,
    unpack_call,
    unpack_get,
    unpack_query,
    unpack_resolve,
)
from cluster.chroma.embedded import EmbeddedEngine
from cluster.chroma.interface import Get, Query
from cluster.chroma.scratch import Scratch
from cluster.errors import ClusterError, Fault, Refusal
from cluster.failpoint import arm, failpoint, marked_words
from cluster.lock import DirectoryLock

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


W = TypeVar("W", Get, Query)

_LOCK_NAME: Final = "ENGINE.LOCK"
#: A child whose parent was killed ends with the disk write that it is in.
_LOCK_WAIT_S: Final = 30.0
_PR_SET_PDEATHSIG: Final = 1


class _Room(Protocol):
    """What a child has a Chroma for."""

    def do(self, method: str, arguments: list[Any]) -> Any: ...

    def close(self) -> None: ...


def _serve_all(room: _Room, descriptors: Sequence[int]) -> None:
    """Answer until the parent closes its ends; calls under way are finished."""
    threads = [threading.Thread(target=_serve, args=(room, number)) for number in descriptors]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    room.close()


def _serve(room: _Room, descriptor: int) -> None:
    with socket.socket(fileno=descriptor) as connection, contextlib.suppress(OSError):
        while (request := receive(connection)) is not None:
            method, arguments = request
            send(connection, _answer(room, method, arguments))


def _answer(room: _Room, method: str, arguments: list[Any]) -> list[Any]:
    try:
        return ["ok", room.do(method, arguments)]
    except ClusterError as error:
        return pack_error(error)
    except BaseException as error:
        return ["fault", f"The engine's {method} failed: {type(error).__name__}: {error}"]


class _EngineRoom:
    """The node's Chroma; one of the connections is the writer's."""

    def __init__(self) -> None:
        self._engine: EmbeddedEngine | None = None

    def close(self) -> None:
        if self._engine is not None:
            self._engine.close()

    def do(self, method: str, arguments: list[Any]) -> Any:
        if method == "open":
            directory, local = arguments
            self._engine = _open_when_free(Path(directory), [(key, value) for key, value in local])
            return None
        engine = self._engine
        if engine is None:
            raise Fault("Chroma is not open in this process.")
        match method:
            case "apply":
                call = unpack_call(arguments)
                failpoint("engine.before_call")
                poison.meet(call.command)
                changes = engine.apply(call)
                poison.meet_after(call.command)
                failpoint("engine.after_call")
                return [[change.key, change.value] for change in changes]
            case "resolve":
                return engine.resolve(unpack_resolve(arguments))
            case "get":
                collection_id, wanted = arguments
                return pack_records(engine.get(collection_id, _marked(unpack_get(wanted))))
            case "digests":
                return [[one.id, one.whole, one.parts] for one in engine.digests(*arguments)]
            case "found_by_vector":
                return engine.found_by_vector(*arguments)
            case "strangers":
                [databases] = arguments
                return engine.strangers([(tenant, database) for tenant, database in databases])
            case "query":
                collection_id, wanted = arguments
                return pack_neighbours(engine.query(collection_id, _marked(unpack_query(wanted))))
            case "count" | "collection" | "collections" | "collection_ids" | "documents":
                return getattr(engine, method)(*arguments)
            case _:
                raise Fault(f"The engine has no {method}.")


def _marked(wanted: W) -> W:
    for words in (wanted.where, wanted.where_document):
        marked_words("engine", words)
    return wanted


class _ScratchRoom:
    """An empty Chroma in memory."""

    def __init__(self) -> None:
        self._scratch: Scratch | None = None

    def close(self) -> None:
        if self._scratch is not None:
            self._scratch.close()

    def do(self, method: str, arguments: list[Any]) -> Any:
        if method == "open":
            self._scratch = Scratch()
            return None
        if self._scratch is None or not (method.startswith("judge_") or method == "trial"):
            raise Fault(f"The scratch has no {method}, or is not open.")
        for argument in arguments:
            marked_words("scratch", argument if isinstance(argument, str) else None)
        refusal: Refusal | None = getattr(self._scratch, method)(*arguments)
        return None if refusal is None else [refusal.status, refusal.error, refusal.message]


_ROOMS: Final[dict[str, Callable[[], _Room]]] = {"engine": _EngineRoom, "scratch": _ScratchRoom}


def _open_when_free(directory: Path, local: list[tuple[str, bytes]]) -> EmbeddedEngine:
    """Open Chroma once the child of a parent that was just killed is gone."""
    waited = threading.Event()
    for attempt in itertools.count():
        try:
            # Never released: it ends with this process.
            DirectoryLock(directory.parent, _LOCK_NAME)
            return EmbeddedEngine(directory, local)
        except Fault as fault:
            if "in use by" not in fault.message or attempt * 0.02 > _LOCK_WAIT_S:
                raise
            waited.wait(0.02)
    raise AssertionError("unreachable")


def _leave_out_the_client_library() -> None:
    """Let `chromadb.errors`, which the bindings raise from, be imported without all of chromadb.

    Executing the package itself takes 1.8 s and 50 MB; nothing in this process uses it.
    """
    found = importlib.util.find_spec("chromadb")
    if found is not None and found.submodule_search_locations is not None:
        package = types.ModuleType("chromadb")
        package.__path__ = found.submodule_search_locations
        sys.modules.setdefault("chromadb", package)


def main(kind: str, parent: int, descriptors: Sequence[int]) -> None:
    """The child: serve on the inherited sockets until the parent closes them or is gone."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        return  # it ended before the line above took effect
    # Ctrl-C and a service manager's SIGTERM go to the whole group: the parent decides.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    arm(os.environ)
    _leave_out_the_client_library()
    _serve_all(_ROOMS[kind](), descriptors)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), [int(text) for text in sys.argv[3:]])
