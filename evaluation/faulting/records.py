"""A collection that a fault has for itself, reached as any client reaches it."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any, Final, cast

import aiohttp

from evaluation.failure import SystemFailure
from evaluation.systems.http import DATABASE

if TYPE_CHECKING:
    from collections.abc import Mapping

#: Answers after which the same request, under the same key, is sent again.
_AGAIN: Final = frozenset({408, 429, 502, 503, 504})
_PAUSE_S: Final = 0.3


async def ask(
    session: aiohttp.ClientSession,
    url: str,
    body: Mapping[str, Any],
    *,
    timeout_s: float,
    key: str | None = None,
    level: str | None = None,
) -> tuple[int, dict[str, Any]]:
    """Status and body of one answer; 0 without one."""
    headers = {
        name: text
        for name, text in (("Idempotency-Key", key), ("X-Chroma-Consistency", level))
        if text is not None
    }
    timeout = aiohttp.ClientTimeout(total=timeout_s)
    try:
        async with session.post(url, json=body, headers=headers, timeout=timeout) as answer:
            told: Any = await answer.json(content_type=None)
            return answer.status, cast("dict[str, Any]", told) if isinstance(told, dict) else {}
    except (aiohttp.ClientError, TimeoutError, ValueError):
        return 0, {}


class Own:
    """One collection, by its name; `url`: where it is written to."""

    def __init__(self, session: aiohttp.ClientSession, url: str, name: str) -> None:
        self._session = session
        self._url = url
        self._id = ""
        self.name = name

    @property
    def id(self) -> str:
        """Known after `create`."""
        return self._id

    async def create(self) -> None:
        """It is there afterwards.

        Raises:
            SystemFailure: it is not.
        """
        body = {"name": self.name, "get_or_create": True}
        status, told = await self._settled("", body, f"create-{self.name}", 60.0)
        if status != 200:
            raise SystemFailure(f"the collection {self.name} could not be made: {status} {told}")
        self._id = str(told["id"])

    async def add(self, ids: list[str], *, within_s: float = 60.0) -> tuple[int, dict[str, Any]]:
        """The final answer to an add of these records: a vector, and `n`, their place, as metadata."""
        body = {
            "ids": ids,
            "embeddings": [[1.0, float(place), 0.5] for place in range(len(ids))],
            "metadatas": [{"n": place} for place in range(len(ids))],
        }
        return await self._settled(f"/{self._id}/add", body, f"add-{self.name}-{ids[0]}", within_s)

    async def grow(self, number: int, size: int) -> None:
        """Let the log grow by so many bytes, and nothing else: an update of a record that is not there."""
        body = {
            "ids": [f"nobody-{number}"],
            "embeddings": [[1.0, 0.0, 0.5]],
            "documents": ["x" * size],
        }
        status, told = await self._settled(f"/{self._id}/update", body, f"grow-{self.name}-{number}", 60.0)
        if status != 200:
            raise SystemFailure(f"the log could not be made to grow: {status} {told}")

    async def read(self, url: str, level: str) -> dict[str, tuple[int, list[float]]] | None:
        """Id -> `n` and vector, as read there; None if it is refused."""
        body = {"include": ["metadatas", "embeddings"]}
        path = f"{url}{DATABASE}/collections/{self._id}/get"
        status, told = await ask(self._session, path, body, timeout_s=8.0, level=level)
        if status != 200:
            return None
        rows = zip(told["ids"], told["metadatas"], told["embeddings"], strict=True)
        return {name: (metadata["n"], vector) for name, metadata, vector in rows}

    async def read_within(
        self, url: str, level: str, seconds: float = 60.0
    ) -> dict[str, tuple[int, list[float]]] | None:
        """The first answer within the time."""
        end = time.monotonic() + seconds
        while True:
            found = await self.read(url, level)
            if found is not None or time.monotonic() > end:
                return found
            await asyncio.sleep(_PAUSE_S)

    async def drop(self) -> None:
        """Delete it; that it could not be is no fault's business."""
        try:
            async with self._session.delete(
                f"{self._url}{DATABASE}/collections/{self.name}", timeout=aiohttp.ClientTimeout(total=30)
            ):
                pass
        except (aiohttp.ClientError, TimeoutError):
            return

    async def _settled(
        self, path: str, body: Mapping[str, Any], key: str, within_s: float
    ) -> tuple[int, dict[str, Any]]:
        """The same request again, under one key, until its outcome is known or the time is over."""
        end = time.monotonic() + within_s
        while True:
            left_s = max(1.0, end - time.monotonic())
            url = f"{self._url}{DATABASE}/collections{path}"
            status, told = await ask(self._session, url, body, timeout_s=left_s, key=key)
            if (status and status not in _AGAIN) or time.monotonic() > end:
                return status, told
            await asyncio.sleep(_PAUSE_S)
