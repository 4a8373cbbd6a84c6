"""What it takes to fill a node that lost its disk: `python -m evaluation.costs.snapshots`.

A cluster of three nodes on this machine, whose log is kept so briefly that it does not reach back. Two
stock clients of its balancer, one reads and one writes, without pause. A follower is killed with SIGKILL and
started again by `chroma-cluster up`, first as it was, then, some times in a row, with its directory removed.
Told are, in seconds, until `up` says that it serves again; of each fill the size of the snapshot, for how
long the donor's applier stood still for it (as its log says), and the longest time between two answered
turns of each client; how many requests failed; and, in seconds, a plain copy of a node's state on the same
disk.
"""

from __future__ import annotations

import argparse
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any, Final

import chromadb
import numpy as np
import orjson

from evaluation.costs.engine_deaths import Client
from evaluation.costs.rolling_restart import longest_ms
from evaluation.processes import free_port
from wire.calls import ask
from wire.prover import Prover

_COMMAND: Final = (sys.executable, "-m", "cluster")
_BATCH: Final = 500
_DEADLINE_S: Final = 120.0
#: So little of the log is kept that one fill of a collection is beyond it.
_KEPT: Final = {
    "CHROMA_CLUSTER_JOURNAL_BUDGET_BYTES": str(4 * 1024 * 1024),
    "CHROMA_CLUSTER_LOG_RETENTION_BYTES": str(4 * 1024 * 1024),
}
_TAKEN: Final = re.compile(
    r"snapshot (\S+): (\d+) files, (\d+) bytes; the applier stood still for (\d+) ms$", re.MULTILINE
)


