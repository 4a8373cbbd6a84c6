"""Closed-loop HTTP load on one Chroma API: so many clients, each with one request under way, for so long."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import aiohttp
import numpy as np
import orjson

if TYPE_CHECKING:
    from collections.abc import Callable

COLLECTIONS = "/api/v2/tenants/default_tenant/databases/default_database/collections"
JSON = {"content-type": "application/json"}


@dataclass
class Measured:
    """Requests answered 2xx, their latencies (ms), and what else came back."""

    seconds: float
    latencies_ms: list[float] = field(default_factory=list[float])
    errors: dict[str, int] = field(default_factory=dict[str, int])

    @property
    def per_second(self) -> float:
        return len(self.latencies_ms) / self.seconds

    def percentile(self, q: float) -> float:
        return float(np.percentile(self.latencies_ms, q)) if self.latencies_ms else float("nan")


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
    """`request(client, turn)` gives URL and body of a POST; each client sends its next at the answer."""
    measured = Measured(seconds)
    end = time.monotonic() + seconds

    async def one(client: int) -> None:
        turn = 0
        while time.monotonic() < end:
            url, body = request(client, turn)
            turn += 1
            start = time.monotonic()
            try:
                async with session.post(url, data=body, headers=JSON) as response:
                    answer = await response.read()
                    kind = "" if response.status < 300 else f"{response.status} {answer[:120]!r}"
            except (aiohttp.ClientError, TimeoutError) as error:
                kind = type(error).__name__
            if kind:
                measured.errors[kind] = measured.errors.get(kind, 0) + 1
            else:
                measured.latencies_ms.append((time.monotonic() - start) * 1000)

    began = time.monotonic()
    await asyncio.gather(*(one(client) for client in range(clients)))
    measured.seconds = time.monotonic() - began
    return measured
