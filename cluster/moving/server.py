"""A Chroma server, or a cluster, as a move sees it: listings, records in pages, and the few writes it makes.

Every request can be sent again: reads anyway, `add` because ids that exist are left alone, the rest
because what it is to bring about is looked for first. So what fails for a while is tried again for a while.
"""

from __future__ import annotations

import asyncio
import struct
import time
from base64 import b64encode
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, NoReturn, cast
from urllib.parse import quote

import aiohttp
import orjson
from yarl import URL

from cluster.errors import ClusterError, Refusal
from cluster.moving.exact import literal
from cluster.moving.plan import Collection, Listing, NothingDone, Place
from cluster.moving.records import Record

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator, Mapping, Sequence

_API: Final = "/api/v2"
_LISTED_AT_ONCE: Final = 100
#: Records of a page: begun small, for one may have megabytes, then as many as make about this many bytes.
_FIRST_PAGE: Final = 8
_LARGEST_PAGE: Final = 5000
_PAGE_BYTES: Final = 4 * 1024 * 1024
_CONNECT_S: Final = 5.0
_ANSWER_S: Final = 660.0
_FIRST_PAUSE_S: Final = 0.1
_LONGEST_PAUSE_S: Final = 3.0
#: Answers of a cluster, a proxy or a server that is busy: it may be well again.
_LATER: Final = frozenset({408, 425, 429, 502, 503, 504})
#: Of a target, answers that say nothing about what was sent: it is broken, full, or does not let us in any
#: more.
_BROKEN: Final = frozenset({401, 403, 500, 507})
#: A cluster's 500 for what its engines fail on, which is about what was sent.
_ABOUT_THE_REQUEST: Final = ("ContainedWriteError", "EngineDiedError", "QuarantinedError")


class OutOfReach(ClusterError):
    """A server gave no answer, or is broken; the move can go on later."""


class Refused(Refusal):
    """A server's no, in its own words; `by` is the server's name."""

    def __init__(self, status: int, message: str, by: str) -> None:
        super().__init__(status, "RefusedError", f"{by} refuses it: {message.rstrip('.')}.")


class Unmovable(ClusterError):
    """One collection cannot be moved, and why."""


@dataclass(frozen=True, slots=True)
class Access:
    """How a server is reached: what every request carries, and whom it trusts."""

    headers: Mapping[str, str]
    tls: ssl.SSLContext | None = None


