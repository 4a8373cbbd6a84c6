"""The sync agent: every few seconds it asks all members what they hold and copies what differs.

`python -m evaluation.systems.naive.agent OPTIONS`, OPTIONS as JSON. A member that does not answer is left out
of the round. On its own port: GET /status, POST /round (one round now), GET /queue, POST /resolve (the
operator's decision on a conflict: {collection, id, winner}).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiohttp
import orjson
from aiohttp import web

from evaluation.systems.naive import plan
from evaluation.systems.naive.manual import resolved
from evaluation.systems.naive.strategies import strategy

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

#: Documents in one request.
_PAGE = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """The agent's settings, given as JSON."""

    port: int
    members: dict[str, str]
    """Name -> base URL of its gateway, through the link `sync.NAME`."""
    strategy: str
    queue_file: str
    """Where conflicts wait for the operator."""
    tombstones: bool = False
    scope: str = "record"
    """`record`: merge each document. `store`: make all members like the one with the latest write."""
    sync_s: float = 5.0
    timeout_s: float = 3.0
    """For a member to begin an answer, and between two pieces of it."""


@dataclass(slots=True, kw_only=True)
class Round:
    """What one round did."""

    number: int
    reached: list[str] = field(default_factory=list[str])
    failed: dict[str, str] = field(default_factory=dict[str, str])
    """Member -> why it was left out, or not brought all."""
    copied: int = 0
    """Documents brought to members, collections made and dropped."""
    waiting: int = 0
    conflicts: int = 0
    took_s: float = 0.0


