"""Closed-loop HTTP load on one Chroma API: so many clients, each with one request under way, for so long."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import aiohttp
import numpy as np
import orjson

from evaluation.costs.closed_loop import drive

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from evaluation.costs.closed_loop import Measured

COLLECTIONS = "/api/v2/tenants/default_tenant/databases/default_database/collections"
JSON = {"content-type": "application/json"}


def vectors(count: int, dimension: int, seed: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Reproducible unit-normal vectors, float32, shape (count, dimension)."""
    return np.random.default_rng(seed).normal(size=(count, dimension)).astype(np.float32)


async def create_collection(session: aiohttp.ClientSession, url: str, name: str) -> str:
    """Create a collection; its id."""
    body = orjson.dumps({"name": name})
    async with session.post(f"{url}{COLLECTIONS}", data=body, headers=JSON) as response:
        answer = orjson.loads(await response.read())
        if response.status != 200:
            raise RuntimeError(f"{url} refused to create a collection: {answer}")
        return str(answer["id"])


async def fill(session: aiohttp.ClientSession, url: str, collection_id: str, rows: Any) -> None:
    """Add records `d0`, `d1`, ... with a document and metadata each, 500 a request."""
    for start in range(0, len(rows), 500):
        part = rows[start : start + 500]
        body = {
            "ids": [f"d{start + number}" for number in range(len(part))],
            "embeddings": part,
            "documents": [f"document number {start + number}" for number in range(len(part))],
            "metadatas": [{"number": start + number} for number in range(len(part))],
        }
        data = orjson.dumps(body, option=orjson.OPT_SERIALIZE_NUMPY)
        async with session.post(
            f"{url}{COLLECTIONS}/{collection_id}/add", data=data, headers=JSON
        ) as response:
            if response.status != 201:
                raise RuntimeError(f"{url} refused to add: {await response.text()}")


async def closed_loop(
    session: aiohttp.ClientSession,
    clients: int,
    seconds: float,
    request: Callable[[int, int], tuple[str, bytes]],
) -> Measured:
    """`request(client, turn)` gives URL and body of a POST; making them is not part of its latency."""

    def call(client: int, turn: int) -> Coroutine[Any, Any, str]:
        return _post(session, *request(client, turn))

    return await drive(clients, seconds, call)


async def _post(session: aiohttp.ClientSession, url: str, body: bytes) -> str:
    """What went wrong; "" for any 2xx."""
    try:
        async with session.post(url, data=body, headers=JSON) as response:
            answer = await response.read()
            return "" if response.status < 300 else f"{response.status} {answer[:120]!r}"
    except (aiohttp.ClientError, TimeoutError) as error:
        return type(error).__name__
