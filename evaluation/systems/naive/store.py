"""A member's Chroma as a store of states: one record for each document, its state in hidden metadata."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import orjson

from evaluation.systems.naive.records import METADATA, Fields, canonical, metadata_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import aiohttp

    from evaluation.systems.naive.strategy import Strategy
    from evaluation.systems.naive.tombs import Tombs

STATE = "_sync"
"""The metadata key that holds a strategy's state."""

DATABASE = "/api/v2/tenants/default_tenant/databases/default_database"

_NAMESPACE = uuid.UUID("6f1f1e0c-7a55-4c39-9a33-3ad0a5c0f6c1")

#: Chroma takes at most 5,461 records at once; a page keeps requests small enough for slow links.
PAGE = 1000


class Failed(Exception):
    """Chroma's own answer to a request that did not succeed."""

    def __init__(self, status: int, body: bytes) -> None:
        super().__init__(f"{status} {body[:300]!r}")
        self.status = status
        self.body = body


def logical_id(name: str) -> str:
    """The collection id that clients see: the same at every member, though each Chroma has its own."""
    return str(uuid.uuid5(_NAMESPACE, name))


@dataclass(slots=True)
class Local:
    """A collection as this member's Chroma has it."""

    id: str
    name: str
    raw: dict[str, Any]