class Drill:
    """A cluster in `folder` with `records` vectors in one collection, its log compacted."""

    def __init__(self, folder: Path, records: int, dimension: int) -> None:
        self._folder = folder
        self._port = free_port()
        self._vectors = np.random.default_rng(0).standard_normal((records, dimension)).astype(np.float32)

    def run(self, fills: int) -> dict[str, Any]:
        """The figures of so many fills."""
        self._up()
        try:
            collection = self._collection(create=True)
            for start in range(0, len(self._vectors), _BATCH):
                some = self._vectors[start : start + _BATCH]
                ids = [f"r{number}" for number in range(start, start + len(some))]
                collection.add(ids=ids, embeddings=some, documents=[f"document {name}" for name in ids])
            self._compact(collection)
            return {
                "records": len(self._vectors),
                "dimension": self._vectors.shape[1],
                **self._fills(fills),
                "copy_by_hand": self._copy_by_hand(),
            }
        finally:
            down = [*_COMMAND, "down", "--data", str(self._folder)]
            subprocess.run(down, check=True, timeout=120, stdout=subprocess.DEVNULL)

    def _fills(self, fills: int) -> dict[str, Any]:
        theirs, collection = self._collection(), self._collection()
        one = self._vectors[:1]
        clients = {
            "read": Client(lambda: theirs.get(ids=["r7"])),
            "write": Client(lambda: collection.upsert(ids=["x"], embeddings=one)),
        }
        threads = [threading.Thread(target=client.run) for client in clients.values()]
        for thread in threads:
            thread.start()
        try:
            restart = self._again(clients, wiped=False)
            found = [self._again(clients, wiped=True) for _ in range(fills)]
        finally:
            for client in clients.values():
                client.stopped = True
            for thread in threads:
                thread.join()
        return {
            "restart_without_a_loss": restart,
            "fills": found,
            "fill_s": round(statistics.median(each["took_s"] for each in found), 1),
            **{
                f"{name}s": {"answered": len(client.done), "failed": len(client.failures)}
                for name, client in clients.items()
            },
            "failures": sorted({failure for client in clients.values() for failure in client.failures})[:5],
        }

    def _again(self, clients: dict[str, Client], *, wiped: bool) -> dict[str, Any]:
        """Kill a follower, take its directory away if it is to be `wiped`, and have it started."""
        victim = next(node for node in self._status()["nodes"] if node["role"] != "leader")
        ends = {log: log.stat().st_size for log in (self._folder / "logs").glob("node-*.log")}
        killed = time.monotonic()
        os.kill(int(victim["pid"]), signal.SIGKILL)
        self._wait("its end", lambda: not self._answers(victim["url"]))
        if wiped:
            # Not removed: its engine may live a moment longer and write on.
            (self._folder / victim["id"]).rename(self._folder.parent / f"lost-{killed}")
        began = time.monotonic()
        self._up()
        ended = time.monotonic()
        pauses: dict[str, float] = {}
        for name, client in clients.items():
            client.wait_ms(ended)
            # From the kill on: what the death costs is part of it.
            pauses[f"longest_{name}_pause_ms"] = round(
                longest_ms([at for _, at in client.done], killed, ended), 1
            )
        told: dict[str, Any] = {"node": victim["id"], "took_s": round(ended - began, 2), **pauses}
        if wiped:
            told["snapshots"] = [
                {"donor": log.stem, **each}
                for log, end in sorted(ends.items())
                for each in taken(log.read_bytes()[end:].decode(errors="replace"))
            ]
        return told

    def _copy_by_hand(self) -> dict[str, Any]:
        """What a person would copy, while nobody writes: Chroma's directory and the state file."""
        donor = self._folder / self._leader()
        to = self._folder.parent / "copy"
        to.mkdir()
        began = time.monotonic()
        sources = [str(donor / "chroma"), *map(str, donor.glob("state.sqlite*"))]
        subprocess.run(["cp", "-r", *sources, str(to)], check=True)
        copied = time.monotonic()
        subprocess.run(["sync", "-f", str(to)], check=True)
        synced = time.monotonic()
        size = sum(path.stat().st_size for path in to.rglob("*") if path.is_file())
        return {"bytes": size, "cp_s": round(copied - began, 3), "and_sync_s": round(synced - began, 3)}

    def _compact(self, collection: Any) -> None:
        """Until no node has the first entries any more; what is added for that changes one record only."""
        one = self._vectors[:1]

        def compacted() -> bool:
            collection.upsert(ids=["padding"], embeddings=one, documents=["x" * 200_000])
            return all(self._said(node["url"])["first_index"] > 1 for node in self._status()["nodes"])

        self._wait("the logs to be compacted", compacted)

    def _collection(self, *, create: bool = False) -> Any:
        client = chromadb.HttpClient(host="127.0.0.1", port=self._port)
        made = client.create_collection if create else client.get_collection
        return made("records", embedding_function=None)

    def _up(self) -> None:
        command = [*_COMMAND, "up", "--detach", "--data", str(self._folder), "--port", str(self._port)]
        command += ["--timeout", "600"]
        subprocess.run(command, check=True, timeout=660, stdout=subprocess.DEVNULL, env=os.environ | _KEPT)

    def _status(self) -> dict[str, Any]:
        command = [*_COMMAND, "status", "--data", str(self._folder), "--json"]
        return orjson.loads(subprocess.run(command, capture_output=True, timeout=60, check=False).stdout)

    def _leader(self) -> str:
        return str(self._status()["leader"])

    def _said(self, url: str) -> dict[str, Any]:
        secret = orjson.loads((self._folder / "cluster.json").read_bytes())["secret"]
        return orjson.loads(ask(Prover(secret.encode()), url, "/cluster/status", timeout_s=10))

    def _answers(self, url: str) -> bool:
        try:
            self._said(url)
        except OSError:
            return False
        return True

    @staticmethod
    def _wait(what: str, condition: Any) -> None:
        end = time.monotonic() + _DEADLINE_S
        while not condition():
            if time.monotonic() > end:
                raise TimeoutError(f"waited {_DEADLINE_S} s for {what}")
            time.sleep(0.05)


def taken(log: str) -> list[dict[str, Any]]:
    """The snapshots that a node took, as its log says: bytes, and for how long its applier stood still."""
    return [{"bytes": int(size), "donor_pause_ms": int(pause)} for _, _, size, pause in _TAKEN.findall(log)]


def main() -> None:
    """Print the figures as JSON."""
    parser = argparse.ArgumentParser(description="What it takes to fill a node that lost its disk.")
    parser.add_argument("--records", type=int, default=10_000)
    parser.add_argument("--dimension", type=int, default=384)
    parser.add_argument("--fills", type=int, default=3)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="chroma-snapshots-") as folder:
        found = Drill(Path(folder) / "data", asked.records, asked.dimension).run(asked.fills)
    sys.stdout.write(orjson.dumps(found, option=orjson.OPT_INDENT_2).decode() + "\n")


if __name__ == "__main__":
    main()
