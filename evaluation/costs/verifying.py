"""What a verification costs those who read meanwhile: `python -m evaluation.costs.verifying`.

A cluster of three nodes on this machine with one collection. Clients of its balancer ask for neighbours
without pause. Phases without and with a verification take turns, so that both meet the same machine. Told are
the records that each node digests in a second, and of both kinds of phases the median and the 99th percentile
of the reads, in milliseconds, with their ratios.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any, Final

import chromadb
import numpy as np

from evaluation.processes import free_port

_COMMAND: Final = (sys.executable, "-m", "cluster")
_BATCH: Final = 500


class Reader:
    """Asks for neighbours over and over; remembers when, and how long it took."""

    def __init__(self, port: int, vectors: Any) -> None:
        self.times: list[tuple[float, float]] = []
        self.failures: list[str] = []
        self.stopped = False
        self._vectors = vectors
        client = chromadb.HttpClient(port=port)
        self._collection = client.get_collection("records", embedding_function=None)

    def run(self) -> None:
        """Until `stopped`."""
        turn = 0
        while not self.stopped:
            began = time.monotonic()
            turn += 1
            try:
                self._collection.query(
                    query_embeddings=self._vectors[turn % len(self._vectors)], n_results=10
                )
            except Exception as error:  # whatever a stock client raises is what is to be counted
                self.failures.append(str(error)[:200])
            else:
                self.times.append((began, time.monotonic() - began))


def measure(folder: Path, records: int, dimension: int, phases: int, rate: int) -> dict[str, Any]:
    """The figures of so many phases of either kind."""
    port = free_port()
    data = ("--data", str(folder))
    settings = os.environ | {"CHROMA_CLUSTER_VERIFY_RECORDS_PER_S": str(rate)}
    up = [*_COMMAND, "up", "--detach", *data, "--port", str(port)]
    subprocess.run(up, check=True, timeout=180, stdout=subprocess.DEVNULL, env=settings)
    try:
        vectors = np.random.default_rng(0).standard_normal((records, dimension)).astype(np.float32)
        collection: Any = chromadb.HttpClient(port=port).create_collection("records", embedding_function=None)
        for start in range(0, records, _BATCH):
            ids = [f"r{number}" for number in range(start, min(start + _BATCH, records))]
            texts = [f"document {name}" for name in ids]
            collection.add(ids=ids, embeddings=vectors[start : start + _BATCH], documents=texts)
        return _measure(port, folder, vectors, phases)
    finally:
        subprocess.run([*_COMMAND, "down", *data], check=True, timeout=90, stdout=subprocess.DEVNULL)


def _measure(port: int, folder: Path, vectors: Any, phases: int) -> dict[str, Any]:
    readers = [Reader(port, vectors[:200]) for _ in range(2)]
    threads = [threading.Thread(target=reader.run) for reader in readers]
    for thread in threads:
        thread.start()
    spans: dict[str, list[tuple[float, float]]] = {"without": [], "with": []}
    results: list[dict[str, Any]] = []
    try:
        time.sleep(2.0)
        for _ in range(phases):
            began = time.monotonic()
            results.append(_verify(folder))
            middle = time.monotonic()
            spans["with"].append((began, middle))
            time.sleep(middle - began)
            spans["without"].append((middle, time.monotonic()))
    finally:
        for reader in readers:
            reader.stopped = True
        for thread in threads:
            thread.join()
    figures = {name: _figures(readers, found) for name, found in spans.items()}
    return {
        "standing": [result["standing"] for result in results],
        "seconds": [result["seconds"] for result in results],
        "records_per_s": [round(result["records"] / result["seconds"]) for result in results],
        **figures,
        "ratio_p50": round(figures["with"]["p50_ms"] / figures["without"]["p50_ms"], 2),
        "ratio_p99": round(figures["with"]["p99_ms"] / figures["without"]["p99_ms"], 2),
        "failures": [failure for reader in readers for failure in reader.failures],
    }


def _verify(folder: Path) -> dict[str, Any]:
    command = [*_COMMAND, "verify", "--data", str(folder), "--json"]
    done = subprocess.run(command, check=False, timeout=600, capture_output=True)
    return json.loads(done.stdout)


def _figures(readers: list[Reader], spans: list[tuple[float, float]]) -> dict[str, float]:
    times = [
        took * 1000
        for reader in readers
        for began, took in reader.times
        if any(start <= began < end for start, end in spans)
    ]
    return {
        "reads": len(times),
        "p50_ms": round(float(np.percentile(times, 50)), 2),
        "p99_ms": round(float(np.percentile(times, 99)), 2),
    }


def main() -> None:
    """Print the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--records", type=int, default=20_000)
    parser.add_argument("--dimension", type=int, default=384)
    parser.add_argument("--phases", type=int, default=3)
    parser.add_argument("--rate", type=int, default=2_000, help="verify_records_per_s of the nodes")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="verifying-") as folder:
        found = measure(Path(folder) / "data", asked.records, asked.dimension, asked.phases, asked.rate)
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
