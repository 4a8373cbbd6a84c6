"""Messages as bytes on a stream: length-prefixed frames, each with a MAC, long messages in pieces.

A frame is a 4-byte length, a kind byte, a body and, once keys are set, 16 bytes of HMAC-SHA256 over the
frame's number, kind and body: a frame that was changed, repeated, dropped or moved ends the connection.
Urgent messages overtake the pieces of long ones, so a heartbeat never waits behind megabytes.
"""

from __future__ import annotations

import hmac
from collections import deque
from typing import Literal, TypeAlias

Kind: TypeAlias = Literal[0, 1, 2, 3, 4]
HANDSHAKE: Kind = 0
MESSAGE: Kind = 1
PIECE: Kind = 2
LAST_PIECE: Kind = 3
PING: Kind = 4

MAC_BYTES = 16
HANDSHAKE_LIMIT_BYTES = 1024


class FramingError(Exception):
    """The bytes are not what the other side's writer makes: the connection must be dropped."""


class FrameWriter:
    """Two queues of outgoing messages, and the frames to send next. Numbers and MACs in sending order."""

    def __init__(self, fragment_bytes: int) -> None:
        self._fragment_bytes = fragment_bytes
        self._urgent: deque[tuple[Kind, bytes]] = deque()
        self._bulk: deque[memoryview] = deque()
        self._offset = 0
        self._key: bytes | None = None
        self._number = 0
        self.urgent_bytes = 0
        self.bulk_bytes = 0

    def set_key(self, key: bytes) -> None:
        self._key = key

    def put_urgent(self, kind: Kind, body: bytes) -> None:
        self._urgent.append((kind, body))
        self.urgent_bytes += len(body)

    def put_bulk(self, body: bytes) -> None:
        self._bulk.append(memoryview(body))
        self.bulk_bytes += len(body)

    def next_frame(self) -> bytes | None:
        """The bytes of the next frame: urgent ones first, then one piece of the oldest long message."""
        if self._urgent:
            kind, body = self._urgent.popleft()
            self.urgent_bytes -= len(body)
            return self._frame(kind, body)
        if not self._bulk:
            return None
        message = self._bulk[0]
        piece = message[self._offset : self._offset + self._fragment_bytes]
        is_last = self._offset + len(piece) == len(message)
        self.bulk_bytes -= len(piece)
        if is_last:
            kind = LAST_PIECE if self._offset else MESSAGE
            self._bulk.popleft()
            self._offset = 0
        else:
            kind = PIECE
            self._offset += len(piece)
        return self._frame(kind, piece)

    def _frame(self, kind: Kind, body: bytes | memoryview) -> bytes:
        if self._key is None:
            return b"".join(((len(body) + 1).to_bytes(4, "big"), bytes((kind,)), body))
        mac = _mac(self._key, self._number, kind, body)
        self._number += 1
        return b"".join(((len(body) + 1 + MAC_BYTES).to_bytes(4, "big"), bytes((kind,)), body, mac))


class FrameReader:
    """Bytes in, whole messages out. Bounded: a frame or message above its limit is an error, not a buffer."""

    def __init__(self, fragment_bytes: int, max_message_bytes: int) -> None:
        self._fragment_bytes = fragment_bytes
        self._max_message_bytes = max_message_bytes
        self._buffer = bytearray()
        self._pieces: list[bytes] = []
        self._pieces_bytes = 0
        self._key: bytes | None = None
        self._number = 0
        self.pieces_seen = 0
        """How many pieces of long messages have come: a sign of life while the rest is under way."""

    def set_key(self, key: bytes) -> None:
        self._key = key

    def feed(self, data: bytes | memoryview) -> None:
        self._buffer += data

    @property
    def unread(self) -> bytes:
        """The beginning of what is not taken as a frame yet."""
        return bytes(self._buffer[:5])

    def next_message(self) -> tuple[Kind, bytes] | None:
        """The next whole message (pieces joined), or None until more bytes come.

        Raises:
            FramingError: drop the connection.
        """
        while True:
            frame = self._next_frame()
            if frame is None:
                return None
            kind, body = frame
            if kind in (PIECE, LAST_PIECE):
                self.pieces_seen += 1
                self._pieces.append(body)
                self._pieces_bytes += len(body)
                if self._pieces_bytes > self._max_message_bytes:
                    raise FramingError(f"a message of more than {self._max_message_bytes} bytes")
                if kind == LAST_PIECE:
                    body = b"".join(self._pieces)
                    self._pieces, self._pieces_bytes = [], 0
                    return MESSAGE, body
            else:
                return kind, body

    def _next_frame(self) -> tuple[Kind, bytes] | None:
        buffer = self._buffer
        if len(buffer) < 5:
            return None
        length = int.from_bytes(buffer[:4], "big")
        kind = _kind(buffer[4])
        if self._key is None:
            limit, overhead = HANDSHAKE_LIMIT_BYTES, 1
            if kind != HANDSHAKE:
                raise FramingError("a message before the handshake")
        else:
            limit, overhead = self._fragment_bytes + 1 + MAC_BYTES, 1 + MAC_BYTES
            if kind == HANDSHAKE:
                raise FramingError("a second handshake")
        if not overhead <= length <= limit:
            raise FramingError(f"a frame of {length} bytes; {overhead} to {limit} are possible")
        if len(buffer) < 4 + length:
            return None
        body = bytes(memoryview(buffer)[5 : 4 + length - overhead + 1])
        if self._key is not None:
            mac = bytes(buffer[4 + length - MAC_BYTES : 4 + length])
            if not hmac.compare_digest(mac, _mac(self._key, self._number, kind, body)):
                raise FramingError("a frame whose authentication code is wrong")
            self._number += 1
        del buffer[: 4 + length]
        return kind, body


def _kind(value: int) -> Kind:
    match value:
        case 0 | 1 | 2 | 3 | 4:
            return value
        case _:
            raise FramingError(f"a frame of the unknown kind {value}")


def _mac(key: bytes, number: int, kind: Kind, body: bytes | memoryview) -> bytes:
    data = b"".join((number.to_bytes(8, "big"), bytes((kind,)), body))
    return hmac.digest(key, data, "sha256")[:MAC_BYTES]
