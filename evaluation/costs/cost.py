"""What each system costs: speed, memory, disk, processes, and an operator's commands, as `cost.json`.

`python -m evaluation.costs.cost --systems single cluster --out cost.json`. Every system is started on an
empty folder, alone on the machine, filled with the same real texts, put under the same closed-loop HTTP
clients, and stopped; then the next; then all of them again in the next round, in the reverse order. Ratios
are taken within a round. Links are direct unless `--proxies` is given: then all of them go through Toxiproxy.

    form          "cost/1"
    command, started_at (ISO 8601, UTC), cpus, versions
    load_average  [before, after] of one minute; what else the machine did shows in it
    setting       documents, dimension, seconds (of each load), rounds, proxies (bool), corpus, client
    titles        load -> what it is, for people
    systems[]     system, rounds (that were measured), error ("" if none), start_s, fill_per_second
                  (documents, 500 a request), recall_at_10 (of held-out texts, against exact search; null:
                  not measured), memory_mib {participant: PSS} and memory_mib_total (after the loads),
                  processes {participant: count} and processes_total, threads, disk_mib {member: allocated}
                  and disk_mib_total (after the filling), loads[], operations
    loads[]       load, mode (read level or ack mode; "default" where there are none; "sql": past the HTTP
                  layer, straight to the primary), clients,
                  documents_per_request, per_second (documents for writes, requests for reads; median of
                  rounds), p50_ms, p99_ms (of requests), rounds[] (per_second of each), ratio (to `single` in
                  the same load; null if it was not measured), errors {what: count}, load_average[]
    operations    failover and backup, each: commands[] (what a person types; empty: nothing), outage (what
                  clients notice), loses (what may be lost), needs (what else must be there), drill (really
                  done once, at the end of the last round, while one client wrote: see
                  `evaluation.costs.drills`; null where it was not done)
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import datetime
import os
import platform
import shlex
import shutil
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiohttp
import orjson
import uvloop
from rich.console import Console
from rich.table import Table

from evaluation.costs import drills, figures, sql, texts
from evaluation.costs import http_load as load
from evaluation.costs.direct_links import DirectLinks
from evaluation.costs.figures import LoadFigures, RoundFigures
from evaluation.costs.loads import CLIENT, NEIGHBOURS, TITLES, Load, fill_bodies, loads, query_body, requests
from evaluation.costs.operations import operations_of
from evaluation.failure import SystemFailure
from evaluation.faulting.toxiproxy import ToxiproxyServer
from evaluation.run.footprint import footprint
from evaluation.systems.catalogue import SYSTEMS

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Sequence

    from evaluation.costs.texts import Texts
    from evaluation.systems.interface import System
    from evaluation.systems.proxies import Proxies

FORM = "cost/1"
#: What `--systems` is without a choice, as far as there is such a system.
USUAL = (
    "single",
    "shared-dir",
    "naive-lww",
    "cluster",
    "postgres-async",
    "postgres-quorum",
    "postgres-all",
)
CACHE = Path(__file__).parents[2] / ".cache"
WARM_UP_S = 0.5
_FILL_ATTEMPTS = 4


def main() -> int:
    parser = argparse.ArgumentParser(description="Speed, memory, disk, processes and commands, side by side.")
    usual = [name for name in USUAL if name in SYSTEMS]
    parser.add_argument("--systems", nargs="+", choices=list(SYSTEMS), default=usual, metavar="NAME")
    parser.add_argument("--documents", type=int, default=5000)
    parser.add_argument("--seconds", type=float, default=5.0, help="length of each load")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--proxies", action="store_true", help="all links through Toxiproxy")
    parser.add_argument("--out", type=Path, required=True, help="the JSON file; written after each system")
    options = parser.parse_args()
    console = Console(stderr=True)

    def save(result: dict[str, Any]) -> None:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_bytes(orjson.dumps(result, option=orjson.OPT_INDENT_2))

    result = measure(
        options.systems,
        documents=options.documents,
        seconds=options.seconds,
        rounds=options.rounds,
        proxies=options.proxies,
        say=lambda line: console.print(f"[dim]{line}[/dim]", highlight=False),
        save=save,
    )
    _print(result, Console())
    return 1 if any(row["error"] for row in result["systems"]) else 0


def measure(
    systems: Sequence[str],
    *,
    documents: int = 5000,
    seconds: float = 5.0,
    rounds: int = 2,
    proxies: bool = False,
    say: Callable[[str], None] = lambda line: None,
    save: Callable[[dict[str, Any]], None] = lambda result: None,
) -> dict[str, Any]:
    """The whole result; `say` is told what is done now, `save` gets the result so far after each system.

    Runs event loops of its own: not to be called from within one.

    A system that cannot be started or measured has an `error` in the result and does not stop the others.
    """
    result: dict[str, Any] = {
        "form": FORM,
        "command": shlex.join(
            [*["python", "-m", "evaluation.costs.cost", "--systems"], *systems]
            + ["--documents", str(documents), "--seconds", str(seconds), "--rounds", str(rounds)]
            + (["--proxies"] if proxies else [])
            + ["--out", "cost.json"]
        ),
        "started_at": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "cpus": os.cpu_count(),
        "load_average": [_load_average()],
        "versions": {
            "python": platform.python_version(),
            "chromadb": version("chromadb"),
            "aiohttp": version("aiohttp"),
        },
        "setting": {
            "documents": documents,
            "dimension": texts.DIMENSION,
            "seconds": seconds,
            "rounds": rounds,
            "proxies": proxies,
            "corpus": "sentences of Python's own documentation, embedded by wordllama",
            "client": CLIENT,
        },
        "titles": TITLES,
        "systems": [],
    }
    say(f"embedding {documents} texts")
    corpus = texts.load(documents, CACHE)
    exact = [
        [f"d{number}" for number in row]
        for row in texts.exact_neighbours(corpus.rows, corpus.queries, NEIGHBOURS).tolist()
    ]
    done: dict[str, list[RoundFigures]] = {name: [] for name in systems}
    for number in range(rounds):
        order = list(systems) if number % 2 == 0 else list(reversed(systems))
        for name in order:
            say(f"round {number + 1}: {name}")
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                one = runner.run(_round(name, corpus, exact, seconds, proxies, number + 1 == rounds, say))
            if one.error:
                say(f"{name}: {one.error}")
            done[name].append(one)
            result["systems"] = figures.systems({key: each for key, each in done.items() if each})
            for row in result["systems"]:
                row["operations"] = with_drills(row["system"], done[row["system"]])
            result["load_average"] = [result["load_average"][0], _load_average()]
            save(result)
    return result


async def _round(
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


def with_drills(name: str, rounds: Sequence[RoundFigures]) -> dict[str, Any]:
    """What is known about the system's operations, with what the last drill has shown."""
    drilled = next((one.drills for one in reversed(rounds) if one.drills), RoundFigures().drills)
    failed = drilled.get("error")
    return {
        kind: {**facts, "drill": drilled.get(kind, failed)} for kind, facts in operations_of(name).items()
    }


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
    return LoadFigures(
        load=each.name,
        mode=each.mode.name,
        clients=each.clients,
        documents_per_request=each.documents_per_request,
        per_second=measured.per_second * each.documents_per_request,
        p50_ms=measured.percentile(50),
        p99_ms=measured.percentile(99),
        errors=measured.errors,
        load_average=_load_average(),
    )


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


