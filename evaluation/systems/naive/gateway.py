"""The wrapper in front of one member's Chroma: stamps what clients write, merges what the agent brings.

A process of its own, because Chroma has no place for it: `python -m evaluation.systems.naive.gateway OPTIONS`
with OPTIONS as JSON. Clients see Chroma's API and their own documents; the strategy's metadata is hidden.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import secrets
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

import aiohttp
import orjson
from aiohttp import web

from evaluation.systems.naive.clock import MemberClock
from evaluation.systems.naive.records import change_of
from evaluation.systems.naive.store import (
    DATABASE,
    STATE,
    Failed,
    Local,
    Store,
    logical_id,
    without_state,
)
from evaluation.systems.naive.strategies import strategy
from evaluation.systems.naive.tombs import Tombs

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

_COLLECTION: Final = re.compile(re.escape(DATABASE) + r"/collections/(?P<id>[^/]+)(?:/(?P<verb>[a-z_]+))?$")
_UUID: Final = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$")
_JSON: Final = {"Content-Type": "application/json"}
_WRITES: Final = {"add": 201, "upsert": 200, "update": 200}


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """One gateway's settings, given as JSON."""

    member: str
    port: int
    chroma: str
    strategy: str
    folder: str
    """Where the member keeps its data; tombstones lie there too."""
    clock_offset_file: str
    tombstones: bool = False
    timeout_s: float = 30.0


