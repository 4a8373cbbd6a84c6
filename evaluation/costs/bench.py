"""Speed of the cluster beside one `chroma run`, on one machine: `python -m evaluation.costs.bench`.

Ratios are what counts; absolute figures are the machine's. Both are driven by the same closed-loop
clients through HTTP with 384-dimensional vectors: 32 clients each writing one document at a time,
then 8 clients reading by id, then 8 clients querying for 10 neighbours. Then the leader is killed
with -9 ten times under writes: the longest time without an acknowledgement around each kill.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import json
import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiohttp
import orjson
from rich.console import Console
from rich.table import Table

from evaluation.costs import http_load as load
from evaluation.processes import free_port
from evaluation.systems.program import CHROMA

if TYPE_CHECKING:
    from collections.abc import Generator

DIMENSION = 384
FILLED = 5000


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=10.0, help="length of each measurement")
    parser.add_argument("--rounds", type=int, default=2, help="how often the two systems take turns")
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--out", type=Path, default=None, help="write the figures as JSON")
    options = parser.parse_args()
    console = Console()
    folder = Path(tempfile.mkdtemp(prefix="chroma-cluster-bench-"))
    try:
        with _chroma_run(folder) as (single_url, single_pid), _cluster(folder) as cluster:
            figures = asyncio.run(_measure(options, single_url, cluster, console))
            figures["memory_mib"] = {
                "chroma run": _memory_mib(single_pid),
                **{row["id"]: _memory_mib(row["pid"]) for row in _status(cluster)["nodes"]},
                "balancer": _memory_mib(_status(cluster)["balancer"]["pid"]),
            }
            figures["pause_ms"] = asyncio.run(_kills(options.kills, cluster, console))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    _print(figures, console)
    if options.out:
        options.out.write_text(json.dumps(figures, indent=2) + "\n")
    return 0


async def _measure(
    options: argparse.Namespace, single: str, cluster: Path, console: Console
) -> dict[str, Any]:
    urls = {"chroma run": single, "cluster": str(_status(cluster)["balancer"]["url"])}
    rows = load.vectors(FILLED, DIMENSION, seed=1)
    figures: dict[str, Any] = {"per_second": {}, "p50_ms": {}, "p99_ms": {}, "errors": {}}
    timeout = aiohttp.ClientTimeout(total=60)
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(timeout=timeout, connector=connector) as session:
        filled: dict[str, str] = {}
        for name, url in urls.items():
            filled[name] = await load.create_collection(session, url, "filled")
            await load.fill(session, url, filled[name], rows)
        for number in range(options.rounds):
            for name, url in urls.items():
                fresh = await load.create_collection(session, url, f"writes-{number}")
                base = f"{url}{load.COLLECTIONS}"

                def write(client: int, turn: int, to: str = f"{base}/{fresh}/add") -> tuple[str, bytes]:
                    body = {
                        "ids": [f"c{client}-{turn}"],
                        "embeddings": rows[(client * 977 + turn) % FILLED][None, :],
                        "documents": [f"document {turn} of client {client}"],
                        "metadatas": [{"turn": turn}],
                    }
                    return to, orjson.dumps(body, option=orjson.OPT_SERIALIZE_NUMPY)

                def get(client: int, turn: int, to: str = f"{base}/{filled[name]}/get") -> tuple[str, bytes]:
                    return to, orjson.dumps({"ids": [f"d{(client * 613 + turn * 7) % FILLED}"]})

                def query(
                    client: int, turn: int, to: str = f"{base}/{filled[name]}/query"
                ) -> tuple[str, bytes]:
                    vector = rows[(client * 331 + turn * 13) % FILLED][None, :]
                    body = {"query_embeddings": vector, "n_results": 10}
                    return to, orjson.dumps(body, option=orjson.OPT_SERIALIZE_NUMPY)

                for kind, clients, request in (("write", 32, write), ("get", 8, get), ("query", 8, query)):
                    console.print(f"[dim]round {number + 1}: {name}: {kind}, {clients} clients[/dim]")
                    measured = await load.closed_loop(session, clients, options.seconds, request)
                    for figure, value in (
                        ("per_second", measured.per_second),
                        ("p50_ms", measured.percentile(50)),
                        ("p99_ms", measured.percentile(99)),
                    ):
                        figures[figure].setdefault(kind, {}).setdefault(name, []).append(round(value, 2))
                    if measured.errors:
                        figures["errors"].setdefault(kind, {}).setdefault(name, []).append(measured.errors)
    return figures


async def _kills(kills: int, cluster: Path, console: Console) -> list[float]:
    """Longest time without an acknowledged write around each kill -9 of the leader, ms."""
    url = str(_status(cluster)["balancer"]["url"])
    pauses: list[float] = []
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        collection = await load.create_collection(session, url, "killed")
        for number in range(kills):
            acks: list[float] = []
            stop = asyncio.Event()

            async def writer(client: int, stop: asyncio.Event = stop, acks: list[float] = acks) -> None:
                turn = 0
                while not stop.is_set():
                    body = {"ids": [f"k{client}-{turn}"], "embeddings": [[float(turn % 89)] * 8]}
                    turn += 1
                    to = f"{url}{load.COLLECTIONS}/{collection}/upsert"
                    async with session.post(to, data=orjson.dumps(body), headers=load.JSON) as response:
                        await response.read()
                        if response.status == 200:
                            acks.append(time.monotonic())

            writers = [asyncio.create_task(writer(client)) for client in range(8)]
            await asyncio.sleep(1.5)
            status = await asyncio.to_thread(_status, cluster)
            leader = next(row for row in status["nodes"] if row["id"] == status["leader"])
            killed = time.monotonic()
            os.kill(leader["pid"], signal.SIGKILL)
            await asyncio.sleep(4.0)
            stop.set()
            await asyncio.gather(*writers)
            acks.sort()
            gaps = [b - a for a, b in itertools.pairwise(acks) if b > killed]
            pauses.append(round(max(gaps) * 1000, 1))
            console.print(f"[dim]kill {number + 1}: writes paused {pauses[-1]:.0f} ms[/dim]")
            await asyncio.to_thread(_up, cluster)
            await asyncio.to_thread(_wait_healthy, cluster)
    return pauses


@contextlib.contextmanager
def _chroma_run(folder: Path) -> Generator[tuple[str, int]]:
    port = free_port()
    command = [str(CHROMA), "run", "--path", str(folder / "single"), "--port", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        _wait_port(port)
        yield f"http://127.0.0.1:{port}", process.pid
    finally:
        process.terminate()
        process.wait(timeout=30)


@contextlib.contextmanager
def _cluster(folder: Path) -> Generator[Path]:
    data = folder / "cluster"
    _up(data, "--port", str(free_port()))
    try:
        yield data
    finally:
        subprocess.run([sys.executable, "-m", "cluster", "down", "--data", str(data)], check=True)


def _up(data: Path, *flags: str) -> None:
    command = [sys.executable, "-m", "cluster", "up", "--detach", "--data", str(data), *flags]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def _status(data: Path) -> dict[str, Any]:
    command = [sys.executable, "-m", "cluster", "status", "--json", "--data", str(data)]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def _wait_healthy(data: Path) -> None:
    end = time.monotonic() + 60
    while not all(row["healthy"] for row in _status(data)["nodes"]):
        if time.monotonic() > end:
            raise RuntimeError(f"not all nodes are healthy after 60 s: {_status(data)}")


def _wait_port(port: int) -> None:
    end = time.monotonic() + 30
    while True:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        if time.monotonic() > end:
            raise RuntimeError(f"nothing listens on port {port} after 30 s")
        time.sleep(0.05)


def _memory_mib(pid: int) -> float:
    """Resident memory of a process and its children (a node's Chroma is a child)."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return round(sum(_rss_mib(each) for each in (pid, *map(int, children))), 1)


def _rss_mib(pid: int) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return round(int(line.split()[1]) / 1024, 1)
    raise RuntimeError(f"no VmRSS for process {pid}")


def _print(figures: dict[str, Any], console: Console) -> None:
    table = Table(title="requests per second (median of rounds)")
    for heading in ("what", "chroma run", "cluster", "ratio", "p50 / p99 ms chroma run", "cluster"):
        table.add_column(heading, justify="left" if heading == "what" else "right")
    for kind, by_name in figures["per_second"].items():
        medians = {name: statistics.median(values) for name, values in by_name.items()}
        latency = {
            name: " / ".join(f"{statistics.median(figures[p][kind][name]):.1f}" for p in ("p50_ms", "p99_ms"))
            for name in by_name
        }
        ratio = medians["cluster"] / medians["chroma run"]
        table.add_row(
            kind,
            f"{medians['chroma run']:.0f}",
            f"{medians['cluster']:.0f}",
            f"{ratio:.2f}",
            latency["chroma run"],
            latency["cluster"],
        )
    console.print(table)
    console.print("memory (MiB):", figures["memory_mib"])
    if figures["errors"]:
        console.print("errors:", figures["errors"])
    pauses = figures["pause_ms"]
    if pauses:
        console.print(
            f"writes paused after kill -9 of the leader, {len(pauses)} kills: "
            f"median {statistics.median(pauses):.0f} ms, max {max(pauses):.0f} ms"
        )


if __name__ == "__main__":
    sys.exit(main())