class Server:
    """`url` without a path; `name` is how messages call it ("the source", "the target")."""

    def __init__(
        self, url: str, name: Literal["the source", "the target"], access: Access, *, patience_s: float
    ) -> None:
        self.url = url.rstrip("/")
        self.name = name
        self._patience_s = patience_s
        self._packs_vectors = False
        self._started = False
        self.most = 1000
        """Records in one request, at most."""
        headers = {"X-Chroma-Consistency": "linearizable", **access.headers}
        timeout = aiohttp.ClientTimeout(total=_ANSWER_S, sock_connect=_CONNECT_S)
        connector = aiohttp.TCPConnector(ssl=access.tls if access.tls is not None else True)
        self._session = aiohttp.ClientSession(headers=headers, timeout=timeout, connector=connector)

    async def close(self) -> None:
        """Close its connections."""
        await self._session.close()

    async def probe(self) -> None:
        """See that a Chroma that speaks v2 is there, and what it takes.

        Raises:
            NothingDone: not, or it is out of reach.
        """
        try:
            beat = await self._ask("GET", "/heartbeat")
            facts = await self._ask("GET", "/pre-flight-checks")
            if "nanosecond heartbeat" not in beat:
                raise ValueError
            self.most = max(1, min(_LARGEST_PAGE, int(facts["max_batch_size"])))
            self._packs_vectors = bool(facts.get("supports_base64_encoding"))
            self._started = True
        except OutOfReach as error:
            raise NothingDone(
                f"{error.message} Nothing was changed. Start it, or correct the address."
            ) from None
        except (Refusal, ValueError, TypeError, KeyError, AttributeError) as error:
            raise NothingDone(self._stranger(error)) from None

    def _stranger(self, error: Exception) -> str:
        status = error.status if isinstance(error, Refusal) else 200
        if status in (401, 403):
            return (
                f"{self.name.capitalize()} at {self.url} does not let us in: {error}. Nothing was changed. "
                "Give a token that it accepts."
            )
        return (
            f"{self.name.capitalize()} at {self.url} is no Chroma that speaks API v2 (answer {status}). "
            "Nothing was changed. Correct the address; of a Chroma before 0.6, stop it and move its "
            "directory."
        )

    async def has_tenant(self, tenant: str) -> bool:
        """Whether it knows it."""
        return await self._found("GET", f"/tenants/{_quoted(tenant)}") is not None

    async def databases(self, tenant: str) -> list[str]:
        """All databases of a tenant."""
        return [row["name"] for row in await self._all(f"/tenants/{_quoted(tenant)}/databases")]

    async def collections(self, tenant: str, database: str) -> list[Collection]:
        """All collections of a database."""
        found = await self._all(f"{_database(tenant, database)}/collections")
        return [_collection(tenant, database, row) for row in found]

    async def find(self, place: Place) -> Collection | None:
        """The collection of that name."""
        path = f"{_database(place.tenant, place.database)}/collections/{_quoted(place.name)}"
        row = await self._found("GET", path)
        return None if row is None else _collection(place.tenant, place.database, row)

    async def listing(self, tenants: Sequence[str]) -> Listing:
        """Everything of these tenants but records; tenants that it does not have are left out."""
        known: list[str] = []
        databases: list[tuple[str, str]] = []
        collections: list[Collection] = []
        unreadable: list[str] = []
        for tenant in tenants:
            try:
                if not await self.has_tenant(tenant):
                    continue
                known.append(tenant)
                for database in await self.databases(tenant):
                    databases.append((tenant, database))
                    collections += await self.collections(tenant, database)
            except Refusal as error:
                unreadable.append(f"The tenant {tenant!r} cannot be listed: {error.message}")
        return Listing(tuple(known), tuple(databases), tuple(collections), tuple(unreadable))

    async def count(self, collection: Collection) -> int:
        """How many records it has."""
        return int(await self._ask("GET", f"{_by_id(collection)}/count"))

    async def pages(self, collection: Collection, start: int = 0) -> AsyncIterator[list[Record]]:
        """Its records in their order, from number `start` on.

        Raises:
            Unmovable: a record has no vector.
        """
        size = _FIRST_PAGE
        fields = ["embeddings", "documents", "metadatas", "uris"]
        while True:
            body = {"limit": size, "offset": start, "include": fields}
            raw = await self._raw("POST", f"{_by_id(collection)}/get", orjson.dumps(body))
            records = _records(orjson.loads(raw))
            if not records:
                return
            yield records
            start += len(records)
            fitting = size * _PAGE_BYTES // max(1, len(raw))
            size = max(1, min(fitting, size * 8, _LARGEST_PAGE))

    async def make_tenant(self, tenant: str) -> None:
        """Make it; that it exists already is fine."""
        await self._made("/tenants", {"name": tenant})

    async def make_database(self, tenant: str, database: str) -> None:
        """Make it; that it exists already is fine."""
        await self._made(f"/tenants/{_quoted(tenant)}/databases", {"name": database})

    async def make(self, place: Place, body: Mapping[str, Any]) -> Collection:
        """A new collection of that name, which nobody had when this was asked."""
        path = f"{_database(place.tenant, place.database)}/collections"
        await self._made(path, {"name": place.name, **body})
        found = await self.find(place)
        if found is None:
            raise Unmovable(f"it was made in {self.name} and is gone")
        return found

    async def add(self, collection: Collection, records: Sequence[Record], key: str) -> None:
        """Add records; those whose ids exist are left alone."""
        body: dict[str, Any] = {
            "ids": [one.key for one in records],
            "embeddings": [self._vector(one.vector) for one in records],
        }
        columns = {
            "documents": [one.document for one in records],
            "uris": [one.uri for one in records],
            "metadatas": [_exact(one.metadata) for one in records],
        }
        body |= {name: column for name, column in columns.items() if any(it is not None for it in column)}
        await self._raw("POST", f"{_by_id(collection)}/add", orjson.dumps(body), {"Idempotency-Key": key})

    async def rename(self, collection: Collection, place: Place) -> None:
        """Give it another name in its database."""
        try:
            await self._ask("PUT", _by_id(collection), {"new_name": place.name})
        except Refusal:
            found = await self.find(place)  # a repeated request may find it done
            if found is None or found.uid != collection.uid:
                raise

    async def delete(self, place: Place) -> None:
        """Delete the collection of that name, if there is one."""
        path = f"{_database(place.tenant, place.database)}/collections/{_quoted(place.name)}"
        await self._found("DELETE", path)

    async def drop(self, place: Place) -> None:
        """Delete the collection of that name with its records first, which takes longer.

        Chroma leaves lists in metadata of a collection that is deleted behind, and later records show them.
        """
        collection = await self.find(place)
        if collection is None:
            return
        path = _by_id(collection)
        while ids := (await self._ask("POST", f"{path}/get", {"limit": self.most, "include": []}))["ids"]:
            await self._ask("POST", f"{path}/delete", {"ids": ids})
        await self.delete(place)

    def _vector(self, vector: bytes) -> Any:
        if self._packs_vectors:
            return b64encode(vector).decode()
        return list(struct.unpack(f"<{len(vector) // 4}f", vector))

    async def _made(self, path: str, body: Mapping[str, Any]) -> None:
        try:
            await self._raw("POST", path, orjson.dumps(_exact(body)))
        except Refusal as error:
            if error.status != 409:
                raise

    async def _all(self, path: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        while True:
            rows = await self._ask("GET", f"{path}?limit={_LISTED_AT_ONCE}&offset={len(found)}")
            found += rows
            if len(rows) < _LISTED_AT_ONCE:
                return found

    async def _found(self, method: str, path: str) -> Any:
        """The answer, None for 404."""
        try:
            return await self._ask(method, path)
        except Refusal as error:
            if error.status != 404:
                raise
            return None

    async def _ask(self, method: str, path: str, body: Any = None) -> Any:
        return orjson.loads(
            await self._raw(method, path, None if body is None else orjson.dumps(body)) or b"null"
        )

    async def _raw(
        self, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> bytes:
        """The body of a 2xx answer; what is wrong for a while is tried again.

        Raises:
            Refusal: it said no, and why.
            OutOfReach: it does not answer, or is broken.
        """
        pause, reason, since = _FIRST_PAUSE_S, "", time.monotonic()
        while True:
            try:
                status, answer = await self._once(method, path, body, headers or {})
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                reason = str(error) or type(error).__name__
            else:
                if status < 300:
                    return answer
                name, reason = _words(answer, status)
                if status not in _LATER:
                    self._refuse(status, name, reason)
            if time.monotonic() - since > self._patience_s:
                raise OutOfReach(f"{self.name.capitalize()} at {self.url} does not answer: {reason}.")
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE_S)

    def _refuse(self, status: int, name: str, reason: str) -> NoReturn:
        is_broken = self._started and self.name == "the target" and status in _BROKEN
        if is_broken and name not in _ABOUT_THE_REQUEST:
            raise OutOfReach(
                f"{self.name.capitalize()} at {self.url} answers {status}: {reason.rstrip('.')}."
            )
        raise Refused(status, reason, self.name)

    async def _once(
        self, method: str, path: str, body: bytes | None, headers: Mapping[str, str]
    ) -> tuple[int, bytes]:
        told = {"Content-Type": "application/json", **headers} if body is not None else dict(headers)
        async with self._session.request(
            method, self._address(path), data=body, headers=told, allow_redirects=False
        ) as response:
            return response.status, await response.read()

    def _address(self, path: str) -> URL:
        return URL(f"{self.url}{_API}{path}", encoded=True)


def _records(page: dict[str, Any]) -> list[Record]:
    ids: list[str] = page["ids"]
    nothing = [None] * len(ids)
    vectors: list[Any] = page["embeddings"] or nothing
    rows = zip(
        ids,
        vectors,
        page["documents"] or nothing,
        page["uris"] or nothing,
        page["metadatas"] or nothing,
        strict=True,
    )
    return [_record(*row) for row in rows]


def _record(record_id: str, vector: Any, document: Any, uri: Any, metadata: Any) -> Record:
    if not vector:
        raise Unmovable(f"its record {record_id!r} has no vector")
    return Record(record_id, struct.pack(f"<{len(vector)}f", *vector), document, uri, metadata)


def _collection(tenant: str, database: str, row: dict[str, Any]) -> Collection:
    place = Place(tenant, database, row["name"])
    return Collection(place, row["id"], row.get("metadata"), row.get("configuration_json"), row.get("schema"))


def _exact(value: Any) -> Any:
    """The value with every float as JSON that any server reads as that float."""
    if isinstance(value, float):
        return orjson.Fragment(literal(value))
    if isinstance(value, dict):
        return {key: _exact(item) for key, item in cast("dict[str, Any]", value).items()}
    if isinstance(value, list):
        return [_exact(item) for item in cast("list[Any]", value)]
    return value


def _words(answer: bytes, status: int) -> tuple[str, str]:
    """The name of an error and its words."""
    try:
        told = orjson.loads(answer)
        name = str(told.get("error") or "")
        return name, str(told.get("message") or name or status)
    except (ValueError, AttributeError):
        return "", answer[:200].decode(errors="replace").strip() or f"status {status}"


def _quoted(name: str) -> str:
    return quote(name, safe="")


def _database(tenant: str, database: str) -> str:
    return f"/tenants/{_quoted(tenant)}/databases/{_quoted(database)}"


def _by_id(collection: Collection) -> str:
    place = collection.place
    return f"{_database(place.tenant, place.database)}/collections/{collection.uid}"
