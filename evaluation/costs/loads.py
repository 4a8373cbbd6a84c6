"""The loads that each system gets, and the requests that they are made of. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import orjson

from evaluation.costs import http_load as load

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from evaluation.costs.texts import Texts

BATCH = 100
NEIGHBOURS = 10
#: What each load is, for people.
TITLES: dict[str, str] = {
    "write-1": "one client, one new document a request",
    "write-16": "16 clients, one new document a request",
    "batch-1": f"one client, {BATCH} new documents a request",
    "get-8": "8 clients, one document by id",
    "query-1": f"one client, {NEIGHBOURS} nearest neighbours",
    "query-8": f"8 clients, {NEIGHBOURS} nearest neighbours",
}


@dataclass(frozen=True, slots=True)
class Mode:
    """What a client may ask of the system beside the request itself: a read level, an ack mode."""

    name: str
    headers: Mapping[str, str] = field(default_factory=dict[str, str])


@dataclass(frozen=True, slots=True)
class Load:
    """So many closed-loop clients with requests of one kind in one mode."""

    name: str
    clients: int
    documents_per_request: int
    mode: Mode

    @property
    def writes(self) -> bool:
        return self.name.startswith(("write", "batch"))


def loads(levels: tuple[str, ...]) -> list[Load]:
    """All loads in all modes of a system with these read levels, reads first: they change nothing."""
    reads, writes = [Mode("default")], [Mode("default")]
    if levels != ("default",):
        reads = [Mode(level, {"X-Chroma-Consistency": level}) for level in levels]
        writes = [Mode(ack, {"X-Chroma-Ack": ack}) for ack in ("applied", "committed")]
    found = [Load("get-8", 8, 1, mode) for mode in reads]
    found += [Load("query-1", 1, 1, mode) for mode in reads]
    found += [Load("query-8", 8, 1, mode) for mode in reads]
    found += [Load("write-1", 1, 1, mode) for mode in writes]
    found += [Load("write-16", 16, 1, mode) for mode in writes]
    found.append(Load("batch-1", 1, BATCH, writes[0]))
    return found


def requests(
    one: Load, texts: Texts, collections: str, filled: str, fresh: str
) -> Callable[[int, int], tuple[str, bytes]]:
    """URL and body of each client's each turn. `collections`: URL of the API's collections."""

    def write(client: int, turn: int) -> tuple[str, bytes]:
        count = one.documents_per_request
        first = client * 977 + turn * count
        numbers = [(first + number) % len(texts.documents) for number in range(count)]
        body: dict[str, Any] = {
            "ids": [f"c{client}-{turn}-{number}" for number in range(count)],
            "embeddings": texts.rows[numbers],
            "documents": [texts.documents[number] for number in numbers],
            "metadatas": [{"turn": turn} for _ in numbers],
        }
        return f"{collections}/{fresh}/add", _json(body)

    def get(client: int, turn: int) -> tuple[str, bytes]:
        number = (client * 613 + turn * 7) % len(texts.documents)
        return f"{collections}/{filled}/get", _json({"ids": [f"d{number}"]})

    def query(client: int, turn: int) -> tuple[str, bytes]:
        number = (client * 31 + turn) % len(texts.queries)
        return f"{collections}/{filled}/query", query_body(texts, number)

    return {"write": write, "batch": write, "get": get, "query": query}[one.name.split("-")[0]]


def query_body(texts: Texts, number: int) -> bytes:
    """The 10 nearest neighbours of one query, with what Chroma's clients ask for by default."""
    return _json({"query_embeddings": texts.queries[number : number + 1], "n_results": NEIGHBOURS})


def fill_bodies(texts: Texts, per_request: int = 500) -> list[bytes]:
    """Add requests for all documents, `d0`, `d1`, ..."""
    bodies: list[bytes] = []
    for start in range(0, len(texts.documents), per_request):
        part = range(start, min(start + per_request, len(texts.documents)))
        body = {
            "ids": [f"d{number}" for number in part],
            "embeddings": texts.rows[start : part.stop],
            "documents": texts.documents[start : part.stop],
            "metadatas": [{"number": number} for number in part],
        }
        bodies.append(_json(body))
    return bodies


def _json(body: dict[str, Any]) -> bytes:
    return orjson.dumps(body, option=orjson.OPT_SERIALIZE_NUMPY)


#: What the client side says of itself in the result.
CLIENT = f"{load.__name__}.closed_loop: aiohttp on uvloop, one process, keep-alive connections"
