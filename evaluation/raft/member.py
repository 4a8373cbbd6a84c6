"""One raft node as a process of its own: commands as JSON lines on stdin, answers on stdout."""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cluster.errors import ClusterError
from cluster.raft.raft import RaftNode
from cluster.raft.settings import RaftSettings
from cluster.raft.tls import Tls
from evaluation.raft.load import Done, Load, drive

if TYPE_CHECKING:
    from concurrent.futures import Future

    from cluster.raft.interface import Position


def answer(node: RaftNode, command: dict[str, Any]) -> dict[str, Any]:
    match command["do"]:
        case "status":
            status = node.status()
            return {
                "role": status.role,
                "term": status.term,
                "leader": status.leader,
                "commit": status.commit_index,
                "last": status.last_index,
                "connected": list(status.connected),
                "fault": node.fault,
                "hint": status.hint,
            }
        case "propose":
            futures = [
                node.propose(command["text"].encode().ljust(command.get("size", 1), b"."))
                for _ in range(command.get("count", 1))
            ]
            if not command.get("wait", True):
                return {}
            try:
                return {"index": [future.result(60).index for future in futures][-1]}
            except (ClusterError, TimeoutError) as error:
                return {"error": type(error).__name__}
        case "load":
            return load(node, Load(**command["load"]), command["timeout_s"])
        case "pump":
            pump = threading.Thread(
                target=keep_writing,
                args=(node, command["label"], command["in_flight"], Path(command["acked"])),
                daemon=True,
            )
            pump.start()
            return {}
        case "read":
            try:
                return {"index": node.read_index().result(10)}
            except (ClusterError, TimeoutError) as error:
                return {"error": type(error).__name__}
        case "texts":
            found = node.entries(1, 1 << 40)
            return {"texts": [entry.payload.decode().rstrip(".") for entry in found if entry.payload]}
        case "stop":
            node.stop()
            return {}
        case other:
            raise ValueError(f"unknown command {other!r}")


def load(node: RaftNode, load: Load, timeout_s: float) -> dict[str, Any]:
    payload = os.urandom(load.size_bytes)

    def propose(done: Done) -> None:
        def told(future: Future[Position]) -> None:
            error = future.exception()
            done(None if error is None else type(error).__name__)

        node.propose(payload).add_done_callback(told)

    return dataclasses.asdict(drive(propose, load, timeout_s))


def keep_writing(node: RaftNode, label: str, in_flight: int, acked: Path) -> None:
    """Write `label`-0, `label`-1, ... until one fails; what is acknowledged stands in the file `acked`.

    A line is there as soon as its write is acknowledged, and outlives a kill -9 of this process.
    """
    slots = threading.Semaphore(in_flight)
    has_failed = threading.Event()
    out = os.open(acked, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    for number in itertools.count():
        slots.acquire()
        if has_failed.is_set():
            return
        text = f"{label}-{number}"

        def told(future: Future[Position], text: str = text) -> None:
            if future.exception() is None:
                os.write(out, f"{text}\n".encode())
            else:
                has_failed.set()
            slots.release()

        node.propose(text.encode()).add_done_callback(told)


def main() -> None:
    options = json.loads(sys.argv[1])
    members = {name: (host, port) for name, (host, port) in options["members"].items()}
    node = RaftNode(
        options["id"],
        members,
        ("127.0.0.1", options["port"]),
        Path(options["journal"]),
        "test-cluster",
        options.get("secret", "secret").encode(),
        RaftSettings(**options.get("settings", {})),
        tls=Tls.load(*map(Path, options["tls"])) if "tls" in options else None,
    )
    node.start()
    print("{}", flush=True)
    for line in sys.stdin:
        print(json.dumps(answer(node, json.loads(line))), flush=True)
    node.stop()


if __name__ == "__main__":
    main()
