"""One round of one system: started on an empty folder, filled, measured, drilled, stopped."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiohttp
import orjson

from evaluation.costs import drills, figures, sql
from evaluation.costs import http_load as load
from evaluation.costs.direct_links import DirectLinks
from evaluation.costs.figures import LoadFigures, RoundFigures
from evaluation.costs.loads import Load, fill_bodies, loads, query_body, requests
from evaluation.failure import SystemFailure
from evaluation.faulting.toxiproxy import ToxiproxyServer
from evaluation.run.footprint import footprint
from evaluation.systems.catalogue import SYSTEMS

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

    from evaluation.costs.texts import Texts
    from evaluation.systems.interface import System
    from evaluation.systems.proxies import Proxies

WARM_UP_S = 0.5
_FILL_ATTEMPTS = 4


async def measure_round(
    name: str,
    corpus: Texts,
    exact: list[list[str]],
    seconds: float,
    proxies: bool,
    drill: bool,
    say: Callable[[str], None],
) -> RoundFigures:
    """Start, fill, measure and stop one system; what went wrong is in `error`."""
    one = RoundFigures()
    folder = Path(tempfile.mkdtemp(prefix="chroma-cost-"))
    try:
        system = SYSTEMS[name]()
        async with _links(proxies, folder) as links:
            try:
                began = time.monotonic()
                data = folder / "data"
                await asyncio.to_thread(data.mkdir)
                await system.start(data, links)
                one.start_s = time.monotonic() - began
                await _measure(system, links, one, corpus, exact, seconds, say)
                if drill:
                    say(f"{name}: backup and failover")
                    await _drill(system, links, one, folder)
            finally:
                await system.stop()
    except Exception as error:  # whatever is wrong with one system, the others are to be measured
        one.error = f"{type(error).__name__}: {error}"
    finally:
        await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)
    return one


@contextlib.asynccontextmanager
async def _links(proxies: bool, folder: Path) -> AsyncGenerator[Proxies]:
    if not proxies:
        yield DirectLinks()
        return
    server = ToxiproxyServer()
    await server.start(None, folder / "toxiproxy.log")
    try:
        yield server
    finally:
        await server.stop()


async def _measure(
    system: System,
    links: Proxies,
    one: RoundFigures,
    corpus: Texts,
    exact: list[list[str]],
    seconds: float,
    say: Callable[[str], None],
) -> None:
    front = system.entries[0].url
    url = f"{front}{load.COLLECTIONS}"
    timeout = aiohttp.ClientTimeout(total=60)
    planned = loads(system.levels)
    async with aiohttp.ClientSession(timeout=timeout, connector=aiohttp.TCPConnector(limit=0)) as session:
        filled = await load.create_collection(session, front, "filled")
        # Each writing load has a collection of its own, so that none finds what another has left.
        fresh = [
            await load.create_collection(session, front, f"writes-{number}") if each.writes else ""
            for number, each in enumerate(planned)
        ]
        # Some systems tell the other members of a new collection only at their next round.
        await system.settle()
        began = time.monotonic()
        for body in fill_bodies(corpus):
            await _fill(session, f"{url}/{filled}/add", body)
        one.fill_per_second = len(corpus.documents) / (time.monotonic() - began)
        await system.settle()
        taken = await asyncio.to_thread(footprint, system)
        one.disk_mib = {name: round(size / 2**20, 1) for name, size in taken["disk_bytes"].items()}
        found: list[list[str]] = []
        for number in range(len(corpus.queries)):
            answer = await _post(session, f"{url}/{filled}/query", query_body(corpus, number))
            found.append(answer["ids"][0])
        one.recall = figures.recall(found, exact)
        for each, to in zip(planned, fresh, strict=True):
            one.loads.append(await _one_load(each, corpus, url, filled, to, seconds))
            say(f"{system.name} {_words(one.loads[-1])}")
        if system.name.startswith("postgres"):
            address = await sql.primary_address(system, links)
            for measured in await sql.measure(address, corpus, "filled", seconds, min(WARM_UP_S, seconds)):
                one.loads.append(measured)
                say(f"{system.name} {_words(measured)}")
        await system.settle()
        taken = await asyncio.to_thread(footprint, system)
        one.memory_mib, one.processes = taken["memory_mib"], taken["processes"]
        one.threads = taken["threads"]


def _words(one: LoadFigures) -> str:
    latency = f"p50 {one.p50_ms:.1f} ms, p99 {one.p99_ms:.1f} ms"
    return f"{one.load} {one.mode}: {one.per_second:.0f}/s, {latency} {one.errors or ''}"


async def _drill(system: System, links: Proxies, one: RoundFigures, folder: Path) -> None:
    """Last, because it kills. What goes wrong in it is its result; the measured figures stay."""
    front = system.entries[0].url
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=60)) as session:
        try:
            made = await load.create_collection(session, front, drills.COLLECTION)
            await system.settle()
            url = f"{front}{load.COLLECTIONS}/{made}"
            one.drills["backup"] = await drills.backup(system, links, session, url, folder / "backup")
            one.drills["failover"] = await drills.failover(system, session, url)
        except Exception as error:  # as above
            one.drills["error"] = {"error": f"{type(error).__name__}: {error}"}


async def _one_load(
    each: Load, corpus: Texts, url: str, filled: str, fresh: str, seconds: float
) -> LoadFigures:
    request = requests(each, corpus, url, filled, fresh)
    timeout = aiohttp.ClientTimeout(total=60)
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(
        timeout=timeout, connector=connector, headers=each.mode.headers
    ) as session:
        # Connections, caches and a new collection's index are there before the clock starts.
        warm_up = min(WARM_UP_S, seconds)
        await load.closed_loop(
            session, each.clients, warm_up, lambda client, turn: request(client, turn + 10**6)
        )
        measured = await load.closed_loop(session, each.clients, seconds, request)
    return figures.load_figures(each, each.mode.name, measured, load_average())


async def _fill(session: aiohttp.ClientSession, url: str, body: bytes) -> None:
    """Adding what is there already changes nothing, so an unknown outcome is simply tried again."""
    for attempt in range(_FILL_ATTEMPTS):
        try:
            await _post(session, url, body)
            return
        except (SystemFailure, aiohttp.ClientError, TimeoutError):
            if attempt == _FILL_ATTEMPTS - 1:
                raise


async def _post(session: aiohttp.ClientSession, url: str, body: bytes) -> Any:
    async with session.post(url, data=body, headers=load.JSON) as response:
        answer = await response.read()
        if response.status >= 300:
            raise SystemFailure(f"{url} answered {response.status}: {answer[:300]!r}")
        return orjson.loads(answer)


def load_average() -> float:
    """What the machine did in the last minute."""
    return round(os.getloadavg()[0], 2)
