"""Requests to the workers of `shared-dir` one by one, which show that their directory is shared."""

from __future__ import annotations

import asyncio
import contextlib
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import aiohttp

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True)
class Probe:
    """`workers`: name -> URL of its database, past all proxies."""

    session: aiohttp.ClientSession
    workers: Mapping[str, str]

    async def documents(self) -> dict[str, int]:
        """Collection -> documents in it, as the first worker counts them."""
        _, listed = await self._ask(self._first, "GET", "/collections")
        counts: dict[str, int] = {}
        for one in listed:
            counts[one["name"]] = (await self._ask(self._first, "GET", f"/collections/{one['id']}/count"))[1]
        return counts

    async def contend(self, seconds: float, clients: int) -> None:
        """At every worker so many clients change the settings of one collection."""
        body = {"name": "contended", "get_or_create": True}
        _, raw = await self._ask(self._first, "POST", "/collections", body)
        end = time.monotonic() + seconds

        async def change(member: str, number: int) -> None:
            turn = number
            while time.monotonic() < end:
                turn += clients
                body = {"new_configuration": {"hnsw": {"ef_search": 50 + turn % 100}}}
                # A worker that hangs or dies meanwhile is a finding of others.
                with contextlib.suppress(aiohttp.ClientError, TimeoutError):
                    await self._ask(member, "PUT", f"/collections/{raw['id']}", body)

        await asyncio.gather(
            *(change(member, number) for member in self.workers for number in range(clients))
        )

    async def unfound(self, collection: str) -> dict[str, int]:
        """Worker -> documents of the collection that it counts, and does not find by a query for all."""
        missing: dict[str, int] = {}
        for member in self.workers:
            _, raw = await self._ask(member, "GET", f"/collections/{collection}")
            path = f"/collections/{raw['id']}"
            _, count = await self._ask(member, "GET", f"{path}/count")
            _, some = await self._ask(member, "POST", f"{path}/get", {"limit": 1, "include": ["embeddings"]})
            missing[member] = 0
            if some["ids"]:
                body: dict[str, Any] = {"query_embeddings": some["embeddings"], "n_results": count}
                _, found = await self._ask(member, "POST", f"{path}/query", body)
                missing[member] = count - len(found["ids"][0])
        return missing

    @property
    def _first(self) -> str:
        return next(iter(self.workers))

    async def _ask(self, member: str, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        url = f"{self.workers[member]}{path}"
        timeout = aiohttp.ClientTimeout(total=60)
        async with self.session.request(method, url, json=body, timeout=timeout) as response:
            return response.status, await response.json()
