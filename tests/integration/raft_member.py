"""One raft node as a process of its own: commands as JSON lines on stdin, answers on stdout."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from cluster.errors import ClusterError
from cluster.raft.raft import RaftNode
from cluster.raft.settings import RaftSettings
from cluster.raft.tls import Tls


def answer(node: RaftNode, command: dict[str, Any]) -> dict[str, Any]:
    status = node.status()
    match command["do"]:
        case "status":
            return {
                "role": status.role,
                "term": status.term,
                "leader": status.leader,
                "commit": status.commit_index,
                "last": status.last_index,
                "connected": list(status.connected),
                "fault": node.fault,
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
