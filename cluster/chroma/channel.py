"""What passes between a node and the child process that has its Chroma: frames of msgpack on a socket.

A request is `[method, arguments]`, an answer `[tag, value]`. Both ends are of one version of the program.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any, Final

import msgpack
import numpy as np

from cluster.chroma.interface import Get, Neighbours, Query, Records
from cluster.errors import ClusterError, Fault, Refusal, Unavailable
from cluster.state.commands import DeleteRecords, decode_command, encode_command
from cluster.state.work import Call, Resolve, Target

if TYPE_CHECKING:
    import socket

_FRAME: Final = struct.Struct("<Q")

#: The errors that cross the socket, by tag; anything else is a fault.
_ERRORS: Final[dict[str, type[ClusterError]]] = {
    "fault": Fault,
    "unavailable": Unavailable,
    "error": ClusterError,
}

# ------------------------------------------------------------------------------------- frames


def send(connection: socket.socket, message: list[Any]) -> None:
    """Send one message; a failure is an OSError."""
    frame = msgpack.packb(message, use_bin_type=True)
    connection.sendall(_FRAME.pack(len(frame)) + frame)


def receive(connection: socket.socket) -> list[Any] | None:
    """The next message, or None at the end of the stream; a failure is an OSError."""
    header = _read_exactly(connection, _FRAME.size)
    frame = None if header is None else _read_exactly(connection, _FRAME.unpack(header)[0])
    return None if frame is None else msgpack.unpackb(frame, raw=False, strict_map_key=False)


def _read_exactly(connection: socket.socket, size: int) -> bytes | None:
    buffer = bytearray(size)
    view, filled = memoryview(buffer), 0
    while filled < size:
        got = connection.recv_into(view[filled:])
        if got == 0:
            return None
        filled += got
    return bytes(buffer)


# ------------------------------------------------------------------------------------ answers


def pack_error(error: ClusterError) -> list[Any]:
    """The answer that `unpack_answer` raises as the same error."""
    match error:
        case Refusal():
            return ["refusal", [error.status, error.error, error.message]]
        case Fault():
            return ["fault", error.message]
        case Unavailable():
            return ["unavailable", error.message]
        case _:
            return ["error", error.message]


def unpack_answer(answer: list[Any]) -> Any:
    """The value of an answer; an error is raised."""
    tag, value = answer
    if tag == "ok":
        return value
    raise Refusal(*value) if tag == "refusal" else _ERRORS[tag](value)


# --------------------------------------------------------------------------------------- work


def pack_call(call: Call) -> list[Any]:
    target = None if call.target is None else _pack_target(call.target)
    return [encode_command(call.command), target, call.index, call.dropped]


def unpack_call(packed: list[Any]) -> Call:
    command, target, index, dropped = packed
    return Call(decode_command(command), None if target is None else Target(*target), index, tuple(dropped))


def pack_resolve(work: Resolve) -> list[Any]:
    return [encode_command(work.command), _pack_target(work.target), work.index]


def unpack_resolve(packed: list[Any]) -> Resolve:
    encoded, target, index = packed
    command = decode_command(encoded)
    if not isinstance(command, DeleteRecords):
        raise ValueError(f"only a delete of records is resolved, not {type(command).__name__}")
    return Resolve(command, Target(*target), index)


def _pack_target(target: Target) -> list[str]:
    return [target.tenant, target.database, target.name, target.collection_id]


# -------------------------------------------------------------------------------------- reads


def pack_get(wanted: Get) -> list[Any]:
    return [
        wanted.ids,
        wanted.where,
        wanted.where_document,
        wanted.limit,
        wanted.offset,
        wanted.include,
    ]


def unpack_get(packed: list[Any]) -> Get:
    return Get(*packed)


def pack_query(wanted: Query) -> list[Any]:
    with np.errstate(over="ignore"):  # beyond float32 is infinity, as in Chroma's own conversion
        rows = [np.asarray(row, dtype="<f4").tobytes() for row in wanted.embeddings]
    return [
        rows,
        wanted.n_results,
        wanted.ids,
        wanted.where,
        wanted.where_document,
        wanted.include,
    ]


def unpack_query(packed: list[Any]) -> Query:
    rows, *rest = packed
    return Query([np.frombuffer(row, dtype="<f4") for row in rows], *rest)


def pack_records(found: Records) -> list[Any]:
    vectors = None if found.embeddings is None else [_bytes(row) for row in found.embeddings]
    return [found.ids, vectors, found.documents, found.uris, found.metadatas]


def unpack_records(packed: list[Any]) -> Records:
    ids, embeddings, *rest = packed
    return Records(ids, None if embeddings is None else [_floats(row) for row in embeddings], *rest)


def pack_neighbours(found: Neighbours) -> list[Any]:
    vectors = None
    if found.embeddings is not None:
        vectors = [[None if row is None else _bytes(row) for row in rows] for rows in found.embeddings]
    return [found.ids, vectors, found.documents, found.uris, found.metadatas, found.distances]


def unpack_neighbours(packed: list[Any]) -> Neighbours:
    ids, vectors, *rest = packed
    if vectors is not None:
        vectors = [[None if row is None else _floats(row) for row in rows] for rows in vectors]
    return Neighbours(ids, vectors, *rest)


def _bytes(row: list[float]) -> bytes:
    return np.array(row, dtype="<f4").tobytes()


def _floats(row: bytes) -> list[float]:
    return np.frombuffer(row, dtype="<f4").tolist()