class Gateway:
    """One member's HTTP service. Everything that changes documents holds one lock: a merge never runs into a
    client's write."""

    def __init__(self, options: Options, session: aiohttp.ClientSession) -> None:
        self._options = options
        self._session = session
        folder = Path(options.folder)
        folder.mkdir(parents=True, exist_ok=True)
        self._strategy = strategy(options.strategy, tombstones=options.tombstones)
        self._tombs = Tombs(folder / "tombstones.jsonl")
        self._store = Store(session, options.chroma, self._strategy, self._tombs)
        node = f"{options.member}.{_incarnation(folder / 'incarnation')}"
        self._clock = MemberClock(node, Path(options.clock_offset_file), hybrid=self._strategy.hybrid)
        self._keeps_catalogue = options.strategy != "lww" or options.tombstones
        self._lock = asyncio.Lock()
        self._merged = 0

    def app(self) -> web.Application:
        app = web.Application(client_max_size=1 << 30, middlewares=[self._errors])
        app.router.add_get("/sync/status", self._status)
        app.router.add_get("/sync/digest", self._digest)
        app.router.add_get("/sync/conflicts", self._conflicts)
        app.router.add_post("/sync/fetch", self._fetch)
        app.router.add_post("/sync/merge", self._merge)
        app.router.add_post("/sync/replace", self._replace)
        app.router.add_post("/sync/collections", self._sync_collections)
        app.router.add_route("*", "/{path:.*}", self._client)
        return app

    @web.middleware
    async def _errors(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        try:
            response = await handler(request)
        except Failed as failed:
            response = web.Response(status=failed.status, body=failed.body, headers=_JSON)
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            text = (
                f"The server behind {self._options.member} gave no answer ({error!r}); a write may be done."
            )
            body = orjson.dumps({"error": "InternalError", "message": text})
            response = web.Response(status=502, body=body, headers=_JSON)
        response.headers["X-Chroma-Node"] = self._options.member
        return response

    # ------------------------------------------------------------------ clients

    async def _client(self, request: web.Request) -> web.Response:
        body = await request.read()
        found = _COLLECTION.match(request.path)
        if request.path == f"{DATABASE}/collections":
            if request.method == "POST":
                return await self._create(body)
            return _collections(await self._pass(request, body))
        if found is None:
            return await self._pass(request, body)
        id, verb = found["id"], found["verb"]
        if verb is None and request.method == "DELETE":
            return await self._drop(id, request, body)
        if _UUID.match(id) is None:
            return _collections(await self._pass(request, body))
        local = await self._store.by_logical_id(id)
        try:
            return await self._records(request, local, verb, body)
        except Failed as failed:
            # Dropped and made again by the agent, under another id of Chroma's: ask once more.
            if failed.status != 404:
                raise
            fresh = await self._store.by_logical_id(id, fresh=True)
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
            return web.Response(status=_WRITES[verb], body=b"{}", headers=_JSON)
        if request.method == "POST" and verb == "delete":
            return _answer(await self._delete(local, orjson.loads(body)))
        path = f"{DATABASE}/collections/{local.id}" + (f"/{verb}" if verb else "")
        response = await self._pass(request, body, path)
        if response.status == 404:
            assert isinstance(response.body, bytes)
            raise Failed(404, response.body)
        return _documents(response) if verb in ("get", "query") else response

    async def _pass(self, request: web.Request, body: bytes, path: str | None = None) -> web.Response:
        url = self._options.chroma + (path or request.path)
        query = request.rel_url.query
        async with self._session.request(
            request.method, url, params=query, data=body or None, headers=_JSON
        ) as answer:
            content = await answer.read()
        return web.Response(status=answer.status, body=content, headers=_JSON)

    async def _write(self, local: Local, verb: str, payload: dict[str, Any]) -> None:
        ids: list[str] = payload["ids"]
        async with self._lock:
            before = await self._loaded(local, ids)
            after: dict[str, Any] = {}
            for position, id in enumerate(ids):
                state = after.get(id, before.get(id))
                exists = state is not None and self._strategy.shown(state) is not None
                # As Chroma does: add leaves alone what is there, update what is not.
                if (verb == "add" and exists) or (verb == "update" and not exists):
                    continue
                after[id] = self._strategy.write(state, change_of(payload, position), self._clock.stamp())
            await self._store.put(local, before, after)

    async def _delete(self, local: Local, payload: dict[str, Any]) -> Any:
        path = f"{DATABASE}/collections/{local.id}"
        async with self._lock:
            if payload.get("where") or payload.get("where_document"):
                chosen = await self._store.call("POST", f"{path}/get", {**payload, "include": []})
                payload = {"ids": chosen["ids"]}
                if not chosen["ids"]:
                    return {"deleted": 0}
            ids: list[str] = payload.get("ids") or []
            states = await self._loaded(local, ids)
            buried: dict[str, Any] = {}
            for id in ids:
                after = self._strategy.delete(states.get(id), self._clock.stamp())
                if after is not None:
                    buried[id] = self._strategy.to_json(after)
            # First the memory of it: killed in between, the next round finishes the delete.
            self._tombs.bury(local.name, buried)
            return await self._store.call("POST", f"{path}/delete", payload)

    async def _loaded(self, local: Local, ids: Sequence[str]) -> dict[str, Any]:
        """The first step of a write: if Chroma cannot even be reached for it, surely nothing was changed."""
        try:
            return await self._store.load(local, ids)
        except aiohttp.ClientConnectorError as error:
            text = f"The server behind {self._options.member} is not there; nothing was changed."
            body = orjson.dumps({"error": "UnavailableError", "message": text})
            raise Failed(503, body) from error

    async def _create(self, body: bytes) -> web.Response:
        async with self._lock:
            raw = await self._store.call("POST", f"{DATABASE}/collections", orjson.loads(body))
            known = self._tombs.collections().get(raw["name"])
            if self._keeps_catalogue and (
                known is None or (known["created"] or [0, 0, ""]) < (known["dropped"] or [0, 0, ""])
            ):
                self._tombs.note(raw["name"], "created", self._clock.stamp().to_json())
            self._store.forget(raw["name"])
        return _answer(_known_to_clients(raw))

    async def _drop(self, name: str, request: web.Request, body: bytes) -> web.Response:
        async with self._lock:
            response = await self._pass(request, body)
            if response.status == 200:
                self._store.forget(name)
                if self._keeps_catalogue:
                    self._tombs.note(name, "dropped", self._clock.stamp().to_json())
        return response

    # ------------------------------------------------------------------ the agent

    async def _status(self, _: web.Request) -> web.Response:
        await self._store.call("GET", "/api/v2/heartbeat")
        return _answer({"member": self._options.member, "merged": self._merged})

    async def _digest(self, _: web.Request) -> web.Response:
        """All collections with a digest of each document's state."""
        found: dict[str, Any] = {}
        for local in list((await self._store.refresh()).values()):
            with contextlib.suppress(Failed):  # dropped meanwhile
                found[local.name] = {
                    "configuration": local.raw.get("configuration_json"),
                    "metadata": local.raw.get("metadata"),
                    "records": await self._store.digests(local),
                }
        return _answer({"collections": found, "catalogue": self._tombs.collections()})

    async def _conflicts(self, _: web.Request) -> web.Response:
        """{collection: {document: versions kept}}, of documents with more than one."""
        found: dict[str, dict[str, int]] = {}
        for local in list((await self._store.refresh()).values()):
            for id, state in (await self._store.digests(local)).items():
                beside = self._strategy.conflicts(self._strategy.from_json(orjson.loads(state), None))
                if beside:
                    found.setdefault(local.name, {})[id] = beside + 1
        return _answer(found)

    async def _fetch(self, request: web.Request) -> web.Response:
        """{collection, ids} -> {id: {state, shown}}"""
        asked = orjson.loads(await request.read())
        local = await self._collection(asked["collection"])
        states = await self._store.load(local, asked["ids"])
        return _answer(
            {
                id: {"state": self._strategy.to_json(state), "shown": self._strategy.shown(state)}
                for id, state in states.items()
            }
        )

    async def _merge(self, request: web.Request) -> web.Response:
        """{collection, states: as fetched} -> {changed}"""
        brought = orjson.loads(await request.read())
        local = await self._collection(brought["collection"])
        states = self._states(brought["states"])
        async with self._lock:
            before = await self._store.load(local, list(states))
            after: dict[str, Any] = {}
            for id, state in states.items():
                self._clock.saw(self._strategy.newest(state))
                merged = self._strategy.merge(before[id], state) if id in before else state
                if id not in before or self._strategy.to_json(merged) != self._strategy.to_json(before[id]):
                    after[id] = merged
            await self._store.put(local, before, after)
            self._merged += len(after)
        return _answer({"changed": len(after)})

    async def _replace(self, request: web.Request) -> web.Response:
        """{collection, states, absent}: take these without asking what is here; drop those."""
        brought = orjson.loads(await request.read())
        local = await self._collection(brought["collection"])
        states = self._states(brought["states"])
        async with self._lock:
            before = await self._store.load(local, list(states))
            await self._store.put(local, before, states)
            await self._store.erase(local, brought["absent"])
            self._merged += len(states) + len(brought["absent"])
        return _answer({"changed": len(states) + len(brought["absent"])})

    async def _sync_collections(self, request: web.Request) -> web.Response:
        """{create: [{name, configuration, metadata, created}], drop: [{name, dropped}]}"""
        asked = orjson.loads(await request.read())
        async with self._lock:
            for one in asked["create"]:
                body = {key: one[key] for key in ("name", "configuration", "metadata")}
                await self._store.call("POST", f"{DATABASE}/collections", {**body, "get_or_create": True})
                if one["created"] is not None:
                    self._tombs.note(one["name"], "created", one["created"])
            for one in asked["drop"]:
                with contextlib.suppress(Failed):  # gone already
                    await self._store.call("DELETE", f"{DATABASE}/collections/{one['name']}")
                self._tombs.note(one["name"], "dropped", one["dropped"])
                self._store.forget(one["name"])
        return _answer({})

    async def _collection(self, name: str) -> Local:
        local = await self._store.by_name(name)
        if local is None:
            raise Failed(404, orjson.dumps({"error": "NotFoundError", "message": f"no collection {name}"}))
        return local

    def _states(self, raw: dict[str, Any]) -> dict[str, Any]:
        return {id: self._strategy.from_json(one["state"], one["shown"]) for id, one in raw.items()}


def _incarnation(path: Path) -> str:
    """Lives and dies with the member's data: after a lost directory, counts start again as someone else's."""
    if not path.exists():
        path.write_text(secrets.token_hex(3))
    return path.read_text()


def _answer(body: Any) -> web.Response:
    return web.Response(body=orjson.dumps(body), headers=_JSON)


def _collections(response: web.Response) -> web.Response:
    """With the ids that clients know."""
    if response.status != 200:
        return response
    raw = _parsed(response)
    if isinstance(raw, list):
        return _answer([_known_to_clients(one) for one in cast("list[dict[str, Any]]", raw)])
    return _answer(_known_to_clients(raw))


def _known_to_clients(raw: dict[str, Any]) -> dict[str, Any]:
    schema: dict[str, Any] = raw.get("schema") or {}
    schema.get("keys", {}).pop(STATE, None)
    return {**raw, "id": logical_id(raw["name"])}


def _documents(response: web.Response) -> web.Response:
    """Without the strategy's metadata."""
    if response.status != 200:
        return response
    raw = _parsed(response)
    if raw.get("metadatas") is not None:
        # A list of documents, or for a query a list of those for each vector asked for.
        raw["metadatas"] = [_visible(one) for one in raw["metadatas"]]
    return _answer(raw)


def _visible(one: Any) -> Any:
    if isinstance(one, list):
        return [_visible(each) for each in cast("list[Any]", one)]
    return without_state(one)


def _parsed(response: web.Response) -> Any:
    assert isinstance(response.body, bytes)
    return orjson.loads(response.body)


async def _serve(options: Options) -> None:
    timeout = aiohttp.ClientTimeout(total=options.timeout_s)
    async with aiohttp.ClientSession(timeout=timeout, connector=aiohttp.TCPConnector(limit=0)) as session:
        runner = web.AppRunner(Gateway(options, session).app(), access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", options.port).start()
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(_serve(Options(**json.loads(sys.argv[1]))))
