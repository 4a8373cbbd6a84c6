"""The wrapper in front of one member's Chroma: stamps what clients write, merges what the agent brings.

A process of its own, because Chroma has no place for it: `python -m evaluation.systems.naive.gateway OPTIONS`
with OPTIONS as JSON. Clients see Chroma's API and their own documents; the strategy's metadata is hidden.
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
from typing import TYPE_CHECKING, Any, Final

import aiohttp
import orjson
from aiohttp import web

from evaluation.systems.naive.hiding import JSON, answer, collections, documents, known_to_clients
from evaluation.systems.naive.holding import MemberState, Options
from evaluation.systems.naive.records import change_of
from evaluation.systems.naive.store import DATABASE, Failed
from evaluation.systems.naive.sync_handlers import SyncHandlers

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from evaluation.systems.naive.store import Local

_COLLECTION: Final = re.compile(re.escape(DATABASE) + r"/collections/(?P<id>[^/]+)(?:/(?P<verb>[a-z_]+))?$")
_UUID: Final = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$")
_WRITES: Final = {"add": 201, "upsert": 200, "update": 200}


class Gateway:
    """One member's HTTP service."""

    def __init__(self, options: Options, session: aiohttp.ClientSession) -> None:
        self._options = options
        self._session = session
        self._state = MemberState(options, session)
        self._sync = SyncHandlers(self._state)

    def app(self) -> web.Application:
        app = web.Application(client_max_size=1 << 30, middlewares=[self._errors])
        app.add_routes(self._sync.routes())
        app.router.add_route("*", "/{path:.*}", self._client)
        return app

    @web.middleware
    async def _errors(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        try:
            response = await handler(request)
        except Failed as failed:
            response = web.Response(status=failed.status, body=failed.body, headers=JSON)
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            text = (
                f"The server behind {self._options.member} gave no answer ({error!r}); a write may be done."
            )
            body = orjson.dumps({"error": "InternalError", "message": text})
            response = web.Response(status=502, body=body, headers=JSON)
        response.headers["X-Chroma-Node"] = self._options.member
        return response

    async def _client(self, request: web.Request) -> web.Response:
        body = await request.read()
        found = _COLLECTION.match(request.path)
        if request.path == f"{DATABASE}/collections":
            if request.method == "POST":
                return await self._create(body)
            return collections(await self._pass(request, body))
        if found is None:
            return await self._pass(request, body)
        id, verb = found["id"], found["verb"]
        if verb is None and request.method == "DELETE":
            return await self._drop(id, request, body)
        if _UUID.match(id) is None:
            return collections(await self._pass(request, body))
        local = await self._state.store.by_logical_id(id)
        try:
            return await self._records(request, local, verb, body)
        except Failed as failed:
            # Dropped and made again by the agent, under another id of Chroma's: ask once more.
            if failed.status != 404:
                raise
            fresh = await self._state.store.by_logical_id(id, fresh=True)
            if fresh is None or local is None or fresh.id == local.id:
                raise
            return await self._records(request, fresh, verb, body)

    async def _records(
        self, request: web.Request, local: Local | None, verb: str | None, body: bytes
    ) -> web.Response:
        if local is None:
            return await self._pass(request, body)
        if request.method == "POST" and verb in _WRITES:
            await self._write(local, verb, orjson.loads(body))
            return web.Response(status=_WRITES[verb], body=b"{}", headers=JSON)
        if request.method == "POST" and verb == "delete":
            return answer(await self._delete(local, orjson.loads(body)))
        path = f"{DATABASE}/collections/{local.id}" + (f"/{verb}" if verb else "")
        response = await self._pass(request, body, path)
        if response.status == 404:
            assert isinstance(response.body, bytes)
            raise Failed(404, response.body)
        return documents(response) if verb in ("get", "query") else response

    async def _pass(self, request: web.Request, body: bytes, path: str | None = None) -> web.Response:
        url = self._options.chroma + (path or request.path)
        query = request.rel_url.query
        async with self._session.request(
            request.method, url, params=query, data=body or None, headers=JSON
        ) as answer:
            content = await answer.read()
        return web.Response(status=answer.status, body=content, headers=JSON)

    async def _write(self, local: Local, verb: str, payload: dict[str, Any]) -> None:
        ids: list[str] = payload["ids"]
        async with self._state.lock:
            before = await self._loaded(local, ids)
            after: dict[str, Any] = {}
            for position, id in enumerate(ids):
                state = after.get(id, before.get(id))
                exists = state is not None and self._state.strategy.shown(state) is not None
                # As Chroma does: add leaves alone what is there, update what is not.
                if (verb == "add" and exists) or (verb == "update" and not exists):
                    continue
                change = change_of(payload, position)
                after[id] = self._state.strategy.write(state, change, self._state.clock.stamp())
            await self._state.store.put(local, before, after)

    async def _delete(self, local: Local, payload: dict[str, Any]) -> Any:
        path = f"{DATABASE}/collections/{local.id}"
        async with self._state.lock:
            if payload.get("where") or payload.get("where_document"):
                chosen = await self._state.store.call("POST", f"{path}/get", {**payload, "include": []})
                payload = {"ids": chosen["ids"]}
                if not chosen["ids"]:
                    return {"deleted": 0}
            ids: list[str] = payload.get("ids") or []
            states = await self._loaded(local, ids)
            buried: dict[str, Any] = {}
            for id in ids:
                after = self._state.strategy.delete(states.get(id), self._state.clock.stamp())
                if after is not None:
                    buried[id] = self._state.strategy.to_json(after)
            # First the memory of it: killed in between, the next round finishes the delete.
            self._state.tombs.bury(local.name, buried)
            return await self._state.store.call("POST", f"{path}/delete", payload)

    async def _loaded(self, local: Local, ids: Sequence[str]) -> dict[str, Any]:
        """The first step of a write: if Chroma cannot even be reached for it, surely nothing was changed."""
        try:
            return await self._state.store.load(local, ids)
        except aiohttp.ClientConnectorError as error:
            text = f"The server behind {self._options.member} is not there; nothing was changed."
            body = orjson.dumps({"error": "UnavailableError", "message": text})
            raise Failed(503, body) from error

    async def _create(self, body: bytes) -> web.Response:
        async with self._state.lock:
            raw = await self._state.store.call("POST", f"{DATABASE}/collections", orjson.loads(body))
            known = self._state.tombs.collections().get(raw["name"])
            if self._state.keeps_catalogue and (
                known is None or (known["created"] or [0, 0, ""]) < (known["dropped"] or [0, 0, ""])
            ):
                self._state.tombs.note(raw["name"], "created", self._state.clock.stamp().to_json())
            self._state.store.forget(raw["name"])
        return answer(known_to_clients(raw))

    async def _drop(self, name: str, request: web.Request, body: bytes) -> web.Response:
        async with self._state.lock:
            response = await self._pass(request, body)
            if response.status == 200:
                self._state.store.forget(name)
                if self._state.keeps_catalogue:
                    self._state.tombs.note(name, "dropped", self._state.clock.stamp().to_json())
        return response


async def _serve(options: Options) -> None:
    timeout = aiohttp.ClientTimeout(total=options.timeout_s)
    async with aiohttp.ClientSession(timeout=timeout, connector=aiohttp.TCPConnector(limit=0)) as session:
        runner = web.AppRunner(Gateway(options, session).app(), access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", options.port).start()
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(_serve(Options(**json.loads(sys.argv[1]))))
