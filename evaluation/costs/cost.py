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
import datetime
import os
import platform
import shlex
import sys
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson
import uvloop
from rich.console import Console

from evaluation.costs import figures, texts
from evaluation.costs.figures import RoundFigures
from evaluation.costs.loads import CLIENT, NEIGHBOURS, TITLES
from evaluation.costs.operations import operations_of
from evaluation.costs.round import load_average, measure_round
from evaluation.costs.tables import show
from evaluation.systems.catalogue import SYSTEMS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

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
    show(result, Console())
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
    result = _head(systems, documents, seconds, rounds, proxies)
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
                one = runner.run(
                    measure_round(name, corpus, exact, seconds, proxies, number + 1 == rounds, say)
                )
            if one.error:
                say(f"{name}: {one.error}")
            done[name].append(one)
            _update(result, done)
            save(result)
    return result


def _head(
    systems: Sequence[str], documents: int, seconds: float, rounds: int, proxies: bool
) -> dict[str, Any]:
    """The result before anything is measured."""
    return {
        "form": FORM,
        "command": shlex.join(
            [*["python", "-m", "evaluation.costs.cost", "--systems"], *systems]
            + ["--documents", str(documents), "--seconds", str(seconds), "--rounds", str(rounds)]
            + (["--proxies"] if proxies else [])
            + ["--out", "cost.json"]
        ),
        "started_at": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "cpus": os.cpu_count(),
        "load_average": [load_average()],
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


def _update(result: dict[str, Any], done: dict[str, list[RoundFigures]]) -> None:
    """With the rounds that are done so far."""
    result["systems"] = figures.systems({name: each for name, each in done.items() if each})
    for row in result["systems"]:
        row["operations"] = with_drills(row["system"], done[row["system"]])
    result["load_average"] = [result["load_average"][0], load_average()]


def with_drills(name: str, rounds: Sequence[RoundFigures]) -> dict[str, Any]:
    """What is known about the system's operations, with what the last drill has shown."""
    drilled = next((one.drills for one in reversed(rounds) if one.drills), RoundFigures().drills)
    failed = drilled.get("error")
    return {
        kind: {**facts, "drill": drilled.get(kind, failed)} for kind, facts in operations_of(name).items()
    }


if __name__ == "__main__":
    sys.exit(main())
