"""One request over a connection of its own, byte for byte as the corpus has it, and what came back."""

from __future__ import annotations

import http.client
import json
import select
import socket
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tests.hostile.case import Call

#: Above what a balancer may hold a request and a node may take for it.
TIMEOUT_S: Final = 60.0

#: Instead of a status: the server closed the connection; or it neither answered nor closed in time.
HUNG_UP: Final = 0
HANGS: Final = -1

_PIECE: Final = 256 * 1024
_CHUNK: Final = 64 * 1024


@dataclass(frozen=True)
class Reply:
    """What came back: `status` may be HUNG_UP or HANGS; `body` is read JSON where the answer says so."""

    status: int
    content_type: str | None = None
    body: Any = None
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    seconds: float = 0.0


def exchange(url: str, call: Call, names: Mapping[str, str], timeout_s: float = TIMEOUT_S) -> Reply:
    """Send `call` with `{name}` replaced by each of `names`."""
    host = urlsplit(url).netloc
    data = _whole(call, {**names, "host": host})
    began = time.monotonic()  # some bodies take longer to make than to answer
    address, _, port = host.rpartition(":")
    try:
        with socket.create_connection((address, int(port)), timeout=10) as connection:
            end = began + timeout_s
            _send(connection, data, end)
            reply = _receive(connection, call, end)
    except TimeoutError:
        reply = Reply(HANGS)
    except (OSError, http.client.HTTPException):
        reply = Reply(HUNG_UP)
    seconds = time.monotonic() - began
    return Reply(reply.status, reply.content_type, reply.body, reply.headers, seconds)


def _named(data: bytes, names: Mapping[str, str]) -> bytes:
    for name, value in names.items():
        data = data.replace(b"{%s}" % name.encode(), value.encode())
    return data


def _whole(call: Call, names: Mapping[str, str]) -> bytes:
    if call.raw is not None:
        return _named(call.raw() if callable(call.raw) else call.raw, names)
    body = call.content()
    if body is not None and len(body) < 10_000:
        body = _named(body, names)
    target = _named(call.target.encode("utf-8", "surrogateescape"), names)
    lines = [b"%s %s HTTP/1.1" % (call.method.encode(), target), b"Host: " + names["host"].encode()]
    own = {name.lower() for name, _ in call.headers}
    lines.append(b"Connection: close")
    if body is not None and "content-type" not in own:
        lines.append(b"Content-Type: application/json")
    if body is not None:
        lines.append(b"Transfer-Encoding: chunked" if call.chunked else b"Content-Length: %d" % len(body))
    for name, value in call.headers:
        if (name, value) != ("Content-Type", ""):
            lines.append(name.encode() + b": " + (value if isinstance(value, bytes) else value.encode()))
    head = b"\r\n".join(lines) + b"\r\n\r\n"
    if body is None:
        return head
    return head + (_chunks(body) if call.chunked else body)


def _chunks(body: bytes) -> bytes:
    parts: list[bytes] = []
    for start in range(0, len(body), _CHUNK):
        piece = body[start : start + _CHUNK]
        parts.append(b"%x\r\n%s\r\n" % (len(piece), piece))
    return b"".join([*parts, b"0\r\n\r\n"])


def _send(connection: socket.socket, data: bytes, end: float) -> None:
    """Until all is sent, or the other side answers or is gone before."""
    connection.setblocking(False)
    view = memoryview(data)
    while view:
        left = end - time.monotonic()
        if left <= 0:
            raise TimeoutError
        readable, writable, _ = select.select([connection], [connection], [], left)
        if readable:
            beginning = connection.recv(12, socket.MSG_PEEK)
            if not beginning.startswith(b"HTTP/1.1 100"):
                break
            connection.recv(25)
        if writable:
            try:
                view = view[connection.send(view[:_PIECE]) :]
            except (BrokenPipeError, ConnectionResetError):
                break  # there may still be an answer


def _receive(connection: socket.socket, call: Call, end: float) -> Reply:
    connection.settimeout(max(0.1, end - time.monotonic()) if call.raw is None else 3.0)
    response = http.client.HTTPResponse(connection, method=call.method)
    try:
        response.begin()
        content = response.readline() if call.stream else response.read()
    except TimeoutError:
        # Raw requests may leave a server waiting for more; it may, as long as it serves others.
        if call.raw is not None:
            return Reply(HUNG_UP)
        raise
    headers = {name.lower(): value for name, value in response.getheaders()}
    content_type = headers.get("content-type")
    body: Any = content.decode(errors="replace")
    if content_type == "application/json" and content:
        try:
            body = json.loads(content)
        except ValueError:
            body = f"not JSON: {body[:200]}"
    return Reply(response.status, content_type, body, headers)
