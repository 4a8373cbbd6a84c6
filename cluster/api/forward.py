"""Brings a write that reached a follower to the leader, whoever that becomes, and passes the answer on.

The write has one Idempotency-Key in all attempts (made here if the client sent none), so it takes
effect at most once however often it is sent. When it is sent again is for `cluster.api.retry` to say.
"""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, Any, Final, TypeAlias, cast

import aiohttp
import orjson
from aiohttp import web

from cluster.api import headers
from cluster.api.retry import (
    HOLD_S,
    PASSING,
    Answered,
    Broken,
    Deposed,
    Hold,
    Late,
    NotReached,
    NotSent,
    Relay,
    Woken,
    forwarding,
)
from cluster.errors import ClusterError, NotLeader, OutcomeUnknown, Unavailable
from cluster.failpoint import failpoint
from cluster.leader_watch import LeaderChanged, unless_leader_changes
from wire.calls import proven
from wire.hops import HOP_BY_HOP, legible
from wire.patience import body_bound_s
from wire.proof import CHALLENGE, HEADER

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from cluster.api.exchange import Exchange
    from cluster.api.retry import Ending, Event, Send
    from wire.prover import Prover

#: Written anew by whoever passes a message on.
_WRITTEN_ANEW: Final = frozenset({"host", "content-length", "content-encoding", "expect", "date", "server"})
_NOT_PASSED_ON: Final = _WRITTEN_ANEW.union(HOP_BY_HOP, (HEADER.lower(), CHALLENGE.lower()))

_CONNECT_TIMEOUT_S: Final = 2.0
#: Above any time that the leader itself waits before it answers; for all attempts together, and more for
#: a large body.
_ANSWER_TIMEOUT_S: Final = 120.0

Handle: TypeAlias = "Callable[[Exchange], Awaitable[web.StreamResponse]]"


class _NotSent(Exception):
    """No byte of the request reached the leader."""


class _Broken(Exception):
    """The request was (perhaps partly) sent, and no whole answer came."""


