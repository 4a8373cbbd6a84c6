"""The path of one request: read it, find out what it is, try it where `retry` says, pass the answer on."""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import orjson
from aiohttp import web
from multidict import CIMultiDict

from lb import retry
from lb.budget import Budget
from lb.guarantees import read_index
from lb.receiving import Crowded, Receiving
from lb.routes import Scope, classify
from lb.upstream import Interrupted, NeverSent, NodeAnswer
from wire.hops import legible, strip_hop_by_hop
from wire.malformed import UNREADABLE
from wire.patience import body_bound_s

if TYPE_CHECKING:
    from lb.config import BalancerSettings
    from lb.floor import Floor
    from lb.guarantees import Guarantees
    from lb.ring import Member
    from lb.routes import Route
    from lb.upstream import Upstream
    from lb.watch import Watch
    from wire.drain import Drain

CONSISTENCY: Final = "X-Chroma-Consistency"
MIN_INDEX: Final = "X-Chroma-Min-Index"
LOG_INDEX: Final = "X-Chroma-Log-Index"
OUTCOME: Final = "X-Chroma-Outcome"
FORWARDED: Final = "X-Chroma-Forwarded"
IDEMPOTENCY_KEY: Final = "Idempotency-Key"

#: Bodies up to this are read in one go. Above it, they are counted as they arrive.
_SMALL_BODY_BYTES: Final = 64 * 1024

#: A client that takes nothing of its answer for so long is given up.
_TAKE_S: Final = 60.0

#: After a failed connection, others are preferred for so long; the status stream knows more by then.
_SHUN_S: Final = 0.25

#: Chroma's own words for a body above its limit.
_TOO_LARGE: Final = ("ChromaError", "Failed to buffer the request body: length limit exceeded")


@dataclass(slots=True)
class Counters:
    """What happened since the start."""

    requests: int = 0
    retries: int = 0
    held: int = 0
    gave_up: int = 0
    refused: int = 0


