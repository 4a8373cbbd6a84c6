"""A started system behind the real Toxiproxy, and short words to talk to its entries."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import aiohttp

from evaluation.faulting.toxiproxy import ToxiproxyServer
from evaluation.systems.http import DATABASE

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping
    from pathlib import Path

    from evaluation.systems.interface import System


@dataclass
class Started:
    """Requests name an entry, a method and a path below the database."""

    system: System
    proxies: ToxiproxyServer
    http: aiohttp.ClientSession

    async def ask(
        self,
        entry: str,
        method: str,
        path: str,
        body: Any = None,
        headers: Mapping[str, str] | None = None,
    ) -> tuple[int, Any]:
        url = next(each.url for each in self.system.entries if each.name == entry)
        async with self.http.request(method, url + DATABASE + path, json=body, headers=headers) as response:
            return response.status, await response.json()

    async def collection(self, entry: str, name: str, **more: Any) -> Documents:
        body = {"name": name, "get_or_create": True, **more}
        status, raw = await self.ask(entry, "POST", "/collections", body)
        assert status == 200, raw
        return Documents(self, f"/collections/{raw['id']}")


@dataclass
class Documents:
    """One collection at any entry."""

    started: Started
    path: str

    async def ask(self, entry: str, verb: str, body: Any) -> tuple[int, Any]:
        return await self.started.ask(entry, "POST", f"{self.path}/{verb}", body)

    async def upsert(self, entry: str, id: str, text: str, **metadata: Any) -> int:
        body = {
            "ids": [id],
            "embeddings": [[1.0, 2.0, 3.0]],
            "documents": [text],
            "metadatas": [metadata or None],
        }
        return (await self.ask(entry, "upsert", body))[0]

    async def delete(self, entry: str, id: str) -> int:
        return (await self.ask(entry, "delete", {"ids": [id]}))[0]

    async def text(self, entry: str, id: str) -> str | None:
        status, raw = await self.ask(entry, "get", {"ids": [id]})
        assert status == 200, raw
        return raw["documents"][0] if raw["ids"] else None

    async def texts(self, id: str) -> list[str | None]:
        """What each member shows."""
        return [await self.text(member, id) for member in self.started.system.members]


@contextlib.asynccontextmanager
async def started(system: System, folder: Path) -> AsyncIterator[Started]:
    proxies = ToxiproxyServer()
    await proxies.start(None, folder / "toxiproxy.log")
    try:
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=60)) as http:
            await system.start(folder / "system", proxies)
            yield Started(system, proxies, http)
    finally:
        try:
            await system.stop()
        finally:
            await proxies.stop()
