"""The leader of three nodes fails while it has writes under way: how long until the next one is committed."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from evaluation.raft.cluster import RaftCluster, eventually
from evaluation.raft.figures import Failover, lost
from evaluation.raft.links import Links

if TYPE_CHECKING:
    import random

    from evaluation.raft.figures import Failure

PUMPED = 16


def fail_over(failure: Failure, trials: int, toxiproxy: Path, rng: random.Random) -> Failover:
    folder = Path(tempfile.mkdtemp(prefix="raft-bench-"))
    cluster = RaftCluster(folder)
    try:
        with ExitStack() as stack:
            links = None
            if failure == "black-hole":
                links = stack.enter_context(Links(toxiproxy, cluster, folder / "toxiproxy.log"))
            stack.callback(cluster.close)
            cluster.start()
            pauses_ms = [
                one_failover(cluster, failure, links, f"{number}", folder / "acked", rng)
                for number in range(trials)
            ]
            cluster.agree()
            acknowledged = (folder / "acked").read_text().split()
            missing = lost(acknowledged, [cluster.texts(node_id) for node_id in cluster.ids])
            return Failover(pauses_ms, len(acknowledged), len(missing), os.getloadavg()[0])
    finally:
        shutil.rmtree(folder)


def one_failover(
    cluster: RaftCluster, failure: Failure, links: Links | None, label: str, acked: Path, rng: random.Random
) -> float:
    """Let the leader fail under writes; milliseconds until the next leader has committed one."""

    def are_linked() -> bool:
        return all(len(cluster.status(node_id)["connected"]) == 2 for node_id in cluster.ids)

    def pumped() -> bool:
        return acked.exists() and acked.stat().st_size > size

    eventually(are_linked, 30, "all nodes are connected")
    leader = cluster.leader()
    rest = [node_id for node_id in cluster.ids if node_id != leader]
    size = acked.stat().st_size if acked.exists() else 0
    cluster.members[leader].ask("pump", label=label, in_flight=PUMPED, acked=str(acked))
    eventually(pumped, 30, "acknowledged writes")
    # The failure meets any phase of heartbeats and fsyncs.
    time.sleep(rng.uniform(0.1, 0.4))
    began = time.perf_counter()
    match failure:
        case "kill":
            cluster.kill(leader)
        case "freeze":
            cluster.freeze(leader)
        case "black-hole":
            assert links is not None
            links.cut(leader)
    cluster.write(f"{label}-after", among=rest, every_s=0.002)
    pause_ms = (time.perf_counter() - began) * 1000
    with acked.open("a") as out:
        out.write(f"{label}-after\n")
    match failure:
        case "kill":
            cluster.start(leader)
        case "freeze":
            cluster.thaw(leader)
        case "black-hole":
            assert links is not None
            links.heal(leader)
    cluster.agree()
    return pause_ms
