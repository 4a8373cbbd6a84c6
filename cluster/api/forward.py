"""Brings a write that reached a follower to the leader, whoever that becomes, and passes the answer on.

The write has one Idempotency-Key in all attempts (made here if the client sent none), so it takes
effect at most once however often it is sent. What is known about it is kept honest: after an attempt
that may have been applied, no later failure is passed on as "nothing was changed".
"""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, Any, Final, cast

import aiohttp
import orjson
from aiohttp import web
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

from cluster.api import headers
from cluster.errors import ClusterError, NotLeader, OutcomeUnknown, Overloaded, Unavailable
from cluster.failpoint import failpoint
from cluster.leader_watch import LeaderChanged, unless_leader_changes

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

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
#: Above any time that the leader itself waits before it answers; for all attempts together.
_ANSWER_TIMEOUT_S: Final = 120.0
#: How long a write is sent again or held after its leader failed it: elections take less.
_HOLD_S: Final = 5.0
_FIRST_PAUSE_S: Final = 0.025
_LONGEST_PAUSE_S: Final = 0.2

#: Statuses of a node that its successor, or the same node later, may do better at.
_PASSING: Final = frozenset({429, 502, 503, 504})
#: Errors of a node that say: surely nothing changed by this attempt.
_NOTHING_CHANGED: Final = frozenset({Overloaded.error, NotLeader.error, Unavailable.error})


class _NotSent(Exception):
    """No byte of the request reached the leader."""


class _Broken(Exception):
    """The request was (perhaps partly) sent, and no whole answer came."""


class Forwarder:
    """Lives on one event loop; `close` ends its connections."""

    def __init__(self) -> None:
        self._session: aiohttp.ClientSession | None = None

    async def forward(
        self, exchange: Exchange, handle: Callable[[Exchange], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        """The leader's answer to this request; `handle` gives it if this node comes to lead meanwhile.

        Raises:
            NotLeader: no leader is known or none could be reached; the request was not sent.
            OutcomeUnknown: it was sent, and neither that leader nor a later one told its fate.
            ClusterError: what `handle` raises.
        """
        if exchange.service.leader_url() is None:
            raise NotLeader(exchange.service.leader_id())
        keyless = headers.KEY not in exchange.headers
        if keyless:
            named = CIMultiDict(exchange.headers)
            named[headers.KEY] = f"node-{os.urandom(16).hex()}"
            exchange.headers = CIMultiDictProxy(named)
        try:
            async with asyncio.timeout(_ANSWER_TIMEOUT_S):
                return await self._until_answered(exchange, handle, keyless=keyless)
        except TimeoutError as error:
            raise _unknown(exchange, keyless=keyless) from error

    async def _until_answered(
        self,
        exchange: Exchange,
        handle: Callable[[Exchange], Awaitable[web.StreamResponse]],
        *,
        keyless: bool,
    ) -> web.StreamResponse:
        service = exchange.service
        loop = asyncio.get_running_loop()
        until = loop.time() + _HOLD_S
        unknown = False
        broke_off: str | None = None
        pause_s = _FIRST_PAUSE_S
        while True:
            leader = service.leader_id()
            # Where a connection just broke, the next may hang: it is not worth the whole time again.
            end = until if leader is not None and leader == broke_off else None
            answer: web.StreamResponse | None = None
            failure: Exception
            try:
                async with asyncio.timeout_at(end):
                    answer = await self._attempt(exchange, handle, leader)
                error = _error_of(answer)
                if error is None:
                    return answer
                failure = NotLeader(leader)
                unknown = unknown or error not in _NOTHING_CHANGED
            except ClusterError as refusal:  # of this node, which leads
                if refusal.status not in _PASSING:
                    raise
                failure = refusal
                unknown = unknown or refusal.error not in _NOTHING_CHANGED
            except _NotSent:
                failure = NotLeader(leader)
            except LeaderChanged as change:
                failure, unknown = change, True
                if service.leader_id() is None:
                    raise _unknown(exchange, keyless=keyless) from None
                # However long the old leader took, the new one gets its chance.
                until = loop.time() + _HOLD_S
            except _Broken as broken:
                if leader != broke_off:
                    until = loop.time() + _HOLD_S
                failure, unknown, broke_off = broken, True, leader
            except TimeoutError as late:
                if end is None:
                    raise
                failure = late
            # A full queue is the leader's answer, unless an earlier attempt may be in it.
            overloaded = isinstance(failure, Overloaded) or (answer is not None and answer.status == 429)
            if loop.time() >= until or (overloaded and not unknown):
                if unknown:
                    raise _unknown(exchange, keyless=keyless) from failure
                if answer is not None:
                    return answer
                raise failure
            await asyncio.sleep(pause_s)
            pause_s = min(pause_s * 2, _LONGEST_PAUSE_S)

    async def _attempt(
        self,
        exchange: Exchange,
        handle: Callable[[Exchange], Awaitable[web.StreamResponse]],
        leader: str | None,
    ) -> web.StreamResponse:
        service = exchange.service
        if service.is_leader():
            return await handle(exchange)
        url = service.leader_url()
        if leader is None or url is None or leader == service.node_id:
            raise _NotSent
        return await unless_leader_changes(
            self._send(exchange, url), leader, service.leader_id, leaderless_s=_HOLD_S
        )

    async def _send(self, exchange: Exchange, url: str) -> web.StreamResponse:
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
                    exchange.service.observe(int(index))
                return web.Response(status=answer.status, body=body, headers=found)
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            raise _NotSent from error
        except (aiohttp.ClientError, TimeoutError, asyncio.IncompleteReadError, OSError) as error:
            raise _Broken from error

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


def _error_of(answer: web.StreamResponse) -> str | None:
    """The name of the error in an answer that another attempt may better, None for a final answer."""
    if answer.status not in _PASSING:
        return None
    try:
        value: Any = orjson.loads(answer.body) if isinstance(answer, web.Response) else None  # type: ignore[arg-type]
    except ValueError:
        return ""
    return str(cast("dict[str, Any]", value).get("error", "")) if isinstance(value, dict) else ""


def _unknown(exchange: Exchange, *, keyless: bool) -> OutcomeUnknown:
    key = exchange.headers[headers.KEY]
    which = f"Idempotency-Key: {key} (made by this node)" if keyless else "the same Idempotency-Key"
    return OutcomeUnknown(
        "Outcome unknown: the write was sent to the leader, and neither it nor a new leader told its fate. "
        f"It may or may not take effect; send it again with {which} to find out."
    )