class Refused(Exception):
    """The request is answered by the balancer itself, without a node."""

    def __init__(self, status: int, error: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.error = error
        self.message = message


class Proxy:
    """Serves clients. All state it shares between requests is counters, the ring and the guarantees."""

    def __init__(
        self,
        settings: BalancerSettings,
        watch: Watch,
        guarantees: Guarantees,
        floor: Floor,
        upstream: Upstream,
        drain: Drain,
    ) -> None:
        self._drain = drain
        self._watch = watch
        self._guarantees = guarantees
        self._floor = floor
        self._upstream = upstream
        self._level = settings.consistency
        self._hold_s = settings.hold_ms / 1000
        self._read_try_s = settings.read_try_timeout_ms / 1000
        self._write_try_s = settings.write_try_timeout_ms / 1000
        self._max_request_bytes = settings.max_request_bytes
        self._max_in_flight = settings.max_in_flight
        self._receiving = Receiving(max(settings.max_in_flight // 2, 1))
        self._turn = 0
        self.budget = Budget(settings.max_buffered_bytes)
        self.counters = Counters()
        self.in_flight = 0

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """The answer to one client request."""
        self.counters.requests += 1
        if self.in_flight >= self._max_in_flight:
            self.counters.refused += 1
            return error_response(
                429,
                "OverloadedError",
                f"{self.in_flight} requests are under way. Nothing was changed; try again later.",
            )
        self.in_flight += 1
        taken = [0]
        received = False
        try:
            body = await self._body(request, taken)
            received = True
            return await self._serve(request, body)
        except asyncio.CancelledError:
            if not self._drain.over:
                raise
            return _stopped(request, received=received)
        except UNREADABLE:
            self.counters.refused += 1
            unreadable = error_response(
                400, "InvalidArgumentError", "The body is not sent as HTTP says. Nothing was changed."
            )
            unreadable.force_close()
            return unreadable
        except Refused as refusal:
            self.counters.refused += 1
            return error_response(refusal.status, refusal.error, refusal.message)
        finally:
            self.in_flight -= 1
            self.budget.give_back(taken[0])

    async def _body(self, request: web.BaseRequest, taken: list[int]) -> bytes:
        """The whole body; `taken` grows by what it takes from the budget."""
        if not request.body_exists:
            return b""
        length = request.content_length
        if length is not None and length > self._max_request_bytes:
            raise Refused(413, *_TOO_LARGE)
        if request.headers.get("Expect", "").lower() == "100-continue":
            await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            # What was just written is no part of the answer.
            request.writer.output_size = 0
        try:
            async with self._receiving.body(length):
                if length is not None and length <= _SMALL_BODY_BYTES:
                    self._take(length, taken)
                    return await request.read()
                parts: list[bytes] = []
                while part := await request.content.readany():
                    if taken[0] + len(part) > self._max_request_bytes:
                        raise Refused(413, *_TOO_LARGE)
                    self._take(len(part), taken)
                    parts.append(part)
                return b"".join(parts)
        except TimeoutError as error:
            raise _slow_client() from error
        except Crowded as error:
            message = f"{len(self._receiving)} bodies are on their way. Nothing was changed; try again later."
            raise Refused(429, "OverloadedError", message) from error

    def _take(self, size: int, taken: list[int]) -> None:
        if not self.budget.take(size):
            raise Refused(
                429,
                "OverloadedError",
                f"{self.budget.used} bytes of requests are held already. Nothing was changed; "
                "try again later.",
            )
        taken[0] += size

    async def _serve(self, request: web.BaseRequest, body: bytes) -> web.StreamResponse:
        target = request.raw_path
        if not target.startswith("/"):
            raise Refused(400, "InvalidArgumentError", "The request target must be a path.")
        method = request.method
        route = classify(method, target.partition("?")[0])
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._hold_s
        headers, level, wanted = await self._headers(request, route)
        reads = route.kind == "read"
        lenient = reads and (level == "eventual" or route.scope is Scope.NONE)
        try_s = self._read_try_s if reads else body_bound_s(self._write_try_s, len(body))
        steps = retry.attempts(route.kind, deadline, self._hold_s)
        action = next(steps)
        answer: NodeAnswer | None = None
        sent = 0
        while True:
            event: retry.Event
            if isinstance(action, retry.Hold):
                self.counters.held += 1
                await self._watch.changed(action.wait_s)
                event = retry.Woken(loop.time())
            else:
                if reads:
                    self._turn += 1
                    member = self._watch.ring.reader(
                        self._turn, wanted, action.avoid, loop.time(), lenient=lenient
                    )
                else:
                    member = self._watch.ring.leader()
                if member is None:
                    event = retry.NoNode(loop.time())
                else:
                    if sent:
                        self.counters.retries += 1
                    sent += 1
                    if answer is not None and answer.rest is not None:
                        answer.rest.close()
                    answer, event = await self._try(member, route, method, target, headers, body, try_s)
            try:
                action = steps.send(event)
            except StopIteration as stop:
                ending: retry.Ending = stop.value
                break
        if isinstance(ending, retry.GiveUp):
            self.counters.gave_up += 1
            return error_response(ending.status, ending.error, ending.message)
        assert answer is not None, "only an answered attempt ends in Relay"
        if ending.doubtful is not None and route.collection is not None:
            doubtful = self._watch.ring.find(ending.doubtful)
            if doubtful is not None:
                self._upstream.tell_doubt(doubtful.url, route.collection)
        return await self._relay(request, answer)

    async def _headers(self, request: web.BaseRequest, route: Route) -> tuple[CIMultiDict[str], str, int]:
        """What is sent to nodes, the read level, and the index that the answer must not go behind."""
        headers = CIMultiDict((name, legible(value)) for name, value in request.headers.items())
        strip_hop_by_hop(headers)
        for name in ("Host", "Content-Length", "Expect", FORWARDED):
            if name in headers:
                headers.popall(name)
        wanted = 0
        level = headers.get(CONSISTENCY)
        if level is None:
            headers[CONSISTENCY] = level = self._level
        if route.kind == "write":
            if IDEMPOTENCY_KEY not in headers:
                headers[IDEMPOTENCY_KEY] = f"lb-{os.urandom(16).hex()}"
        elif route.scope is not Scope.NONE and level not in ("eventual", "linearizable"):
            if not self._floor.known and not await self._floor.wait(self._hold_s):
                raise Refused(
                    503,
                    "UnavailableError",
                    f"This balancer has just started and no leader told it within {self._hold_s:g} s how far "
                    "earlier answers went, so a session read could go back in time. Nothing was changed; "
                    f"try again, or read with {CONSISTENCY}: eventual.",
                )
            wanted = self._guarantees.wanted(route)
        if route.kind == "read" and level not in ("eventual", "linearizable"):
            # A client of several balancers carries a token of its own; what is none, a node refuses.
            theirs = read_index(headers.getall(MIN_INDEX, []))
            if theirs is not None:
                wanted = max(wanted, theirs)
                if wanted:
                    headers[MIN_INDEX] = str(wanted)
        return headers, level, wanted

    async def _try(
        self,
        member: Member,
        route: Route,
        method: str,
        target: str,
        headers: CIMultiDict[str],
        body: bytes,
        try_s: float,
    ) -> tuple[NodeAnswer | None, retry.Event]:
        loop = asyncio.get_running_loop()
        try:
            answer = await self._upstream.attempt(member, route.kind, method, target, headers, body, try_s)
        except NeverSent:
            self._watch.shun(member.node_id, _SHUN_S)
            return None, retry.NotSent(loop.time(), member.node_id)
        except Interrupted:
            self._watch.shun(member.node_id, _SHUN_S)
            return None, retry.Broken(loop.time(), member.node_id)
        index = answer.headers.get(LOG_INDEX)
        if index is not None and index.isascii() and index.isdigit():
            self._guarantees.observe(route, int(index))
        error = _error_name(answer.body) if answer.status >= 429 else ""
        return answer, retry.Answered(loop.time(), member.node_id, answer.status, error)

    async def _relay(self, request: web.BaseRequest, answer: NodeAnswer) -> web.StreamResponse:
        headers = answer.headers
        if answer.rest is None:
            if request.method != "HEAD" and "Content-Length" in headers:
                del headers["Content-Length"]
            return web.Response(
                status=answer.status, reason=answer.reason, headers=headers, body=answer.body or None
            )
        response = web.StreamResponse(status=answer.status, reason=answer.reason, headers=headers)
        if self._drain.draining:
            response.force_close()
        if "Content-Length" not in headers and request.version >= (1, 1):
            response.enable_chunked_encoding()
        try:
            await response.prepare(request)
            await response.write(answer.body)
            while True:
                async with asyncio.timeout(self._read_try_s):
                    part = await answer.rest.content.readany()
                if not part:
                    break
                async with asyncio.timeout(_TAKE_S):
                    await response.write(part)
            await response.write_eof()
            answer.rest.release()
        except BaseException as error:
            answer.rest.close()
            # Too late for another node. The client must not take the beginning for the whole.
            response.force_close()
            if request.transport is not None:
                request.transport.abort()
            if isinstance(error, Exception):
                return response
            raise
        return response


def error_response(status: int, error: str, message: str) -> web.Response:
    """An answer in the balancer's own words, in the shape of Chroma's."""
    headers = {OUTCOME: "unknown" if status in (500, 504) else "unchanged"}
    if status in (429, 503):
        headers["Retry-After"] = "1"
    return json_response({"error": error, "message": message}, status=status, headers=headers)


def json_response(value: Any, *, status: int = 200, headers: dict[str, str] | None = None) -> web.Response:
    """`value` as a JSON answer."""
    return web.Response(
        status=status, headers=headers, body=orjson.dumps(value), content_type="application/json"
    )


def _error_name(body: bytes) -> str:
    try:
        value: Any = orjson.loads(body)
    except ValueError:
        return ""
    name = value.get("error") if isinstance(value, dict) else None  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
    return name if isinstance(name, str) else ""


def _stopped(request: web.BaseRequest, *, received: bool) -> web.Response:
    """For a request that had not ended when the time was up."""
    if not received:
        message = "This balancer is stopping, and the request's body had not arrived. "
    elif classify(request.method, request.raw_path.partition("?")[0]).kind == "read":
        message = "This balancer is stopping, and no node had answered. "
    else:
        return error_response(
            504,
            "OutcomeUnknownError",
            "This balancer is stopping, and the write had not been answered: outcome unknown. It may or may "
            "not take effect; send it again with the same Idempotency-Key to find out.",
        )
    return error_response(503, "UnavailableError", f"{message}Nothing was changed; send it again.")


def _slow_client() -> Refused:
    return Refused(
        408, "TimeoutError", "The request's body did not arrive in time. Nothing was changed; send it again."
    )
