"""The same loads by SQL alone, past the HTTP layer: what that layer costs is the difference.

Each client has a connection of its own to the primary, without a pool in between; reads are not spread.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import asyncpg

from evaluation.costs.closed_loop import drive
from evaluation.costs.figures import load_figures
from evaluation.costs.loads import NEIGHBOURS, Load, loads
from evaluation.costs.texts import DIMENSION
from evaluation.failure import SystemFailure
from evaluation.systems.postgres.direct import Direct

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from typing import Any

    from evaluation.costs.figures import LoadFigures
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
        call = _answered(_call(each, sessions, texts))
        await drive(each.clients, warm_up_s, lambda client, turn: call(client, turn + _WARM_UP_TURN))
        measured = await drive(each.clients, seconds, call)
    finally:
        for session in sessions:
            await session.close()
    return load_figures(each, MODE, measured, round(os.getloadavg()[0], 2))


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


def _answered(call: Call) -> Callable[[int, int], Coroutine[Any, Any, str]]:
    async def answered(client: int, turn: int) -> str:
        """The name of the error, if it is one."""
        try:
            await call(client, turn)
        except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError) as error:
            return type(error).__name__
        return ""

    return answered
