"""What a planned change of leadership costs those who write: `python -m evaluation.costs.hand_over`.

A cluster of three nodes on this machine, a stock client of its balancer that writes without pause, and
`chroma-cluster members transfer`, some times in a row. Told are, in milliseconds, the longest time between
two answered writes around each hand-over, the longest in a second before it, and how many writes failed.
"""

from __future__ import annotations

import argparse
import json
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
from evaluation.costs.rolling_restart import longest_ms
from evaluation.processes import free_port

_COMMAND: Final = (sys.executable, "-m", "cluster")
_CALM_S: Final = 1.0
#: A client that has just been held up answers within this time after the command has ended.
_AFTER_S: Final = 0.5


def measure(folder: Path, transfers: int) -> dict[str, Any]:
    """The figures of so many hand-overs."""
    port = free_port()
    data = ("--data", str(folder))
    up = [*_COMMAND, "up", "--detach", *data, "--port", str(port)]
    subprocess.run(up, check=True, timeout=180, stdout=subprocess.DEVNULL)
    try:
        collection = chromadb.HttpClient(host="127.0.0.1", port=port).get_or_create_collection("hand-over")
        return _measure(
            data, Client(lambda: collection.upsert(ids=["x"], embeddings=[[1.0, 2.0]])), transfers
        )
    finally:
        subprocess.run([*_COMMAND, "down", *data], check=True, timeout=90, stdout=subprocess.DEVNULL)


def _measure(data: tuple[str, ...], writer: Client, transfers: int) -> dict[str, Any]:
    thread = threading.Thread(target=writer.run)
    thread.start()
    calm: list[float] = []
    pauses: list[float] = []
    try:
        for turn in range(transfers):
            to = _followers(data)[turn % 2]
            quiet = time.monotonic()
            time.sleep(_CALM_S)
            began = time.monotonic()
            command = [*_COMMAND, "members", "transfer", to, *data]
            subprocess.run(command, check=True, timeout=60, stdout=subprocess.DEVNULL)
            time.sleep(_AFTER_S)
            answered = [at for _, at in writer.done]
            calm.append(longest_ms(answered, quiet, began))
            pauses.append(longest_ms(answered, began, time.monotonic()))
    finally:
        writer.stopped = True
        thread.join()
    return {
        "transfers": transfers,
        "longest_write_pause_ms": _told(pauses),
        "longest_without_ms": _told(calm),
        "writes": {"answered": len(writer.done), "failed": len(writer.failures)},
        "failures": sorted(set(writer.failures))[:5],
    }


def _followers(data: tuple[str, ...]) -> list[str]:
    command = [*_COMMAND, "members", "list", *data, "--json"]
    listing = subprocess.run(command, check=True, timeout=60, capture_output=True).stdout
    return [str(member["id"]) for member in json.loads(listing)["members"] if not member["leads"]]


def _told(some: list[float]) -> dict[str, float]:
    return {"median": round(statistics.median(some), 1), "max": round(max(some), 1)}


def main() -> None:
    """Print the figures as JSON."""
    parser = argparse.ArgumentParser(description="What clients notice of a hand-over of leadership.")
    parser.add_argument("--transfers", type=int, default=10)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="chroma-hand-over-") as folder:
        found = measure(Path(folder), asked.transfers)
    sys.stdout.write(orjson.dumps(found, option=orjson.OPT_INDENT_2).decode() + "\n")


if __name__ == "__main__":
    main()
