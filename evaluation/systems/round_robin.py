"""A round-robin reverse proxy as people write it, or configure nginx: it knows nothing of what it balances.

`python -m evaluation.systems.round_robin OPTIONS`, OPTIONS as JSON. After nginx's rules: a backend that
refuses the connection, breaks it or stays silent is left out for `shun_s`; the request goes on to the next
one if no byte was sent, or if it is a GET. Chroma's reads are POSTs, so most fail with 502 or 504 instead.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from dataclasses import dataclass, field

import aiohttp
import orjson
from aiohttp import web
from multidict import CIMultiDict
from yarl import URL

_NOT_PASSED_ON = ("Connection", "Keep-Alive", "Transfer-Encoding", "TE", "Trailer", "Upgrade", "Host")


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """One balancer's settings, given as JSON."""

    port: int
    backends: list[str]
    """Base URLs."""
    connect_timeout_s: float = 1.0
    read_timeout_s: float = 3.0
    shun_s: float = 2.0


@dataclass(slots=True)
class Ring:
    """Whose turn it is. Pure but for its own memory; `now` is monotonic seconds."""

    size: int
    turn: int = -1
    shunned: dict[int, float] = field(default_factory=dict[int, float])

    def order(self, now: float) -> list[int]:
        """The backends to try, first to last. All of them, if all failed a moment ago."""
        self.turn = (self.turn + 1) % self.size
        ring = [(self.turn + step) % self.size for step in range(self.size)]
        up = [backend for backend in ring if self.shunned.get(backend, 0.0) <= now]
        return up or ring

    def failed(self, backend: int, until: float) -> None:
        self.shunned[backend] = until


class RoundRobin:
    """The service."""

    def __init__(self, options: Options, session: aiohttp.ClientSession) -> None:
        self._options = options
        self._session = session
        self._ring = Ring(len(options.backends))

    async def handle(self, request: web.Request) -> web.Response:
        body = await request.read()
        headers = CIMultiDict(request.headers)
        for name in _NOT_PASSED_ON:
            headers.popall(name, None)
        why = "no backend took the connection"
        for backend in self._ring.order(time.monotonic()):
            url = URL(self._options.backends[backend] + request.raw_path, encoded=True)
            try:
                async with self._session.request(
                    request.method, url, data=body or None, headers=headers, allow_redirects=False
                ) as answer:
                    content = await answer.read()
                passed = CIMultiDict(answer.headers)
                for name in (*_NOT_PASSED_ON, "Content-Length", "Content-Encoding"):
                    passed.popall(name, None)
                return web.Response(status=answer.status, body=content, headers=passed)
            except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError):
                self._ring.failed(backend, time.monotonic() + self._options.shun_s)
            except (aiohttp.ClientError, OSError, TimeoutError) as error:
                self._ring.failed(backend, time.monotonic() + self._options.shun_s)
                if request.method != "GET":
                    return _bad(504 if isinstance(error, TimeoutError) else 502, type(error).__name__)
                why = type(error).__name__
        return _bad(502, why)


def _bad(status: int, why: str) -> web.Response:
    words = {"error": "BadGateway" if status == 502 else "GatewayTimeout", "message": why}
    return web.Response(status=status, body=orjson.dumps(words), content_type="application/json")


async def _once(request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
    """aiohttp by itself sends idempotent requests again, a DELETE too: twice done, once answered."""
    try:
        return await handler(request)
    except aiohttp.ClientConnectorError:
        raise
    except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError) as error:
        raise aiohttp.ClientPayloadError(str(error)) from error


async def _serve(options: Options) -> None:
    timeout = aiohttp.ClientTimeout(
        total=None, sock_connect=options.connect_timeout_s, sock_read=options.read_timeout_s
    )
    async with aiohttp.ClientSession(
        timeout=timeout,
        connector=aiohttp.TCPConnector(limit=0),
        middlewares=(_once,),
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=True,
    ) as session:
        app = web.Application(client_max_size=1 << 30)
        app.router.add_route("*", "/{path:.*}", RoundRobin(options, session).handle)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", options.port).start()
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(_serve(Options(**json.loads(sys.argv[1]))))
