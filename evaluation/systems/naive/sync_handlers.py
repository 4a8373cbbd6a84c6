"""What the gateway does for the agent: says what its member holds, and takes what others hold."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import orjson
from aiohttp import web

from evaluation.systems.naive.hiding import answer
from evaluation.systems.naive.store import DATABASE, Failed, Local

if TYPE_CHECKING:
    from collections.abc import Iterable

    from evaluation.systems.naive.holding import MemberState


class SyncHandlers:
    def __init__(self, state: MemberState) -> None:
        self._state = state
        self._strategy, self._store, self._tombs = state.strategy, state.store, state.tombs
        self._merged = 0

    def routes(self) -> Iterable[web.RouteDef]:
        return (
            web.get("/sync/status", self._status),
            web.get("/sync/digest", self._digest),
            web.get("/sync/conflicts", self._conflicts),
            web.post("/sync/fetch", self._fetch),
            web.post("/sync/merge", self._merge),
            web.post("/sync/replace", self._replace),
            web.post("/sync/collections", self._collections),
        )

    async def _status(self, _: web.Request) -> web.Response:
        await self._store.call("GET", "/api/v2/heartbeat")
        return answer({"member": self._state.member, "merged": self._merged})

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
        return answer({"collections": found, "catalogue": self._tombs.collections()})

    async def _conflicts(self, _: web.Request) -> web.Response:
        """{collection: {document: versions kept}}, of documents with more than one."""
        found: dict[str, dict[str, int]] = {}
        for local in list((await self._store.refresh()).values()):
            for id, state in (await self._store.digests(local)).items():
                beside = self._strategy.conflicts(self._strategy.from_json(orjson.loads(state), None))
                if beside:
                    found.setdefault(local.name, {})[id] = beside + 1
        return answer(found)

    async def _fetch(self, request: web.Request) -> web.Response:
        """{collection, ids} -> {id: {state, shown}}"""
        asked = orjson.loads(await request.read())
        local = await self._collection(asked["collection"])
        states = await self._store.load(local, asked["ids"])
        return answer(
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
        async with self._state.lock:
            before = await self._store.load(local, list(states))
            after: dict[str, Any] = {}
            for id, state in states.items():
                self._state.clock.saw(self._strategy.newest(state))
                merged = self._strategy.merge(before[id], state) if id in before else state
                if id not in before or self._strategy.to_json(merged) != self._strategy.to_json(before[id]):
                    after[id] = merged
            await self._store.put(local, before, after)
            self._merged += len(after)
        return answer({"changed": len(after)})

    async def _replace(self, request: web.Request) -> web.Response:
        """{collection, states, absent}: take these without asking what is here; drop those."""
        brought = orjson.loads(await request.read())
        local = await self._collection(brought["collection"])
        states = self._states(brought["states"])
        async with self._state.lock:
            before = await self._store.load(local, list(states))
            await self._store.put(local, before, states)
            await self._store.erase(local, brought["absent"])
            self._merged += len(states) + len(brought["absent"])
        return answer({"changed": len(states) + len(brought["absent"])})

    async def _collections(self, request: web.Request) -> web.Response:
        """{create: [{name, configuration, metadata, created}], drop: [{name, dropped}]}"""
        asked = orjson.loads(await request.read())
        async with self._state.lock:
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
        return answer({})

    async def _collection(self, name: str) -> Local:
        local = await self._store.by_name(name)
        if local is None:
            raise Failed(404, orjson.dumps({"error": "NotFoundError", "message": f"no collection {name}"}))
        return local

    def _states(self, raw: dict[str, Any]) -> dict[str, Any]:
        return {id: self._strategy.from_json(one["state"], one["shown"]) for id, one in raw.items()}