class Forwarder:
    """Lives on one event loop; `close` ends its connections."""

    def __init__(self, prover: Prover) -> None:
        self._prover = prover
        self._session: aiohttp.ClientSession | None = None

    async def forward(
        self, exchange: Exchange, handle: Handle, *, deposed: bool = False
    ) -> web.StreamResponse:
        """The leader's answer to this request; `handle` gives it if this node comes to lead meanwhile.

        `deposed`: this node led a moment ago, so that a successor is waited for.

        Raises:
            NotLeader: no leader is known or none could be reached; the request was not sent.
            OutcomeUnknown: it was sent, and neither that leader nor a later one told its fate.
            ClusterError: what `handle` raises.
        """
        if exchange.service.leader_url() is None and not deposed:
            raise NotLeader(exchange.service.leader_id())
        keyless = headers.KEY not in exchange.request.headers
        if keyless:
            key = f"node-{os.urandom(16).hex()}"
            exchange.request = exchange.request.with_header(headers.KEY, key)
        try:
            async with asyncio.timeout(body_bound_s(_ANSWER_TIMEOUT_S, len(exchange.request.body))):
                return await self._until_answered(exchange, handle, keyless=keyless)
        except TimeoutError as error:
            raise _unknown(exchange, keyless=keyless) from error

    async def _until_answered(
        self, exchange: Exchange, handle: Handle, *, keyless: bool
    ) -> web.StreamResponse:
        leader_id = exchange.service.leader_id
        loop = asyncio.get_running_loop()
        steps = forwarding(loop.time(), leader_id())
        action = next(steps)
        came: web.StreamResponse | Exception | None = None
        while True:
            event: Event
            if isinstance(action, Hold):
                await asyncio.sleep(action.wait_s)
                event = Woken(loop.time(), leader_id())
            else:
                came, event = await self._try(exchange, handle, action)
            try:
                action = steps.send(event)
            except StopIteration as stop:
                ending: Ending = stop.value
                break
        match ending, came:
            case Relay(), web.StreamResponse():
                return came
            case Relay(), ClusterError():
                raise came
            case NotReached(leader), _:
                trouble = exchange.service.leader_trouble()
                if trouble is not None:
                    raise Unavailable(
                        f"Node {exchange.service.node_id} cannot take writes. {trouble} Nothing was changed; "
                        f"send it to {leader}, or through the balancer."
                    )
                raise NotLeader(leader)
            case _:
                cause = came if isinstance(came, Exception) else None
                raise _unknown(exchange, keyless=keyless) from cause

    async def _try(
        self, exchange: Exchange, handle: Handle, action: Send
    ) -> tuple[web.StreamResponse | Exception, Event]:
        """What one attempt came to, for the client and for the decision."""
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout_at(action.until):
                answer = await self._attempt(exchange, handle, action.leader)
        except ClusterError as refusal:  # of this node, which leads
            return refusal, Answered(loop.time(), refusal.status, refusal.error)
        except _NotSent as failure:
            return failure, NotSent(loop.time())
        except LeaderChanged as failure:
            return failure, Deposed(loop.time(), exchange.service.leader_id())
        except _Broken as failure:
            return failure, Broken(loop.time())
        except TimeoutError as failure:
            if action.until is None:
                raise
            return failure, Late(loop.time())
        return answer, Answered(loop.time(), answer.status, _error_name(answer))

    async def _attempt(self, exchange: Exchange, handle: Handle, leader: str | None) -> web.StreamResponse:
        service = exchange.service
        if service.is_leader():
            return await handle(exchange)
        url = service.leader_url()
        if leader is None or url is None or leader == service.node_id:
            raise _NotSent
        return await unless_leader_changes(
            self._send(exchange, url), leader, service.leader_id, leaderless_s=HOLD_S
        )

    async def _send(self, exchange: Exchange, url: str) -> web.StreamResponse:
        request = exchange.request
        passed = _passed_on(request.headers)
        passed[headers.FORWARDED] = "1"
        skip = () if "Content-Type" in request.headers else ("Content-Type",)
        failpoint("forward.before_send")
        try:
            async with proven(
                self._open(),
                self._prover,
                request.method,
                url,
                # The bytes of the target as they came: encoded again, they might name another path.
                request.target,
                body=request.body,
                headers=passed,
                skip_auto_headers=(*skip, "User-Agent", "Accept", "Accept-Encoding"),
                allow_redirects=False,
            ) as answer:
                if CHALLENGE in answer.headers:
                    raise _NotSent  # it does not take this node for a member: nothing was done
                body = await answer.read()
                failpoint("forward.after_receive")
                index = answer.headers.get(headers.LOG_INDEX, "")
                if index.isdecimal():
                    exchange.service.observe(int(index))
                return web.Response(status=answer.status, body=body, headers=_passed_on(answer.headers))
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
                    total=None, connect=_CONNECT_TIMEOUT_S, sock_connect=_CONNECT_TIMEOUT_S
                ),
                connector=aiohttp.TCPConnector(limit=0),
                auto_decompress=False,
                cookie_jar=aiohttp.DummyCookieJar(),
            )
            # aiohttp would send a PUT or DELETE a second time by itself when a kept connection breaks, and if
            # that one is refused, tell of the refusal alone: a write that was sent would count as never sent.
            self._session._retry_connection = False  # pyright: ignore[reportPrivateUsage]
        return self._session


def _passed_on(given: Mapping[str, str]) -> dict[str, str]:
    return {name: legible(value) for name, value in given.items() if name.lower() not in _NOT_PASSED_ON}


def _error_name(answer: web.StreamResponse) -> str:
    """The name of the error in an answer that another attempt may better, else nothing."""
    if answer.status not in PASSING or not isinstance(answer, web.Response):
        return ""
    try:
        value: Any = orjson.loads(answer.body)  # type: ignore[arg-type]
    except ValueError:
        return ""
    return str(cast("dict[str, Any]", value).get("error", "")) if isinstance(value, dict) else ""


def _unknown(exchange: Exchange, *, keyless: bool) -> OutcomeUnknown:
    key = exchange.request.headers[headers.KEY]
    which = f"Idempotency-Key: {key} (made by this node)" if keyless else "the same Idempotency-Key"
    return OutcomeUnknown(
        "Outcome unknown: the write was sent to the leader, and neither it nor a new leader told its fate. "
        f"It may or may not take effect; send it again with {which} to find out."
    )
