"""A bound on the connections of clients, so that files and sockets are left for everything else."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final, cast

if TYPE_CHECKING:
    from collections.abc import Callable

    from aiohttp import web

_BODY: Final = (
    b'{"error":"OverloadedError","message":"As many connections are open as there may be. '
    b'Nothing was changed; try again later."}'
)
_FULL: Final = (
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nRetry-After: 1\r\n"
    b"X-Chroma-Outcome: unchanged\r\n"
    b"Connection: close\r\nContent-Length: " + str(len(_BODY)).encode() + b"\r\n\r\n" + _BODY
)


def bounded(server: web.Server, most: int) -> Callable[[], asyncio.Protocol]:
    """Makes the protocols of `server`, and refusing ones while it has `most` connections."""

    def factory() -> asyncio.Protocol:
        if len(server.connections) >= most:
            return _Refusing()
        return cast("asyncio.Protocol", server())

    return factory


class _Refusing(asyncio.Protocol):
    """Says that there is no room, and ends."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        stream = cast("asyncio.Transport", transport)
        stream.write(_FULL)
        stream.close()
