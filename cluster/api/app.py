"""The HTTP application of one node: each request to its handler, here or at the leader, and every error."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from aiohttp import web

from cluster.api import doors, headers
from cluster.api.exchange import Exchange
from cluster.api.fields import Undecodable
from cluster.api.forward import Forwarder
from cluster.api.request import Request, decode_parameters
from cluster.api.responses import UNTYPED, bare_response, empty_response, error_response
from cluster.api.routes import allowed, match
from cluster.api.wording import refuse
from cluster.errors import ClusterError, EngineDied, NotLeader, OutcomeUnknown, Refusal, Unavailable
from cluster.quarantine import digest_of_request
from wire.drain import Drain
from wire.malformed import UNREADABLE
from wire.proof import CHALLENGE

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping

    from cluster.api.cluster_routes import ClusterRoutes
    from cluster.api.interface import Service
    from cluster.api.routes import Route

    Handler: TypeAlias = Callable[[web.Request], Awaitable[web.StreamResponse]]

log = logging.getLogger(__name__)

#: Clients show it with an error; without tracing, `chroma run` sends zeros.
_TRACE_ID: Final = "chroma-trace-id"
_NO_TRACE: Final = "0" * 32

#: How the server of a node is to read HTTP: bodies as they come, as Chroma takes them (it unpacks none, and a
#: small body may unpack to a huge one), and lines as long as the balancer passes them on.
SERVER_OPTIONS: Final[dict[str, Any]] = {
    "auto_decompress": False,
    # Also for a connection on which nothing is asked, or half of a request's head.
    "keepalive_timeout": 75.0,
    "max_line_size": 65536,
    "max_field_size": 65536,
}

#: A body may take so long, and a second for so many bytes.
_BODY_BASE_S: Final = 10.0
_BODY_RATE: Final = 64 * 1024

#: The requests under way of an application, for who stops it.
DRAIN: Final = web.AppKey("drain", Drain)

#: As proxies log it; nobody sees it.
_CLIENT_CLOSED_REQUEST: Final = 499

_NOT_IMPLEMENTED: Final = 501


def create_app(service: Service, beside: ClusterRoutes | None = None) -> web.Application:
    """The application of one node: Chroma's routes, and `beside` them the node's own."""
    api = _Api(service, beside or {})
    app = web.Application(middlewares=[api.errors], client_max_size=service.max_request_bytes)
    app[DRAIN] = api.drain
    # A name in a path may have a line's end in it, which a dot does not match.
    app.router.add_route("*", r"/{path:[\s\S]*}", api.dispatch, expect_handler=expect)
    app.on_response_prepare.append(_strip)
    app.cleanup_ctx.append(api.close)
    return app


class _Api:
    """What the requests of one node have in common."""

    def __init__(self, service: Service, beside: ClusterRoutes) -> None:
        self._service = service
        self._beside = beside
        self.drain = Drain()
        self._forwarder = Forwarder(service.prover)

    async def dispatch(self, request: web.Request) -> web.StreamResponse:
        """Chroma's routes, in its order: path, method, parameters, content type, body."""
        target = request.raw_path
        if not target.startswith("/"):
            target = request.rel_url.raw_path_qs  # a proxy's form, with the host in it
        path, _, query = target.partition("?")
        # By the path as it was sent: whoever tests it on the way, a balancer or a firewall, sees the same.
        own = self._beside.get(path)
        if own is not None:
            return await self._own(request, own)
        found = match(path)
        if found is None:
            return empty_response(404)
        method = request.method
        route = found.methods.get(method)
        if route is None and method == "HEAD":
            route = found.methods.get("GET")
        if route is None:
            return empty_response(405, {"Allow": allowed(found.methods)})
        claim = None
        if not (route.public or self._service.admits_strangers):
            claim = doors.require(self._service.door, request, of_chroma=True)
        parameters = decode_parameters(found.raw)
        if route.body and not _is_json(request.headers.get("Content-Type")):
            raise Refusal(415, "ChromaError", "Expected request with `Content-Type: application/json`")
        try:
            body = await self._body(request) if route.body else b""
        except web.HTTPRequestEntityTooLarge:
            if route.streamed:
                return bare_response(413, b"Payload too large")
            message = "Failed to buffer the request body: length limit exceeded"
            raise Refusal(413, "ChromaError", message) from None
        if claim is not None and route.body:
            await doors.require_body(self._service.door, claim, body)
        asked = Request(method, target, query, found.route, parameters, request.headers, body)
        return await self._guarded(Exchange(asked, self._service), route, path)

    async def _own(self, request: web.Request, methods: Mapping[str, Handler]) -> web.StreamResponse:
        handler = methods.get("GET" if request.method == "HEAD" else request.method)
        if handler is None:
            return empty_response(405, {"Allow": ",".join(methods)})
        return await handler(request)

    async def _guarded(self, exchange: Exchange, route: Route, path: str) -> web.StreamResponse:
        """The answer; a request in which Chroma's process ended is refused for a while afterwards."""
        guard, asked = self._service.guard, exchange.request
        digest: bytes | None = None
        try:
            if guard.is_alert:
                digest = await exchange.work(digest_of_request, asked.method, path, asked.body)
                guard.admit(digest)
            response = await self._answer(exchange, route)
        except EngineDied as death:
            digest = digest or await exchange.work(digest_of_request, asked.method, path, asked.body)
            await guard.died(digest, death)
            return _error(exchange, death)
        except ClusterError as error:
            # Here and not in the middleware, for the log index that was learned on the way.
            return _error(exchange, error)
        if digest is not None and response.status < 300:
            guard.answered(digest)
        return response

    async def _body(self, request: web.Request) -> bytes:
        """Raises:
        HTTPRequestEntityTooLarge: it is larger than allowed, or says so.
        """
        if (request.content_length or 0) > self._service.max_request_bytes:
            raise web.HTTPRequestEntityTooLarge(self._service.max_request_bytes)
        # A body may be slow, but not for ever: its connection is kept from others.
        try:
            length = request.content_length
            size = self._service.max_request_bytes if length is None else length
            async with asyncio.timeout(_BODY_BASE_S + size / _BODY_RATE):
                return await request.read()
        except TimeoutError as error:
            message = "The request's body did not arrive in time. Nothing was changed; send it again."
            raise Refusal(408, "TimeoutError", message) from error

    async def _answer(self, exchange: Exchange, route: Route) -> web.StreamResponse:
        try:
            if route.admit is not None:
                route.admit(exchange)
            return await (self._led(exchange, route) if route.leads else route.handle(exchange))
        except Undecodable:
            return await refuse(exchange)

    async def _led(self, exchange: Exchange, route: Route) -> web.StreamResponse:
        """The handler's answer if this node leads, else the leader's."""
        deposed = self._service.is_leader()
        if deposed:
            try:
                return await route.handle(exchange)
            except NotLeader:
                # Deposed meanwhile, perhaps because it is told to stop, and nothing was appended.
                if headers.FORWARDED in exchange.request.headers:
                    raise
        if headers.FORWARDED in exchange.request.headers:
            raise NotLeader(self._service.leader_id())
        return await self._forwarder.forward(exchange, route.handle, deposed=deposed)

    @web.middleware
    async def errors(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        """Every failure as an answer, and on every answer who gave it."""
        with self.drain.under_way():
            response = await self._settled(request, handler)
            if not response.prepared:
                self._sign(response)
                if self.drain.draining:
                    response.force_close()
            return response

    async def _settled(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        try:
            response = await handler(request)
        except asyncio.CancelledError:
            if not self.drain.over:
                raise
            error = _stopped(self._service.node_id, request)
            response = error_response(error.status, error.error, error.message, _outcome(error))
        except doors.NotProven as error:
            said = {**_outcome(error), CHALLENGE: error.challenge}
            response = error_response(error.status, error.error, error.message, said)
        except ClusterError as error:
            response = error_response(error.status, error.error, error.message, _outcome(error))
        except web.HTTPException as error:
            response = empty_response(error.status)
        except UNREADABLE as error:
            log.info("%s %s: its body is no HTTP: %s", request.method, request.path, _line(error))
            message = "The body is not sent as HTTP says. Nothing was changed."
            response = error_response(400, "InvalidArgumentError", message, {})
            response.force_close()
        except Exception as error:
            if isinstance(error, ConnectionResetError) and _hung_up(request):
                log.debug("%s %s: the client hung up before it had its answer", request.method, request.path)
                return empty_response(_CLIENT_CLOSED_REQUEST)
            log.exception("%s %s failed", request.method, request.path)
            message = f"Node {self._service.node_id} failed on this request; its log says why."
            response = error_response(500, "InternalError", message, {headers.OUTCOME: "unknown"})
        return response

    def _sign(self, response: web.StreamResponse) -> None:
        if response.status >= 400:
            response.headers.setdefault(_TRACE_ID, _NO_TRACE)
        if 400 <= response.status < 500 or response.status == _NOT_IMPLEMENTED:
            response.headers.setdefault(headers.OUTCOME, "unchanged")
        # What was forwarded names the node that answered already.
        response.headers.setdefault(headers.NODE, self._service.node_id)
        leader = self._service.leader_id()
        if leader is not None:
            response.headers.setdefault(headers.LEADER, leader)

    async def close(self, app: web.Application) -> AsyncGenerator[None]:
        """For the application's cleanup."""
        del app
        yield
        await self._forwarder.close()


async def expect(request: web.Request) -> None:
    """As `chroma run`: tells a client that waits for it to go on, and passes over other expectations.

    aiohttp's own answers those with 417, or fails where they are no text.
    """
    if request.headers.get("Expect", "").lower() == "100-continue":
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        # What was just written is no part of the answer.
        request.writer.output_size = 0


async def _strip(request: web.Request, response: web.StreamResponse) -> None:
    del request
    if response.get(UNTYPED):
        response.headers.popall("Content-Type", None)
    response.headers.popall("Server", None)


def _error(exchange: Exchange, error: ClusterError) -> web.Response:
    if error.log_index is not None:
        exchange.answer_headers[headers.LOG_INDEX] = str(error.log_index)
    said = exchange.answer_headers | _outcome(error)
    return error_response(error.status, error.error, error.message, said)


def _outcome(error: ClusterError) -> dict[str, str]:
    return {} if error.outcome is None else {headers.OUTCOME: error.outcome}


def _stopped(node_id: str, request: web.Request) -> ClusterError:
    """For a request that had not ended when the time for it was up; whose body has arrived may be a write."""
    if request.body_exists and not request.content.is_eof():
        return Unavailable(
            f"Node {node_id} is stopping, and the request's body had not arrived. Nothing was changed; "
            "send it again."
        )
    return OutcomeUnknown(
        f"Node {node_id} is stopping, and the request had not been answered: outcome unknown. If it is a "
        "write, it may or may not take effect; send it again with the same Idempotency-Key to find out."
    )


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200]


def _hung_up(request: web.Request) -> bool:
    """Whether there is nobody left to answer."""
    return request.transport is None or request.transport.is_closing()


def _is_json(content_type: str | None) -> bool:
    if content_type is None:
        return True
    if not content_type.isascii() or content_type.count('"') % 2:
        return False  # not to be read as a media type, whatever it begins with
    essence = content_type.partition(";")[0].strip().lower()
    return essence == "application/json" or (essence.startswith("application/") and essence.endswith("+json"))
