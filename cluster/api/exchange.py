"""One request on its way through the handlers, and the answers they give."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast
from urllib.parse import quote, unquote_to_bytes

from aiohttp import web

from cluster.api import headers
from cluster.api.encode import encode, encode_error
from cluster.api.names import invalid, no_collection, parse_uuid
from cluster.errors import ClusterError, NotLeader, OutcomeUnknown, Refusal
from cluster.failpoint import failpoint
from cluster.reads import Level

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from multidict import CIMultiDictProxy

    from cluster.api.forward import Forwarder
    from cluster.api.interface import Service
    from cluster.chroma.interface import Engine
    from cluster.chroma.oracle import Answer
    from cluster.state.catalog import Collection, Outcome
    from cluster.state.commands import Command

T = TypeVar("T")

JSON: Final = "application/json"
#: Mark of a response that goes out without a content type, for which aiohttp would make one up.
UNTYPED: Final = web.ResponseKey("untyped", bool)
#: Work on bodies above this is done in a thread; smaller ones take less time than the switch.
_IN_THREAD_BYTES: Final = 128 * 1024


@dataclass(slots=True)
class Exchange:
    """A request whose route is known and whose body is read.

    `target` is the path with its query string as the client sent it, `parameters` are the parts of
    the path that the route names, decoded. `answer_headers` go out with whatever is answered.
    """

    method: str
    target: str
    query: str
    route: tuple[str, ...]
    parameters: dict[str, str]
    headers: CIMultiDictProxy[str]
    body: bytes
    service: Service
    forwarder: Forwarder
    answer_headers: dict[str, str] = field(default_factory=dict[str, str])

    # ------------------------------------------------------------------------------- answers

    def json(self, body: Any, status: int = 200) -> web.Response:
        """A plain value as JSON."""
        return self.raw(encode(body), status)

    def raw(self, body: bytes, status: int = 200) -> web.Response:
        """JSON that is encoded already."""
        return web.Response(status=status, body=body, content_type=JSON, headers=self.answer_headers)

    def passed_on(self, answer: Answer) -> web.Response:
        """What the oracle answered."""
        found = {**self.answer_headers}
        if answer.content_type is not None:
            found["Content-Type"] = answer.content_type
        if answer.location is not None:
            found["Location"] = answer.location
        return _bare(answer.status, answer.body, found)

    async def outcome(
        self, command: Command, missing: Callable[[str], Awaitable[dict[str, Any]]] | None = None
    ) -> web.Response:
        """Replicate `command` and answer with its outcome.

        A created collection is rendered from the engine; if it was deleted again in the meantime,
        by `missing` from its id.
        """
        outcome, index = await self.write(command)
        body = outcome.body
        collection_id = _created(body)
        if collection_id is not None:
            # The leader has applied it, so this reads at once.
            try:
                body = await self.service.read_back(index, lambda engine: engine.collection(collection_id))
            except Refusal as refusal:
                if refusal.status != 404 or missing is None:
                    raise
                body = await missing(collection_id)
            except ClusterError as error:
                # Its own words would say that nothing was changed.
                raise OutcomeUnknown(
                    "The write took effect, but this node failed before it could answer with the collection. "
                    "Send it again with the same Idempotency-Key for the answer."
                ) from error
        failpoint("api.before_answer")
        return self.json(body, outcome.status)

    # ---------------------------------------------------------------------- reading and writing

    async def write(self, command: Command) -> tuple[Outcome, int]:
        """Replicate `command` under the request's key; the log index goes out in the headers."""
        key = headers.read_key(self.headers)
        ack = headers.read_ack(self.headers)
        digest = await self.work(headers.digest_of, self.method, self.target, self.body)
        failpoint("api.decoded")
        outcome, index = await self.service.write(command, key=key, digest=digest, ack=ack)
        self.answer_headers[headers.LOG_INDEX] = str(index)
        return outcome, index

    async def read(self, collection_id: str | None, fn: Callable[[Engine], T]) -> T:
        """Run `fn` under the guarantee that the request asks for; the token goes out in the headers."""
        guarantee, token = headers.read_guarantee(self.headers)
        found, seen = await self.service.read(
            guarantee.level, token, guarantee.max_staleness_ms, collection_id, fn
        )
        self.answer_headers[headers.LOG_INDEX] = str(seen)
        return found

    async def find(self, collection_id: str) -> Collection:
        """The catalogue's entry of a collection, as of now: for refusals that depend on it.

        Raises:
            Refusal: 404, there is none.
        """
        catalog = self.service.catalog
        found, _ = await self.service.read(
            Level.LINEARIZABLE, None, None, None, lambda _: catalog.collection(collection_id)
        )
        if found is None:
            raise no_collection(collection_id)
        return found

    async def led(self, handle: Callable[[Exchange], Awaitable[web.StreamResponse]]) -> web.StreamResponse:
        """Let `handle` work if this node leads, else bring the request to the leader."""
        if self.service.is_leader():
            return await handle(self)
        if headers.FORWARDED in self.headers:
            raise NotLeader(self.service.leader_id())
        return await self.forwarder.forward(self, handle)

    async def work(self, fn: Callable[..., T], *arguments: Any) -> T:
        """`fn(*arguments)`, in a thread if the body is so large that the event loop would stall."""
        if len(self.body) > _IN_THREAD_BYTES:
            return await asyncio.to_thread(fn, *arguments)
        return fn(*arguments)

    # -------------------------------------------------------------------------------- the oracle

    async def refuse(self) -> web.Response:
        """The refusal of a request that the decoder does not read, in Chroma's words."""
        answer = await self.ask()
        if answer is not None and answer.status == 404 and "collection_id" in self.route:
            # The body is well-formed; what is wrong with it comes after the collection was found.
            collection_id = parse_uuid(self.parameters["collection_id"])
            if collection_id is not None:
                await self.find(collection_id)
                answer = await self.ask_with_collection()
        if answer is None or not answer.is_refusal:
            raise Refusal(
                400,
                "InvalidArgumentError",
                "This request is not in a form that this server reads. Nothing was changed. See its "
                "/openapi.json for the forms of requests.",
            )
        return self.passed_on(answer)

    async def ask(self) -> Answer | None:
        """What Chroma answers to this request when it has nothing but the default database."""
        target, content_type = self.oracle_target(), self.headers.get("Content-Type")
        return await self.service.oracle.ask(self.method, target, self.body, content_type)

    async def ask_with_collection(self) -> Answer | None:
        """What Chroma answers to this request about a fresh, empty collection."""
        async with self.service.oracle.collection() as collection_id:
            if collection_id is None:
                return None
            target = self.oracle_target(collection_id)
            return await self.service.oracle.ask(
                self.method, target, self.body, self.headers.get("Content-Type")
            )

    def oracle_target(self, collection_id: str | None = None) -> str:
        """This request's target with what exists in the oracle in place of what exists here."""
        values = dict(self.parameters)
        if "tenant" in values:
            values["tenant"] = "default_tenant"
        database = values.get("database", "")
        if len(database.encode()) >= 3 and "+" not in database:
            values["database"] = "default_database"
        if collection_id is not None:
            values["collection_id"] = collection_id
        parts = [values.get(part, part) for part in self.route]
        path = "/" + "/".join(quote(part, safe="") for part in parts)
        return f"{path}?{self.query}" if self.query else path


