"""How long clients wait after Chroma's process was killed: `python -m evaluation.costs.engine_deaths`.

A cluster of three nodes on this machine. Two stock clients of its balancer, one reads and one writes, without
pause, while the engines of the nodes are killed with SIGKILL, one after the other. Told are in milliseconds
the times from a kill to the next answers of each client that it asked for after the kill, and to the next
read that the killed node itself answers; and the failures that the clients saw.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import chromadb
import orjson

from evaluation.processes import free_port
from wire.calls import ask
from wire.prover import Prover

if TYPE_CHECKING:
    from collections.abc import Callable

_COMMAND: Final = (sys.executable, "-m", "cluster")
_PLACE: Final = "/api/v2/tenants/default_tenant/databases/default_database/collections"
_DEADLINE_S: Final = 60.0
_PAUSE_S: Final = 0.002


@dataclass
class Client:
    """Does one thing over and over; remembers when each answered turn began and ended, and each failure."""

    turn: Callable[[], object]
    done: list[tuple[float, float]] = field(default_factory=list[tuple[float, float]])
    failures: list[str] = field(default_factory=list[str])
    stopped: bool = False

    def run(self) -> None:
        while not self.stopped:
            began = time.monotonic()
            try:
                self.turn()
            except Exception as error:  # whatever a stock client raises is what is to be counted
                self.failures.append(str(error)[:200])
            else:
                self.done.append((began, time.monotonic()))
            time.sleep(_PAUSE_S)

    def wait_ms(self, moment: float) -> float:
        """From `moment` to the end of the first answered turn that began after it."""
        end = time.monotonic() + _DEADLINE_S
        while time.monotonic() < end:
            later = [at for began, at in self.done[-200:] if began > moment]
            if later:
                return (later[0] - moment) * 1000
            time.sleep(_PAUSE_S)
        raise TimeoutError(f"nothing was answered within {_DEADLINE_S} s")


def measure(folder: Path, kills: int, pause_s: float) -> dict[str, Any]:
    """The figures of `kills` deaths, `pause_s` seconds apart."""
    port = free_port()
    data = ("--data", str(folder))
    up = [*_COMMAND, "up", "--detach", *data, "--port", str(port)]
    subprocess.run(up, check=True, timeout=180, stdout=subprocess.DEVNULL)
    try:
        secret = orjson.loads((folder / "cluster.json").read_bytes())["secret"]
        return _measure(f"http://127.0.0.1:{port}", port, Prover(secret.encode()), kills, pause_s)
    finally:
        subprocess.run([*_COMMAND, "down", *data], check=True, timeout=90, stdout=subprocess.DEVNULL)


def _measure(url: str, port: int, prover: Prover, kills: int, pause_s: float) -> dict[str, Any]:
    collection = chromadb.HttpClient(host="127.0.0.1", port=port).get_or_create_collection("deaths")
    theirs = chromadb.HttpClient(host="127.0.0.1", port=port).get_collection("deaths")
    ids = [str(number) for number in range(1000)]
    collection.upsert(ids=ids, embeddings=[[float(number), 1.0] for number in range(1000)])
    reader = Client(lambda: theirs.get(ids=["7"]))
    writer = Client(lambda: collection.upsert(ids=["x"], embeddings=[[1.0, 2.0]]))
    threads = [threading.Thread(target=client.run) for client in (reader, writer)]
    for thread in threads:
        thread.start()
    found: dict[str, list[float]] = {"read": [], "write": [], "read_at_the_killed_node": []}
    try:
        for number in range(kills):
            nodes = _status(prover, url)["nodes"]
            victim = nodes[number % len(nodes)]["url"]
            pid = _status(prover, victim)["engine"]["pid"]
            os.kill(pid, signal.SIGKILL)
            killed = time.monotonic()
            again_ms = _wait_node_ms(prover, victim, str(collection.id), pid, killed)
            found["read_at_the_killed_node"].append(again_ms)
            found["read"].append(reader.wait_ms(killed))
            found["write"].append(writer.wait_ms(killed))
            time.sleep(max(0.0, pause_s - (time.monotonic() - killed)))
    finally:
        for client in (reader, writer):
            client.stopped = True
        for thread in threads:
            thread.join()
    return {
        "kills": kills,
        **{
            name: {"median_ms": round(statistics.median(some), 1), "max_ms": round(max(some), 1)}
            for name, some in found.items()
        },
        "reads": {"answered": len(reader.done), "failed": len(reader.failures)},
        "writes": {"answered": len(writer.done), "failed": len(writer.failures)},
        "failures": sorted({*reader.failures, *writer.failures})[:5],
    }


def _wait_node_ms(prover: Prover, url: str, collection_id: str, pid: int, killed: float) -> float:
    """Until this very node answers a read from another process than `pid`."""
    end = killed + _DEADLINE_S
    count, eventual = f"{_PLACE}/{collection_id}/count", {"X-Chroma-Consistency": "eventual"}
    while time.monotonic() < end:
        with contextlib.suppress(OSError):
            ask(prover, url, count, headers=eventual, timeout_s=_DEADLINE_S)
            at = time.monotonic()
            if _status(prover, url)["engine"]["pid"] != pid:
                return (at - killed) * 1000
        time.sleep(_PAUSE_S)
    raise TimeoutError(f"{url} did not answer within {_DEADLINE_S} s")


def _status(prover: Prover, url: str) -> dict[str, Any]:
    return orjson.loads(ask(prover, url, "/cluster/status", timeout_s=10))


def main() -> None:
    """Print the figures as JSON."""
    parser = argparse.ArgumentParser(description="Times from the death of an engine to the next answers.")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument(
        "--pause-s", type=float, default=11.0, help="between two kills; back-off ends after 30"
    )
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="chroma-engine-deaths-") as folder:
        found = measure(Path(folder), asked.kills, asked.pause_s)
    sys.stdout.write(orjson.dumps(found, option=orjson.OPT_INDENT_2).decode() + "\n")


if __name__ == "__main__":
    main()
