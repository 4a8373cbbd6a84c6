"""One worker of `shared-dir`: opens the common directory itself and serves Chroma's HTTP API for it.

`python -m evaluation.systems.shared_dir_worker OPTIONS`, OPTIONS as JSON. This is what a web application with
several worker processes does when each makes a `chromadb.PersistentClient` of the same path: every process
has its own connection pool, its own vector index in memory, and knows nothing of the others.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import chromadb
import orjson
from aiohttp import web
from chromadb.errors import ChromaError

from evaluation.systems.naive.records import vector

if TYPE_CHECKING:
    from collections.abc import Callable

DATABASE: Final = "/api/v2/tenants/default_tenant/databases/default_database"

#: What each error is counted as: the first of these texts that its message contains.
KINDS: Final = (
    ("database is locked", "locked"),
    ("readonly database", "readonly"),
    ("disk I/O error", "disk-io"),
    ("malformed", "malformed"),
    ("unable to open", "cannot-open"),
    ("no such table", "no-table"),
    ("panic", "panic"),
    ("hnsw", "hnsw"),
    ("Error loading", "hnsw"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """One worker's settings, given as JSON."""

    worker: str
    port: int
    directory: str
    threads: int = 8


class Refused(Exception):
    """An answer that Chroma's server gives without asking the store."""

    def __init__(self, status: int, error: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.error = error


def kind_of(message: str) -> str:
    lower = message.lower()
    return next((kind for text, kind in KINDS if text.lower() in lower), "other")


class Worker:
    """The service. Calls to Chroma run in threads, as in any web framework with synchronous handlers."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self._client = chromadb.PersistentClient(path=options.directory)
        self._pool = ThreadPoolExecutor(options.threads, thread_name_prefix="handler")
        self._collections: dict[str, chromadb.Collection] = {}
        self._errors: Counter[str] = Counter()
        self._samples: dict[str, str] = {}

    def app(self) -> web.Application:
        app = web.Application(client_max_size=1 << 30)
        router = app.router
        router.add_get("/api/v2/heartbeat", self._served(lambda _, __: self._heartbeat()))
        router.add_get("/worker/counters", self._counters)
        router.add_get(f"{DATABASE}/collections", self._served(lambda _, __: self._list()))
        router.add_post(f"{DATABASE}/collections", self._served(lambda _, body: self._create(body)))
        router.add_get(f"{DATABASE}/collections/{{name}}", self._served(self._look_up))
        router.add_delete(f"{DATABASE}/collections/{{name}}", self._served(self._drop))
        router.add_put(f"{DATABASE}/collections/{{id}}", self._served(self._modify))
        router.add_get(f"{DATABASE}/collections/{{id}}/count", self._served(self._count))
        for verb, status, call in (
            ("add", 201, self._add),
            ("upsert", 200, self._upsert),
            ("update", 200, self._update),
            ("delete", 200, self._delete),
            ("get", 200, self._get),
            ("query", 200, self._query),
        ):
            router.add_post(f"{DATABASE}/collections/{{id}}/{verb}", self._served(call, status))
        return app

    def _served(self, call: Callable[[dict[str, str], Any], Any], status: int = 200) -> Any:
        async def handle(request: web.Request) -> web.Response:
            raw = await request.read()
            body = orjson.loads(raw) if raw else None
            path = dict(request.match_info)
            code, answer = await asyncio.get_running_loop().run_in_executor(
                self._pool, self._guarded, call, path, body, status
            )
            return web.Response(
                status=code,
                body=orjson.dumps(answer),
                content_type="application/json",
                headers={"X-Chroma-Node": self._options.worker},
            )

        return handle

    def _guarded(
        self, call: Callable[[dict[str, str], Any], Any], path: dict[str, str], body: Any, status: int
    ) -> tuple[int, Any]:
        """As Chroma's own server renders its errors; whatever is wrong with the store is a 500."""
        try:
            return status, call(path, body)
        except Refused as refused:
            return refused.status, {"error": refused.error, "message": str(refused)}
        except BaseException as error:  # a panic of the Rust core is not an Exception
            text = str(error)
            code = error.code() if isinstance(error, ChromaError) else 500
            name = type(error).__name__
            if isinstance(error, ValueError | TypeError):
                code = 400
            if "already exists" in text:
                code = 409
            elif "Collection [" in text and "does not exist" in text:
                code, name = 404, "NotFoundError"
            if code >= 500:
                kind = "panic" if name == "PanicException" else kind_of(text)
                self._errors[kind] += 1
                self._samples.setdefault(kind, f"{name}: {text}"[:300])
            return code, {"error": name, "message": text[:500]}

    async def _counters(self, _: web.Request) -> web.Response:
        return web.json_response({"errors": dict(self._errors), "samples": self._samples})

    # ------------------------------------------------------------------ Chroma

    def _heartbeat(self) -> Any:
        return {"nanosecond heartbeat": self._client.heartbeat()}

    def _list(self) -> Any:
        return [_raw(one) for one in self._client.list_collections()]

    def _create(self, body: Any) -> Any:
        client = self._client
        make = client.get_or_create_collection if body.get("get_or_create") else client.create_collection
        arguments: dict[str, Any] = {"metadata": body.get("metadata"), "embedding_function": None}
        if body.get("configuration") is not None:
            arguments["configuration"] = {
                key: value for key, value in body["configuration"].items() if value is not None
            }
        collection = make(body["name"], **arguments)
        self._collections[str(collection.id)] = collection
        return _raw(collection)

    def _look_up(self, path: dict[str, str], _: Any) -> Any:
        return _raw(self._client.get_collection(path["name"], embedding_function=None))

    def _drop(self, path: dict[str, str], _: Any) -> Any:
        self._client.delete_collection(path["name"])
        return {}

    def _modify(self, path: dict[str, str], body: Any) -> Any:
        changes = {name.removeprefix("new_"): value for name, value in body.items() if value is not None}
        self._collection(path).modify(**changes)
        return {}

    def _count(self, path: dict[str, str], _: Any) -> Any:
        return self._collection(path).count()

    def _add(self, path: dict[str, str], body: Any) -> Any:
        self._collection(path).add(**_columns(body))
        return {}

    def _upsert(self, path: dict[str, str], body: Any) -> Any:
        self._collection(path).upsert(**_columns(body))
        return {}

    def _update(self, path: dict[str, str], body: Any) -> Any:
        self._collection(path).update(**_columns(body))
        return {}

    def _delete(self, path: dict[str, str], body: Any) -> Any:
        asked = _given(body, "ids", "where", "where_document", "limit")
        return {"deleted": self._collection(path).delete(**asked)["deleted"]}

    def _get(self, path: dict[str, str], body: Any) -> Any:
        asked = _given(body, "ids", "where", "where_document", "limit", "offset", "include")
        found: Any = self._collection(path).get(**asked)
        return _plain(found)

    def _query(self, path: dict[str, str], body: Any) -> Any:
        asked = _given(body, "query_embeddings", "n_results", "where", "where_document", "include", "ids")
        found: Any = self._collection(path).query(**asked)
        return _plain(found)

    def _collection(self, path: dict[str, str]) -> chromadb.Collection:
        found = self._collections.get(path["id"])
        if found is None:
            # Another worker may have made it.
            for one in self._client.list_collections():
                self._collections.setdefault(str(one.id), one)
            found = self._collections.get(path["id"])
        if found is None:
            raise Refused(404, "NotFoundError", f"Collection [{path['id']}] does not exist.")
        return found


def _raw(collection: chromadb.Collection) -> dict[str, Any]:
    return {
        "id": str(collection.id),
        "name": collection.name,
        "metadata": collection.metadata,
        "tenant": "default_tenant",
        "database": "default_database",
    }


def _columns(body: Any) -> dict[str, Any]:
    columns = _given(body, "ids", "embeddings", "metadatas", "documents", "uris")
    if "embeddings" in columns:
        columns["embeddings"] = [None if one is None else vector(one) for one in columns["embeddings"]]
    return columns


def _given(body: Any, *names: str) -> dict[str, Any]:
    return {name: body[name] for name in names if body and body.get(name) is not None}


def _plain(found: dict[str, Any]) -> dict[str, Any]:
    """The library's answer as the server's: numpy arrays are lists, `included` is `include`."""
    answer = {
        "distances" if name == "distances" else name: _listed(value)
        for name, value in found.items()
        if name not in ("included", "data")
    }
    return {**answer, "include": list(found.get("included") or [])}


def _listed(value: Any) -> Any:
    if hasattr(value, "tolist"):
        return value.tolist()
    return [_listed(one) for one in value] if isinstance(value, list) else value  # pyright: ignore[reportUnknownVariableType]


async def _serve(options: Options) -> None:
    runner = web.AppRunner(Worker(options).app(), access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", options.port).start()
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(_serve(Options(**json.loads(sys.argv[1]))))
