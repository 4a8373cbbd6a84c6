"""Kills the leader while texts are being written."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from cluster.cli.demo.local import DemoError, Node, kill
from cluster.cli.demo.writing import write_all

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cluster.cli.demo.corpus import Text
    from cluster.cli.demo.ledger import Ledger
    from cluster.cli.demo.local import LocalCluster
    from cluster.cli.demo.show import Show
    from cluster.client import TextCollection

KILL_AFTER_SHARE: Final = 0.3
#: Small writes and several writers, so that a pause is seen to a few milliseconds.
BUSY_BATCH, BUSY_WRITERS = 4, 4


@dataclass(frozen=True, slots=True)
class Killed:
    """Who was killed, and when (monotonic seconds)."""

    node: Node
    at: float


def write_through_a_kill(
    show: Show, cluster: LocalCluster, collection: TextCollection, texts: Sequence[Text], ledger: Ledger
) -> Killed:
    """Write `texts`, and kill whoever leads once a part of them is acknowledged.

    Raises:
        DemoError: no node said that it leads, or a write was not taken.
    """
    nodes = cluster.nodes()
    kill_after = max(1, int(len(texts) * KILL_AFTER_SHARE))
    killed: list[Killed] = []
    written = 0
    with show.progress(len(texts)) as bar:

        def progress(count: int) -> None:
            nonlocal written
            written += count
            bar(count)
            if written >= kill_after and not killed:
                # The pids are known; who of them leads is asked at the last moment.
                leader = next((node for node in nodes if cluster.role_of(node.url) == "leader"), None)
                if leader is None or leader.pid is None:
                    return
                killed.append(Killed(leader, time.monotonic()))
                kill(leader.pid)
                bar.say(f"kill -9 {leader.pid}: {leader.id}, the leader, is gone")

        write_all(collection, texts, ledger, batch_size=BUSY_BATCH, writers=BUSY_WRITERS, progress=progress)
    if not killed:
        raise DemoError("No node said that it leads, so none was killed. Use more --texts.")
    return killed[0]
