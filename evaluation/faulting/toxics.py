"""Toxics on many proxies at once, each under a name of its own, and how they are taken away again."""

from __future__ import annotations

import asyncio
import itertools
from typing import TYPE_CHECKING

from evaluation.systems.proxies import Toxic

if TYPE_CHECKING:
    from collections.abc import Awaitable, Mapping, Sequence

    from evaluation.faulting.interface import Context, Struck

_number = itertools.count(1)


def new_toxic(
    prefix: str, kind: str, stream: str, attributes: Mapping[str, int], toxicity: float = 1.0
) -> Toxic:
    """Its name begins with `prefix` and is never used twice in this process."""
    return Toxic(f"{prefix}-{next(_number)}", kind, stream, attributes, toxicity)


async def add(context: Context, struck: Struck, toxics: Sequence[tuple[str, Toxic]]) -> None:
    """Add toxics to proxies, all at once, and remember to take them away."""
    there: list[tuple[str, str]] = []

    async def one(proxy: str, toxic: Toxic) -> None:
        await context.proxies.add(proxy, toxic)
        there.append((proxy, toxic.name))

    async def undo() -> None:
        await _all(*(context.proxies.remove(proxy, name) for proxy, name in there))

    struck.undo.append(undo)
    await _all(*(one(proxy, toxic) for proxy, toxic in toxics))


async def _all(*doings: Awaitable[None]) -> None:
    """All of them to their ends, then the first error."""
    for result in await asyncio.gather(*doings, return_exceptions=True):
        if isinstance(result, BaseException):
            raise result