class Agent:
    """Rounds run one at a time."""

    def __init__(self, options: Options, session: aiohttp.ClientSession) -> None:
        self._options = options
        self._session = session
        self._strategy = strategy(options.strategy, tombstones=options.tombstones)
        if options.scope == "store" and options.strategy != "lww":
            raise ValueError("only last write wins copies whole stores")
        self._lock = asyncio.Lock()
        self._last = Round(number=0)
        self._copied = 0
        self._queue: dict[str, dict[str, dict[str, Any]]] = {}
        """Collection -> document -> member -> state."""

    def app(self) -> web.Application:
        app = web.Application()
        app.router.add_get("/status", self._status)
        app.router.add_post("/round", self._now)
        app.router.add_get("/queue", self._queued)
        app.router.add_post("/resolve", self._resolve)
        return app

    async def run(self) -> None:
        while True:
            await self.round()
            await asyncio.sleep(self._options.sync_s)

    async def round(self) -> Round:
        async with self._lock:
            begun = time.monotonic()
            done = Round(number=self._last.number + 1)
            try:
                await self._round(done)
            except Exception as error:  # the next round comes; a dead agent would hide behind a live one
                done.failed["agent"] = repr(error)
                print(f"round {done.number}: {error!r}", flush=True)
            done.waiting = sum(len(documents) for documents in self._queue.values())
            done.took_s = time.monotonic() - begun
            self._copied += done.copied
            self._last = done
            return done

    # ------------------------------------------------------------------ one round

    async def _round(self, done: Round) -> None:
        digests = await self._ask_all(done, self._options.members, "GET", "/sync/digest")
        done.reached = sorted(digests)
        if len(digests) < 2:
            return
        changes = {member: todo for member, todo in plan.collections(digests).items() if todo}
        for todo in changes.values():
            done.copied += len(todo.create) + len(todo.drop)
        await self._ask_each(
            done, "/sync/collections", {member: asdict(todo) for member, todo in changes.items()}
        )
        dropped = {one["name"] for todo in changes.values() for one in todo.drop}
        names = {name for digest in digests.values() for name in digest["collections"]} - dropped
        for gone in self._queue.keys() - names:
            del self._queue[gone]
        for name in sorted(names):
            holding: dict[str, dict[str, str]] = {
                member: digest["collections"][name]["records"] if name in digest["collections"] else {}
                for member, digest in digests.items()
            }
            await self._collection(done, name, holding)
        self._save_queue()

    async def _collection(self, done: Round, name: str, holding: Mapping[str, Mapping[str, str]]) -> None:
        ids = plan.differing(holding)
        if self._options.scope == "store":
            await self._copy_store(done, name, holding, ids)
            return
        still: dict[str, dict[str, Any]] = {}
        for page in _pages(ids):
            held = await self._fetch(done, name, holding, page)
            copies = plan.copies(self._strategy, held)
            done.copied += copies.count
            done.conflicts += copies.conflicts
            await self._bring(done, "/sync/merge", name, copies.to)
            still |= {id: dict(states) for id, states in copies.waiting.items()}
        if len(holding) < len(self._options.members):
            # Who was not asked may hold the other side of a conflict.
            still = {**self._queue.get(name, {}), **still}
        self._queue[name] = still

    async def _copy_store(
        self, done: Round, name: str, holding: Mapping[str, Mapping[str, str]], ids: Sequence[str]
    ) -> None:
        if not ids:
            return
        everything = sorted({id for digest in holding.values() for id in digest})
        held: dict[str, dict[str, Any]] = {member: {} for member in holding}
        for page in _pages(everything):
            for member, states in (await self._fetch(done, name, holding, page)).items():
                held[member] |= states
        source = plan.most_recent(self._strategy, held)
        if source is None:
            return
        bodies: dict[str, Any] = {}
        for member in holding:
            differ = [id for id in ids if holding[member].get(id) != holding[source].get(id)]
            if member == source or not differ:
                continue
            done.copied += len(differ)
            bodies[member] = {
                "collection": name,
                "states": {id: self._raw(held[source][id]) for id in differ if id in held[source]},
                "absent": [id for id in differ if id not in held[source]],
            }
        await self._ask_each(done, "/sync/replace", bodies)

    async def _fetch(
        self, done: Round, name: str, holding: Mapping[str, Mapping[str, str]], ids: Sequence[str]
    ) -> dict[str, dict[str, Any]]:
        """Member -> document -> state; members that do not answer are left out."""
        bodies = {
            member: {"collection": name, "ids": [id for id in ids if id in held]}
            for member, held in holding.items()
        }
        found = await self._ask_each(
            done, "/sync/fetch", {member: body for member, body in bodies.items() if body["ids"]}
        )
        held: dict[str, dict[str, Any]] = {}
        for member, body in bodies.items():
            if not body["ids"]:
                held[member] = {}
            elif member in found:
                held[member] = {
                    id: self._strategy.from_json(one["state"], one["shown"])
                    for id, one in found[member].items()
                }
        return held

    async def _bring(self, done: Round, path: str, name: str, to: Mapping[str, Mapping[str, Any]]) -> None:
        bodies = {
            member: {
                "collection": name,
                "states": {id: self._raw(state) for id, state in states.items()},
            }
            for member, states in to.items()
        }
        await self._ask_each(done, path, bodies)

    def _raw(self, state: Any) -> dict[str, Any]:
        return {"state": self._strategy.to_json(state), "shown": self._strategy.shown(state)}

    # ------------------------------------------------------------------ HTTP

    async def _ask_all(
        self,
        done: Round,
        members: Iterable[str],
        method: str,
        path: str,
        bodies: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        """The answers by member; who failed is noted in the round, and left out."""

        async def ask(member: str) -> tuple[str, Any] | None:
            data = None if bodies is None else orjson.dumps(bodies[member])
            try:
                async with self._session.request(
                    method, self._options.members[member] + path, data=data
                ) as response:
                    content = await response.read()
                    if response.status == 200:
                        return member, orjson.loads(content)
                    done.failed[member] = f"{path}: {response.status} {content[:200]!r}"
            except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
                done.failed[member] = f"{path}: {error!r}"
            return None

        answers = await asyncio.gather(*(ask(member) for member in members))
        return dict(answer for answer in answers if answer is not None)

    async def _ask_each(self, done: Round, path: str, bodies: Mapping[str, Any]) -> dict[str, Any]:
        return await self._ask_all(done, bodies, "POST", path, bodies)

    async def _status(self, _: web.Request) -> web.Response:
        return web.json_response({**asdict(self._last), "copied_in_all": self._copied})

    async def _now(self, _: web.Request) -> web.Response:
        return web.json_response(asdict(await self.round()))

    async def _queued(self, _: web.Request) -> web.Response:
        return web.Response(body=self._queue_json(), content_type="application/json")

    async def _resolve(self, request: web.Request) -> web.Response:
        asked = orjson.loads(await request.read())
        name, id = asked["collection"], asked["id"]
        async with self._lock:
            states = self._queue.get(name, {}).get(id)
            if states is None or asked["winner"] not in states:
                return web.json_response({"error": "no such conflict is waiting"}, status=404)
            decided = resolved(states, asked["winner"])
            done = Round(number=self._last.number)
            await self._bring(
                done, "/sync/merge", name, {member: {id: decided} for member in self._options.members}
            )
            if not done.failed:
                del self._queue[name][id]
                self._save_queue()
        return web.json_response({"failed": done.failed}, status=503 if done.failed else 200)

    def _queue_json(self) -> bytes:
        return orjson.dumps(
            {
                name: {
                    id: {member: self._raw(state) for member, state in states.items()}
                    for id, states in documents.items()
                }
                for name, documents in self._queue.items()
                if documents
            },
            option=orjson.OPT_INDENT_2,
        )

    def _save_queue(self) -> None:
        path = Path(self._options.queue_file)
        temporary = path.with_suffix(".new")
        temporary.write_bytes(self._queue_json())
        temporary.replace(path)


def _pages(ids: Sequence[str]) -> Iterable[Sequence[str]]:
    return (ids[start : start + _PAGE] for start in range(0, len(ids), _PAGE))


async def _serve(options: Options) -> None:
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=options.timeout_s, sock_read=options.timeout_s)
    async with aiohttp.ClientSession(
        timeout=timeout, headers={"Content-Type": "application/json"}, cookie_jar=aiohttp.DummyCookieJar()
    ) as session:
        agent = Agent(options, session)
        runner = web.AppRunner(agent.app(), access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", options.port).start()
        await agent.run()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_serve(Options(**json.loads(sys.argv[1]))))