class Store:
    """Reads and writes states at one Chroma. Callers hold the member's lock while they change something."""

    def __init__(
        self, session: aiohttp.ClientSession, url: str, strategy: Strategy[Any], tombs: Tombs
    ) -> None:
        self._session = session
        self._url = url
        self._strategy = strategy
        self._tombs = tombs
        self._collections: dict[str, Local] = {}

    async def call(self, method: str, path: str, body: Any = None) -> Any:
        """Raises Failed for any answer but success."""
        data = None if body is None else orjson.dumps(body)
        headers = {"Content-Type": "application/json"}
        async with self._session.request(method, self._url + path, data=data, headers=headers) as response:
            content = await response.read()
        if response.status >= 300:
            raise Failed(response.status, content)
        return orjson.loads(content) if content else None

    async def refresh(self) -> dict[str, Local]:
        """All collections by name, as Chroma lists them now."""
        listed: list[dict[str, Any]] = []
        while page := await self.call("GET", f"{DATABASE}/collections?limit={PAGE}&offset={len(listed)}"):
            listed += page
            if len(page) < PAGE:
                break
        self._collections = {raw["name"]: Local(raw["id"], raw["name"], raw) for raw in listed}
        return self._collections

    async def by_logical_id(self, id: str, *, fresh: bool = False) -> Local | None:
        """The collection that clients know as `id`; asks Chroma if it is not known, or `fresh`."""
        for attempt in range(2):
            if attempt or fresh:
                await self.refresh()
            for local in self._collections.values():
                if logical_id(local.name) == id:
                    return local
        return None

    async def by_name(self, name: str) -> Local | None:
        if name not in self._collections:
            await self.refresh()
        return self._collections.get(name)

    def forget(self, name: str) -> None:
        self._collections.pop(name, None)

    async def load(self, local: Local, ids: Sequence[str]) -> dict[str, Any]:
        """The states of those documents that this member has, or remembers as deleted."""
        states: dict[str, Any] = {}
        for start in range(0, len(ids), PAGE):
            found = await self.call(
                "POST",
                f"{DATABASE}/collections/{local.id}/get",
                {
                    "ids": list(ids[start : start + PAGE]),
                    "include": ["metadatas", "documents", "embeddings", "uris"],
                },
            )
            for position, id in enumerate(found["ids"]):
                fields = _fields(found, position)
                raw = fields.pop(METADATA + STATE, None)
                if raw is not None:
                    states[id] = self._strategy.from_json(orjson.loads(raw), fields)
        for id in ids:
            if (buried := self._tombs.document(local.name, id)) is not None:
                tomb = self._strategy.from_json(buried, None)
                # Both are there when it was written again; or killed between the two halves of a delete.
                states[id] = self._strategy.merge(states[id], tomb) if id in states else tomb
        return states

    async def digests(self, local: Local) -> dict[str, str]:
        """One short string for each document's state: equal strings, equal states."""
        found: dict[str, str] = {}
        offset = 0
        while True:
            page = await self.call(
                "POST",
                f"{DATABASE}/collections/{local.id}/get",
                {"include": ["metadatas"], "limit": PAGE, "offset": offset},
            )
            for id, metadata in zip(page["ids"], page["metadatas"], strict=True):
                found[id] = _state_in(metadata)
            offset += len(page["ids"])
            if len(page["ids"]) < PAGE:
                break
        for id, buried in self._tombs.documents(local.name).items():
            if id not in found:
                found[id] = canonical(buried).decode()
        return found

    async def put(self, local: Local, before: Mapping[str, Any], after: Mapping[str, Any]) -> None:
        """Make Chroma hold the states `after` where it held `before`. Raises Failed as Chroma says."""
        path = f"{DATABASE}/collections/{local.id}"
        gone: dict[str, Any] = {}
        written: dict[str, tuple[Fields | None, Fields, Any]] = {}
        for id, state in after.items():
            shown = self._strategy.shown(state)
            if shown is None:
                gone[id] = self._strategy.to_json(state)
            else:
                old = self._strategy.shown(before[id]) if id in before else None
                written[id] = (old, shown, state)
        if gone:
            self._tombs.bury(local.name, gone)
            await self.call("POST", f"{path}/delete", {"ids": list(gone)})
        # Chroma can take a metadata key away, but not a document or a uri: such a record is made anew.
        anew = [
            id
            for id, (old, shown, _) in written.items()
            if old is not None and any(name in old and name not in shown for name in ("document", "uri"))
        ]
        if anew:
            await self.call("POST", f"{path}/delete", {"ids": anew})
        if written:
            await self.call("POST", f"{path}/upsert", self._columns(written))

    async def erase(self, local: Local, ids: Sequence[str]) -> None:
        """Delete without a trace."""
        for start in range(0, len(ids), PAGE):
            body = {"ids": list(ids[start : start + PAGE])}
            await self.call("POST", f"{DATABASE}/collections/{local.id}/delete", body)

    def _columns(self, written: Mapping[str, tuple[Fields | None, Fields, Any]]) -> dict[str, Any]:
        metadatas: list[dict[str, Any]] = []
        for old, shown, state in written.values():
            metadata = metadata_of(shown)
            removed = metadata_of(old or {}).keys() - metadata.keys()
            metadata[STATE] = canonical(self._strategy.to_json(state)).decode()
            metadatas.append({**dict.fromkeys(removed), **metadata})
        return {
            "ids": list(written),
            "embeddings": [shown.get("embedding") for _, shown, _ in written.values()],
            "documents": [shown.get("document") for _, shown, _ in written.values()],
            "uris": [shown.get("uri") for _, shown, _ in written.values()],
            "metadatas": metadatas,
        }


def without_state(metadata: dict[str, Any] | None) -> dict[str, Any] | None:
    """As the client wrote it. Chroma answers null for no metadata."""
    if metadata is None:
        return None
    return {key: value for key, value in metadata.items() if key != STATE} or None


def _state_in(metadata: dict[str, Any] | None) -> str:
    return str((metadata or {}).get(STATE, ""))


def _fields(found: dict[str, Any], position: int) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    for name, key in (("document", "documents"), ("embedding", "embeddings"), ("uri", "uris")):
        column = cast("list[Any] | None", found.get(key))
        if column is not None and column[position] is not None:
            fields[name] = column[position]
    metadatas = cast("list[dict[str, Any] | None]", found["metadatas"])
    for key, value in (metadatas[position] or {}).items():
        fields[METADATA + key] = value
    return fields
