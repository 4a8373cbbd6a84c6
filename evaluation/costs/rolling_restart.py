"""What a rolling restart costs the clients: `python -m evaluation.costs.rolling_restart`.

A cluster of three nodes on this machine. Two stock clients of its balancer, one reads and one writes, without
pause, while `chroma-cluster restart --rolling` is run, some times in a row. Told are, in milliseconds, the
longest time between two answered turns of each client in each restart (most of it is the hand-over of
leadership), how long the command took in seconds, and how many requests failed.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any, Final

import chromadb
import orjson

from evaluation.costs.engine_deaths import Client
from evaluation.processes import free_port

_COMMAND: Final = (sys.executable, "-m", "cluster")


def measure(folder: Path, restarts: int) -> dict[str, Any]:
    """The figures of so many rolling restarts."""
    port = free_port()
    data = ("--data", str(folder))
    up = [*_COMMAND, "up", "--detach", *data, "--port", str(port)]
    subprocess.run(up, check=True, timeout=180, stdout=subprocess.DEVNULL)
    try:
        collection = chromadb.HttpClient(host="127.0.0.1", port=port).get_or_create_collection("rolling")
        theirs = chromadb.HttpClient(host="127.0.0.1", port=port).get_collection("rolling")
        ids = [str(number) for number in range(1000)]
        collection.upsert(ids=ids, embeddings=[[float(number), 1.0] for number in range(1000)])
        clients = {
            "read": Client(lambda: theirs.get(ids=["7"])),
            "write": Client(lambda: collection.upsert(ids=["x"], embeddings=[[1.0, 2.0]])),
        }
        return _measure([*_COMMAND, "restart", "--rolling", *data], clients, restarts)
    finally:
        subprocess.run([*_COMMAND, "down", *data], check=True, timeout=90, stdout=subprocess.DEVNULL)


def _measure(command: list[str], clients: dict[str, Client], restarts: int) -> dict[str, Any]:
    threads = [threading.Thread(target=client.run) for client in clients.values()]
    for thread in threads:
        thread.start()
    took: list[float] = []
    pauses: dict[str, list[float]] = {name: [] for name in clients}
    try:
        for _ in range(restarts):
            began = time.monotonic()
            subprocess.run(command, check=True, timeout=600, stdout=subprocess.DEVNULL)
            ended = time.monotonic()
            took.append(ended - began)
            for name, client in clients.items():
                client.wait_ms(ended)
                pauses[name].append(longest_ms([at for _, at in client.done], began, ended))
    finally:
        for client in clients.values():
            client.stopped = True
        for thread in threads:
            thread.join()
    return {
        "restarts": restarts,
        "took_s": {"median": round(statistics.median(took), 1), "max": round(max(took), 1)},
        **{
            f"longest_{name}_pause_ms": {
                "median": round(statistics.median(some), 1),
                "max": round(max(some), 1),
            }
            for name, some in pauses.items()
        },
        **{
            f"{name}s": {"answered": len(client.done), "failed": len(client.failures)}
            for name, client in clients.items()
        },
        "failures": sorted({failure for client in clients.values() for failure in client.failures})[:5],
    }


def longest_ms(answered: list[float], began: float, ended: float) -> float:
    """The longest time between two neighbours of `answered` (ordered moments) that touches began..ended."""
    gaps = [after - at for at, after in itertools.pairwise(answered) if after >= began and at <= ended]
    return max(gaps, default=0.0) * 1000


def main() -> None:
    """Print the figures as JSON."""
    parser = argparse.ArgumentParser(description="What clients notice of rolling restarts.")
    parser.add_argument("--restarts", type=int, default=5)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="chroma-rolling-") as folder:
        found = measure(Path(folder), asked.restarts)
    sys.stdout.write(orjson.dumps(found, option=orjson.OPT_INDENT_2).decode() + "\n")


if __name__ == "__main__":
    main()
