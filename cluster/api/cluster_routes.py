"""Routes beside Chroma's own: a node's status (once or as a stream), and what peers ask of the leader."""

from __future__ import annotations

import asyncio
import base64
import contextlib
from typing import TYPE_CHECKING, Any, Final, TypeAlias, cast

import orjson
from aiohttp import web

from cluster.api import doors
from cluster.api.names import invalid
from cluster.apply.containment import Question
from wire.proof import CHALLENGE, HEADER

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from cluster.api.interface import PeerService

#: Path, as it is on the request line, to method to what answers it.
ClusterRoutes: TypeAlias = "dict[str, dict[str, Callable[[web.Request], Awaitable[web.StreamResponse]]]]"

#: What a status says to whoever asks: no address, no process id, no path, nothing of what is stored.
FOR_ANYBODY: Final = ("id", "role", "state", "healthy", "ready")

#: A line at least so often, so that silence means a stalled or unreachable node.
STATUS_PERIOD_S: Final = 0.2
#: Applied indices move with every write; a watcher is told at most so often.
STATUS_MIN_GAP_S: Final = 0.01
_LONGEST_HOLD_S: Final = 60.0
_LONGEST_ID: Final = 64


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


def cluster_routes(service: PeerService, feed: StatusFeed) -> ClusterRoutes:
    """`/cluster/*` of one node. Who POSTs there, or watches the status, proves the cluster's secret."""

    async def status(request: web.Request) -> web.StreamResponse:
        if request.query.get("watch") == "1":
            doors.require(service.door, request)
            return await _watch(request, service, feed)
        whole = service.status()
        if HEADER in request.headers:
            doors.require(service.door, request)
            answer = _json({**whole, "documents": await service.count_documents()})
        else:
            answer = _json({name: whole[name] for name in FOR_ANYBODY})
        # By which whoever knows the secret asks for the rest.
        answer.headers[CHALLENGE] = service.door.challenge
        return answer

    async def read_index(told: bytes) -> dict[str, Any]:
        del told
        return {"index": await service.read_index()}

    async def embed(told: bytes) -> dict[str, Any]:
        collection_id, texts, query = _read_embed(told)
        vectors, model, dimension = await service.embed_here(collection_id, texts, query=query)
        encoded = [base64.b64encode(vector).decode() for vector in vectors]
        return {"vectors": encoded, "model": model, "dimension": dimension}

    async def suspect(told: bytes) -> dict[str, Any]:
        words = orjson.loads(told)
        service.guard.heard(bytes.fromhex(words["digest"]), str(words["cause"])[:1000], float(words["for_s"]))
        return {}

    async def check(told: bytes) -> dict[str, Any]:
        return await service.check_collection(str(orjson.loads(told)["collection_id"]))

    async def progress(told: bytes) -> dict[str, Any]:
        try:
            question = Question.decode(orjson.loads(told))
        except (ValueError, TypeError, KeyError) as error:
            raise invalid(f"This is no question for progress: {error}") from None
        return service.progress(question).encode()

    async def verify(told: bytes) -> dict[str, Any]:
        return await service.verify(start=bool(_read_object(told).get("start", False)))

    async def repair(told: bytes) -> dict[str, Any]:
        words = _read_object(told)
        if words.get("trust") is True:
            return await service.trust()
        donor, reason = words.get("from"), words.get("reason")
        if not isinstance(donor, str | None) or not isinstance(reason, str):
            raise invalid("This is no order to repair: `from` names a node or nobody, `reason` says why.")
        return await service.repair(donor, reason[:1000])

    async def digests(told: bytes) -> dict[str, Any]:
        question = _read_object(told)
        try:
            return service.digests(question)
        except (ValueError, TypeError, KeyError) as error:
            raise invalid(f"This is no question for digests: {error}") from None

    async def verdict(told: bytes) -> dict[str, Any]:
        words = _read_object(told)
        try:
            return await service.take_verdict(words)
        except (ValueError, TypeError, KeyError) as error:
            raise invalid(f"This is no verdict: {error}") from None

    async def members(request: web.Request) -> web.StreamResponse:
        doors.require(service.door, request)
        return _json(service.members())

    async def change_members(told: bytes) -> dict[str, Any]:
        return await service.change_members(_read_object(told))

    posts = {
        "members": change_members,
        "verify": verify,
        "repair": repair,
        "digests": digests,
        "verdict": verdict,
        "read-index": read_index,
        "embed": embed,
        "suspect": suspect,
        "check": check,
        "progress": progress,
    }
    routes: ClusterRoutes = {"/cluster/status": {"GET": status}}
    routes |= _snapshot_routes(service)
    for name, answer in posts.items():
        routes[f"/cluster/{name}"] = {"POST": _for_members(service, answer)}
    routes["/cluster/members"]["GET"] = members
    return routes


def _snapshot_routes(service: PeerService) -> ClusterRoutes:
    """What a node that is to be filled asks of the others; see `cluster.snapshot.donating`."""

    async def snapshots(told: bytes) -> bytes:
        words = _read_object(told)
        if isinstance(words.get("id"), str):
            return (await service.donor.manifest(words["id"])).encode()
        return (await service.donor.offer(_whole(words, "above"))).encode()

    async def part(told: bytes) -> bytes:
        words = _read_object(told)
        return await service.donor.part(str(words.get("id")), _whole(words, "file"), _whole(words, "offset"))

    async def hold_log(told: bytes) -> bytes:
        words = _read_object(told)
        seconds = min(float(_whole(words, "seconds")), _LONGEST_HOLD_S)
        service.hold_log(str(words.get("node"))[:_LONGEST_ID], _whole(words, "index"), seconds)
        return b"{}"

    answers = {"snapshots": snapshots, "snapshot-part": part, "hold-log": hold_log}
    return {f"/cluster/{name}": {"POST": _for_members(service, answer)} for name, answer in answers.items()}


def _whole(words: dict[str, Any], name: str) -> int:
    """Raises:
    Refusal: 400, there is no such number.
    """
    value = words.get(name)
    number = int(value) if isinstance(value, float) and value.is_integer() else value
    if not isinstance(number, int) or isinstance(number, bool) or not 0 <= number < 1 << 63:
        raise invalid(f"`{name}` must be a whole number that is not negative.")
    return number


def _for_members(
    service: PeerService, answer: Callable[[bytes], Awaitable[dict[str, Any] | bytes]]
) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    """What answers a POST with the JSON or the bytes that `answer` makes of the body, if a member
    sent it.
    """

    async def handle(request: web.Request) -> web.StreamResponse:
        claim = doors.require(service.door, request)  # a stranger's body is not even read
        body = await request.read()
        await doors.require_body(service.door, claim, body)
        made = await answer(body)
        if isinstance(made, bytes):
            return web.Response(body=made, content_type="application/octet-stream")
        return _json(made)

    return handle


def _read_object(body: bytes) -> dict[str, Any]:
    """The JSON object in a body.

    Raises:
        Refusal: 400, it has none.
    """
    try:
        told: Any = orjson.loads(body)
    except orjson.JSONDecodeError:
        told = None
    if not isinstance(told, dict):
        raise invalid("The body must be a JSON object.")
    return cast("dict[str, Any]", told)


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


async def _watch(request: web.Request, service: PeerService, feed: StatusFeed) -> web.StreamResponse:
    status = service.status
    said = {"content-type": "application/x-ndjson", CHALLENGE: service.door.challenge}
    response = web.StreamResponse(headers=said)
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
