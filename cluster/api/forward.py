"""Sends a write that reached a follower to the leader, once, and passes the answer on."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

import aiohttp
from aiohttp import web
from yarl import URL

from cluster.api import headers
from cluster.errors import NotLeader, OutcomeUnknown
from cluster.failpoint import failpoint

if TYPE_CHECKING:
    from cluster.api.exchange import Exchange

#: Not passed on: they belong to one connection, or are written anew.
_HOP: Final = frozenset(
    {
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "host",
        "content-length",
        "content-encoding",
        "expect",
        "date",
        "server",
    }
)
_CONNECT_TIMEOUT_S: Final = 2.0
#: Above any time that the leader itself waits before it answers.
_ANSWER_TIMEOUT_S: Final = 120.0


class Forwarder:
    """Lives on one event loop; `close` ends its connections."""

    def __init__(self) -> None:
        self._session: aiohttp.ClientSession | None = None

    async def forward(self, exchange: Exchange) -> web.StreamResponse:
        """The leader's answer to this request.

        Raises:
            NotLeader: no leader is known or it cannot be reached; the request was not sent.
            OutcomeUnknown: the connection broke after the request was sent.
        """
        service = exchange.service
        leader, url = service.leader_id(), service.leader_url()
        if url is None or leader == service.node_id:
            raise NotLeader(leader)
        passed = {name: value for name, value in exchange.headers.items() if name.lower() not in _HOP}
        passed[headers.FORWARDED] = "1"
        skip = () if "Content-Type" in exchange.headers else ("Content-Type",)
        failpoint("forward.before_send")
        try:
            async with self._open().request(
                exchange.method,
                # The bytes of the target as they came: encoded again, they might name another path.
                URL(f"{url}{exchange.target}", encoded=True),
                data=exchange.body or None,
                headers=passed,
                skip_auto_headers=(*skip, "User-Agent", "Accept", "Accept-Encoding"),
                allow_redirects=False,
            ) as answer:
                body = await answer.read()
                failpoint("forward.after_receive")
                found = {name: value for name, value in answer.headers.items() if name.lower() not in _HOP}
                index = answer.headers.get(headers.LOG_INDEX, "")
                if index.isdecimal():
                    service.observe(int(index))
                return web.Response(status=answer.status, body=body, headers=found)
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            raise NotLeader(leader) from error
        except (aiohttp.ClientError, TimeoutError, asyncio.IncompleteReadError, OSError) as error:
            raise OutcomeUnknown(
                f"Outcome unknown: the connection to the leader {leader} broke after the write was sent. It "
                "may or may not take effect; send it again with the same Idempotency-Key to find out."
            ) from error

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                timeout=aiohttp.ClientTimeout(
                    total=_ANSWER_TIMEOUT_S, connect=_CONNECT_TIMEOUT_S, sock_connect=_CONNECT_TIMEOUT_S
                ),
                connector=aiohttp.TCPConnector(limit=0),
                auto_decompress=False,
                cookie_jar=aiohttp.DummyCookieJar(),
            )
        return self._session
