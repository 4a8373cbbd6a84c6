"""One node of unmodified pysyncobj as a process, to measure beside this project's: JSON lines in and out.

Its own file journal (which it does not fsync), its own TCP and pickle, its own settings but one: a
command is sent at once (`appendEntriesUseBatch`), not at the next tick up to 50 ms later.
"""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from typing import Any

from pysyncobj import FAIL_REASON, SyncObj, SyncObjConf, replicated

from evaluation.raft.load import Done, Load, drive

REASONS: dict[int, str] = {value: name for name, value in vars(FAIL_REASON).items() if name.isupper()}


class Log(SyncObj):
    """Replicates payloads and keeps none of them."""

    @replicated
    def put(self, payload: bytes) -> None:
        """Applied on every node: nothing to do."""


def answer(log: Log, command: dict[str, Any]) -> dict[str, Any]:
    match command["do"]:
        case "status":
            status = log.getStatus()
            return {
                "role": "leader" if str(status["leader"]) == str(status["self"]) else "follower",
                "term": status["raft_term"],
                "leader": str(status["leader"]),
                "commit": status["commit_idx"],
                "last": status["last_applied"],
            }
        case "load":
            load = Load(**command["load"])
            payload = os.urandom(load.size_bytes)

            def propose(done: Done) -> None:
                def told(_: None, reason: int) -> None:
                    done(None if reason == FAIL_REASON.SUCCESS else REASONS[reason])

                log.put(payload, callback=told)

            return dataclasses.asdict(drive(propose, load, command["timeout_s"]))
        case other:
            raise ValueError(f"unknown command {other!r}")


def main() -> None:
    options = json.loads(sys.argv[1])
    addresses = {name: f"{host}:{port}" for name, (host, port) in options["members"].items()}
    own = addresses.pop(options["id"])
    conf = SyncObjConf(appendEntriesUseBatch=False, journalFile=options["journal"])
    log = Log(own, addresses.values(), conf)
    print("{}", flush=True)
    for line in sys.stdin:
        print(json.dumps(answer(log, json.loads(line))), flush=True)
    log.destroy()


if __name__ == "__main__":
    main()