def _load_average() -> float:
    return round(os.getloadavg()[0], 2)


def _print(result: dict[str, Any], console: Console) -> None:
    speed = Table(title=f"per second (and ratio to {figures.REFERENCE}), p50 / p99 ms")
    speed.add_column("load")
    speed.add_column("system")
    for heading in ("per second", "ratio", "p50", "p99", "errors"):
        speed.add_column(heading, justify="right")
    for name in TITLES:
        for row in result["systems"]:
            for one in row.get("loads", []):
                if one["load"] == name:
                    label = row["system"] + ("" if one["mode"] == "default" else f", {one['mode']}")
                    ratio = "" if one["ratio"] is None else f"{one['ratio']:.2f}"
                    figures_ = (
                        f"{one['per_second']:.0f}",
                        ratio,
                        f"{one['p50_ms']:.2f}",
                        f"{one['p99_ms']:.2f}",
                    )
                    speed.add_row(name, label, *figures_, str(sum(one["errors"].values()) or ""))
    console.print(speed)
    takes = Table(title="what it takes")
    takes.add_column("system")
    for heading in ("start s", "fill/s", "recall@10", "memory MiB", "disk MiB", "processes"):
        takes.add_column(heading, justify="right")
    for row in result["systems"]:
        if "start_s" in row:
            cells = ("start_s", "fill_per_second", "recall_at_10", "memory_mib_total", "disk_mib_total")
            takes.add_row(
                row["system"], *(str(row.get(cell, "")) for cell in cells), str(row["processes_total"])
            )
        else:
            takes.add_row(row["system"], row["error"][:60])
    console.print(takes)


if __name__ == "__main__":
    sys.exit(main())
