"""The same loads by SQL alone, past the HTTP layer: what that layer costs is the difference.

Each client has a connection of its own to the primary, without a pool in between; reads are not spread.
"""

from __future__ import annotations

import asyncio
import os
import time
from typing import TYPE_CHECKING

import asyncpg
import numpy as np

from evaluation.costs.figures import LoadFigures
from evaluation.costs.loads import NEIGHBOURS, Load, loads
from evaluation.costs.texts import DIMENSION
from evaluation.failure import SystemFailure
from evaluation.systems.postgres.direct import Direct

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from typing import Any

    from evaluation.costs.texts import Texts
    from evaluation.systems.interface import System
    from evaluation.systems.proxies import Proxies

    Call = Callable[[int, int], Coroutine[Any, Any, object]]

MODE = "sql"
_WARM_UP_TURN = 10**6


async def primary_address(system: System, links: Proxies) -> str:
    """host:port of the server that takes writes, as another machine dials it."""
    primary = await system.leader()
    if primary is None:
        raise SystemFailure(f"{system.name} has no primary")
    other = next(member for member in system.members if member != primary)
    return links.listen(f"sql.{other.replace('pg', 'pgbouncer')}.{primary}")


async def measure(
    address: str, texts: Texts, filled: str, seconds: float, warm_up_s: float
) -> list[LoadFigures]:
    """All loads of the plain kind; `filled` is the name of the filled collection."""
    return [await _one(each, address, texts, filled, seconds, warm_up_s) for each in loads(("default",))]


async def _one(
    each: Load, address: str, texts: Texts, filled: str, seconds: float, warm_up_s: float
) -> LoadFigures:
    name = f"{each.name}-{MODE}" if each.writes else filled
    # One after the other: the first makes the collection.
    sessions = [await Direct.open(address, name, DIMENSION) for _ in range(each.clients)]
    try:
        call = _call(each, sessions, texts)
        await _closed_loop(each.clients, warm_up_s, lambda client, turn: call(client, turn + _WARM_UP_TURN))
        elapsed, latencies_ms, errors = await _closed_loop(each.clients, seconds, call)
    finally:
        for session in sessions:
            await session.close()
    return LoadFigures(
        load=each.name,
        mode=MODE,
        clients=each.clients,
        documents_per_request=each.documents_per_request,
        per_second=len(latencies_ms) * each.documents_per_request / elapsed,
        p50_ms=float(np.percentile(latencies_ms, 50)) if latencies_ms else float("nan"),
        p99_ms=float(np.percentile(latencies_ms, 99)) if latencies_ms else float("nan"),
        errors=errors,
        load_average=round(os.getloadavg()[0], 2),
    )


def _call(each: Load, sessions: list[Direct], texts: Texts) -> Call:
    count = each.documents_per_request
    size = len(texts.documents)

    def write(client: int, turn: int) -> Coroutine[Any, Any, object]:
        numbers = [(client * 977 + turn * count + number) % size for number in range(count)]
        ids = [f"c{client}-{turn}-{number}" for number in range(count)]
        documents = [texts.documents[number] for number in numbers]
        return sessions[client].add(ids, texts.rows[numbers], documents, [{"turn": turn}] * count)

    def get(client: int, turn: int) -> Coroutine[Any, Any, object]:
        return sessions[client].get([f"d{(client * 613 + turn * 7) % size}"])

    def query(client: int, turn: int) -> Coroutine[Any, Any, object]:
        vector = texts.queries[(client * 31 + turn) % len(texts.queries)]
        return sessions[client].query(vector, NEIGHBOURS)

    return {"write": write, "batch": write, "get": get, "query": query}[each.name.split("-")[0]]


async def _closed_loop(clients: int, seconds: float, call: Call) -> tuple[float, list[float], dict[str, int]]:
    """Seconds it really took, latencies of what was answered, and errors by kind."""
    latencies_ms: list[float] = []
    errors: dict[str, int] = {}
    began = time.monotonic()

    async def one(client: int) -> None:
        turn = 0
        while time.monotonic() < began + seconds:
            start = time.monotonic()
            try:
                await call(client, turn)
                latencies_ms.append((time.monotonic() - start) * 1000)
            except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError) as error:
                errors[type(error).__name__] = errors.get(type(error).__name__, 0) + 1
            turn += 1

    await asyncio.gather(*(one(client) for client in range(clients)))
    return time.monotonic() - began, latencies_ms, errors
