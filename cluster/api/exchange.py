"""One request on its way through the handlers: what they read and write for it, and its answer."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

from cluster.api import headers
from cluster.api.encode import encode
from cluster.api.names import no_collection
from cluster.api.responses import bare_response, json_response
from cluster.errors import ClusterError, OutcomeUnknown, Refusal
from cluster.failpoint import failpoint
from cluster.reads import Level

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from aiohttp import web

    from cluster.api.interface import Service
    from cluster.api.request import Request
    from cluster.chroma.interface import Engine
    from cluster.chroma.oracle import OracleAnswer
    from cluster.state.catalog import Catalog, Collection, Outcome
    from cluster.state.commands import Command

T = TypeVar("T")

#: Work on bodies above this is done in a thread; smaller ones take less time than the switch.
_IN_THREAD_BYTES: Final = 128 * 1024


@dataclass(slots=True)
class Exchange:
    """A request and the node that serves it. `answer_headers` go out with whatever is answered."""

    request: Request
    service: Service
    answer_headers: dict[str, str] = field(default_factory=dict[str, str])

    # ------------------------------------------------------------------------------- answers

    def json(self, body: Any, status: int = 200) -> web.Response:
        """A plain value as JSON."""
        return self.raw(encode(body), status)

    def raw(self, body: bytes, status: int = 200) -> web.Response:
        """JSON that is encoded already."""
        return json_response(body, status, self.answer_headers)

    def passed_on(self, answer: OracleAnswer) -> web.Response:
        """What the oracle answered."""
        found = {**self.answer_headers}
        if answer.content_type is not None:
            found["Content-Type"] = answer.content_type
        if answer.location is not None:
            found["Location"] = answer.location
        return bare_response(answer.status, answer.body, found)

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
        request = self.request
        key = headers.read_key(request.headers)
        if key is not None:
            key = headers.scoped_key(key, request.parameters)
        ack = headers.read_ack(request.headers)
        digest = await self.work(headers.digest_of, request.method, request.target, request.body)
        failpoint("api.decoded")
        outcome, index = await self.service.write(command, key=key, digest=digest, ack=ack)
        self.answer_headers[headers.LOG_INDEX] = str(index)
        return outcome, index

    async def read(self, collection_id: str | None, fn: Callable[[Engine], T]) -> T:
        """Run `fn` under the guarantee that the request asks for; the token goes out in the headers."""
        guarantee, token = headers.read_guarantee(self.request.headers)
        found, seen = await self.service.read(
            guarantee.level, token, guarantee.max_staleness_ms, collection_id, fn
        )
        self.answer_headers[headers.LOG_INDEX] = str(seen)
        return found

    async def look_up(self, collection_id: str | None, fn: Callable[[Catalog], T]) -> T:
        """What `fn` finds in the catalogue, under the same guarantee and with the same token as `read`."""
        guarantee, token = headers.read_guarantee(self.request.headers)
        found, seen = await self.service.look_up(
            guarantee.level, token, guarantee.max_staleness_ms, collection_id, fn
        )
        self.answer_headers[headers.LOG_INDEX] = str(seen)
        return found

    async def find(self, collection_id: str) -> Collection:
        """The catalogue's entry of a collection, as of now: for refusals that depend on it.

        Raises:
            Refusal: 404, there is none.
        """
        found, seen = await self.service.look_up(
            Level.LINEARIZABLE, None, None, collection_id, lambda catalog: catalog.collection(collection_id)
        )
        if found is None:
            self.answer_headers[headers.LOG_INDEX] = str(seen)
            raise no_collection(collection_id)
        return found

    async def work(self, fn: Callable[..., T], *arguments: Any) -> T:
        """`fn(*arguments)`, in a thread if the body is so large that the event loop would stall."""
        if len(self.request.body) > _IN_THREAD_BYTES:
            return await asyncio.to_thread(fn, *arguments)
        return fn(*arguments)


def _created(body: Any) -> str | None:
    """The id in the outcome of creating a collection, None for other outcomes."""
    return cast("dict[str, str]", body).get("$collection") if isinstance(body, dict) else None
