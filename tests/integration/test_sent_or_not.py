"""A write whose connection broke is never reported as one that was not sent."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest
from multidict import CIMultiDict, CIMultiDictProxy

from cluster.api.forward import Forwarder, _Broken  # pyright: ignore[reportPrivateUsage]
from cluster.api.request import Request
from lb.ring import Ring
from lb.upstream import Interrupted, Upstream
from wire.prover import Prover

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


class Dying:
    """A node that answers one request, and on the next takes it in, closes its door and hangs up."""

    def __init__(self) -> None:
        self.received: list[bytes] = []
        self._server: asyncio.Server | None = None

    async def start(self) -> str:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert self._server is not None
        self.received.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
        await writer.drain()
        self.received.append(await reader.readuntil(b"\r\n\r\n"))
        self._server.close()
        writer.close()


async def attempted(send: Callable[[str, str], Awaitable[object]], method: str) -> int:
    """Send twice, the second time into the trap; how many requests arrived."""
    node = Dying()
    url = await node.start()
    await send(url, "GET")
    with pytest.raises((Interrupted, _Broken)):
        await send(url, method)
    return len(node.received)


@pytest.mark.parametrize("method", ["DELETE", "PUT", "POST"])
def test_the_balancer_does_not_take_a_write_that_broke_for_one_that_was_not_sent(method: str) -> None:
    async def scenario() -> None:
        upstream = Upstream(1.0, Prover(b"secret"))
        await upstream.start()

        async def send(url: str, method: str) -> object:
            member = Ring.of({"a": url}).members[0]
            return await upstream.attempt(member, "write", method, "/x", CIMultiDict(), b"", 10.0)

        try:
            assert await attempted(send, method) == 2
        finally:
            await upstream.stop()

    asyncio.run(scenario())


@pytest.mark.parametrize("method", ["DELETE", "PUT", "POST"])
def test_a_follower_does_not_take_a_write_that_broke_for_one_that_was_not_sent(method: str) -> None:
    async def scenario() -> None:
        forwarder = Forwarder(Prover(b"secret"))

        async def send(url: str, method: str) -> object:
            request = Request(method, "/x", "", (), {}, CIMultiDictProxy(CIMultiDict()), b"")
            exchange = cast("Any", SimpleNamespace(request=request, service=None))
            return await forwarder._send(exchange, url)  # pyright: ignore[reportPrivateUsage]

        try:
            assert await attempted(send, method) == 2
        finally:
            await forwarder.close()

    asyncio.run(scenario())
