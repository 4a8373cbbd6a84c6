"""Routes beside Chroma's own: a node's status (once or as a stream), and what peers ask of the leader."""

from __future__ import annotations

import asyncio
import base64
import contextlib
from typing import TYPE_CHECKING, Any, Final, cast

import orjson
from aiohttp import web

from cluster.api.names import invalid
from cluster.apply.containment import Question
from cluster.errors import Refusal
from cluster.proof import HEADER

if TYPE_CHECKING:
    from collections.abc import Callable

    from cluster.api.interface import PeerService

#: A line at least so often, so that silence means a stalled or unreachable node.
STATUS_PERIOD_S: Final = 0.2
#: Applied indices move with every write; a watcher is told at most so often.
STATUS_MIN_GAP_S: Final = 0.01


class StatusFeed:
    """Wakes everybody who watches the status; `changed` may be called from any thread."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._waiting: set[asyncio.Future[None]] = set()
        self._wake_is_scheduled = False
        self.closed = False

    def close(self) -> None:
        """Let all watchers see the last status and go; to be called on the loop."""
        self.closed = True
        self._wake()

    def changed(self) -> None:
        """Something that the status shows may have changed."""
        # One call into the loop however many changes come before it runs.
        if self._waiting and not self._wake_is_scheduled:
            self._wake_is_scheduled = True
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody watches any more
                self._loop.call_soon_threadsafe(self._wake)

    def _wake(self) -> None:
        self._wake_is_scheduled = False
        for future in self._waiting:
            if not future.done():
                future.set_result(None)

    async def wait(self, timeout_s: float) -> None:
        """Until the next change, or the time is over."""
        future: asyncio.Future[None] = self._loop.create_future()
        self._waiting.add(future)
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(timeout_s):
                    await future
        finally:
            self._waiting.discard(future)


def add_cluster_routes(app: web.Application, service: PeerService, feed: StatusFeed) -> None:
    """Add `/cluster/*` to the application of one node."""

    async def status(request: web.Request) -> web.StreamResponse:
        if request.query.get("watch") == "1":
            return await _watch(request, service.status, feed)
        return _json({**service.status(), "documents": await service.count_documents()})

    async def read_index(request: web.Request) -> web.StreamResponse:
        del request
        return _json({"index": await service.read_index()})

    async def embed(request: web.Request) -> web.StreamResponse:
        collection_id, texts, query = _read_embed(await request.read())
        vectors, model, dimension = await service.embed_here(collection_id, texts, query=query)
        encoded = [base64.b64encode(vector).decode() for vector in vectors]
        return _json({"vectors": encoded, "model": model, "dimension": dimension})

    async def suspect(request: web.Request) -> web.StreamResponse:
        told = await _of_a_member(request)
        service.guard.heard(bytes.fromhex(told["digest"]), str(told["cause"])[:1000], float(told["for_s"]))
        return _json({})

    async def check(request: web.Request) -> web.StreamResponse:
        asked = await _of_a_member(request)
        return _json(await service.check_collection(str(asked["collection_id"])))

    async def _of_a_member(request: web.Request) -> dict[str, Any]:
        body = await request.read()
        if not service.is_from_member(request.path, body, request.headers.get(HEADER, "")):
            message = f"Only members of this cluster may ask this: {HEADER} does not prove its secret."
            raise Refusal(403, "ForbiddenError", message)
        return orjson.loads(body)

    async def progress(request: web.Request) -> web.StreamResponse:
        asked = await _of_a_member(request)
        try:
            question = Question.decode(asked)
        except (ValueError, TypeError, KeyError) as error:
            raise Refusal(400, "InvalidArgumentError", f"This is no question for progress: {error}") from None
        return _json(service.progress(question).encode())

    app.router.add_get("/cluster/status", status)
    app.router.add_post("/cluster/suspect", suspect)
    app.router.add_post("/cluster/check", check)
    app.router.add_post("/cluster/progress", progress)
    app.router.add_post("/cluster/read-index", read_index)
    app.router.add_post("/cluster/embed", embed)


def _read_embed(body: bytes) -> tuple[str, list[str], bool]:
    """What a peer asks vectors for.

    Raises:
        Refusal: 400, the body is none that a peer sends.
    """
    try:
        asked: Any = orjson.loads(body)
    except orjson.JSONDecodeError:
        asked = None
    fields = cast("dict[str, Any]", asked) if isinstance(asked, dict) else {}
    collection_id, texts, query = (fields.get(name) for name in ("collection_id", "texts", "query"))
    if isinstance(collection_id, str) and isinstance(texts, list) and isinstance(query, bool):
        given = cast("list[Any]", texts)
        if all(isinstance(text, str) for text in given):
            return collection_id, given, query
    raise invalid("Not a request for vectors: collection_id, a list of texts and query are needed.")


async def _watch(
    request: web.Request, status: Callable[[], dict[str, Any]], feed: StatusFeed
) -> web.StreamResponse:
    response = web.StreamResponse(headers={"content-type": "application/x-ndjson"})
    with contextlib.suppress(ConnectionResetError):  # the watcher went away, perhaps before the first line
        await response.prepare(request)
        # A stream that went on would hold up the end of a node that is told to stop.
        while not feed.closed:
            await response.write(orjson.dumps(status()) + b"\n")
            await asyncio.sleep(STATUS_MIN_GAP_S)
            await feed.wait(STATUS_PERIOD_S - STATUS_MIN_GAP_S)
        await response.write(orjson.dumps(status()) + b"\n")
    return response


def _json(value: Any) -> web.Response:
    return web.Response(body=orjson.dumps(value), content_type="application/json")
