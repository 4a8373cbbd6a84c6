"""Small questions to Chroma's HTTP API that systems ask while they start and settle."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import aiohttp

if TYPE_CHECKING:
    from collections.abc import Mapping

DATABASE: Final = "/api/v2/tenants/default_tenant/databases/default_database"
_PROBE: Final = "start-probe"


async def get_json(session: aiohttp.ClientSession, url: str, timeout_s: float) -> Mapping[str, Any] | None:
    """The object that a 200 holds; None for any other answer, or none within the time."""
    try:
        async with session.get(url, timeout=aiohttp.ClientTimeout(total=timeout_s)) as response:
            return await response.json() if response.status == 200 else None
    except (aiohttp.ClientError, TimeoutError, ValueError):
        return None


async def takes_writes(session: aiohttp.ClientSession, url: str, timeout_s: float) -> bool:
    """Make a collection and drop it again: is a write through this entry answered?"""
    timeout = aiohttp.ClientTimeout(total=timeout_s)
    try:
        body = {"name": _PROBE, "get_or_create": True}
        async with session.post(f"{url}{DATABASE}/collections", json=body, timeout=timeout) as response:
            if response.status != 200:
                return False
        async with session.delete(f"{url}{DATABASE}/collections/{_PROBE}", timeout=timeout) as response:
            return response.status == 200
    except (aiohttp.ClientError, TimeoutError):
        return False