def _created(body: Any) -> str | None:
    """The id in the outcome of creating a collection, None for other outcomes."""
    return cast("dict[str, str]", body).get("$collection") if isinstance(body, dict) else None


def decode_parameters(names: Mapping[str, str]) -> dict[str, str]:
    """The named parts of a path, percent-decoded.

    Raises:
        Refusal: 400, one is not UTF-8.
    """
    decoded: dict[str, str] = {}
    for name, raw in names.items():
        try:
            decoded[name] = unquote_to_bytes(raw).decode() if "%" in raw else raw
        except UnicodeDecodeError:
            raise invalid(f"Invalid URL: Invalid UTF-8 in `{name}`") from None
    return decoded


def error_response(status: int, error: str, message: str, found: dict[str, str]) -> web.Response:
    """An error in the shape of Chroma's own."""
    return web.Response(status=status, body=encode_error(error, message), content_type=JSON, headers=found)


def empty_response(status: int, found: dict[str, str] | None = None) -> web.Response:
    """No body and no content type, as Chroma answers what it has no route for."""
    return _bare(status, b"", found or {})


def bare_response(status: int, body: bytes) -> web.Response:
    """A body without a content type."""
    return _bare(status, body, {})


def _bare(status: int, body: bytes, found: dict[str, str]) -> web.Response:
    response = web.Response(status=status, body=body, headers=found)
    if "Content-Type" not in found:
        response[UNTYPED] = True
    return response
