"""`chroma-cluster members recover`: when a majority of the disks is lost for good, one node goes on."""

from __future__ import annotations

import os
import uuid
from typing import TYPE_CHECKING

from cluster.cli.layout import DataDirectory
from cluster.cli.locks import lock_holder, lock_is_held
from cluster.cli.plan import ClusterPlan
from cluster.errors import Fault
from cluster.raft.recovery import Remains, refound, remains

if TYPE_CHECKING:
    from pathlib import Path

_JOURNAL = "raft.sqlite"


def examine(node_directory: Path) -> Remains:
    """What there is to recover from; nothing is changed.

    Raises:
        Fault: a process uses the directory, or its journal cannot be read.
    """
    lock = node_directory / "LOCK"
    if lock.exists() and lock_is_held(lock):
        raise Fault(
            f"{node_directory} is in use by process {lock_holder(lock)}. Nothing was changed. A cluster is "
            "recovered from a node that is stopped; stop all that are left first."
        )
    return remains(node_directory / _JOURNAL)


def words(found: Remains) -> str:
    """What is kept and what may be lost, for people."""
    others = [name for name in found.configuration.ids if name != found.node_id]
    return (
        f"{found.node_id} of cluster {found.cluster_id} holds the log up to entry {found.last} (term "
        f"{found.term}); it knows of {found.committed} that they were committed.\n"
        f"Kept: all entries up to {found.last}, also those that were never acknowledged.\n"
        f"Lost: whatever only the others ({', '.join(others) or 'none'}) hold, also writes that were "
        "acknowledged. If another node that is left has a longer log, recover from that one.\n"
        "The result is a new cluster of one node. Nodes of the old one never come back into it: add new ones."
    )


def recover(node_directory: Path) -> str:
    """Do it; the new cluster's id."""
    examine(node_directory)
    cluster_id = str(uuid.uuid4())
    found = refound(node_directory / _JOURNAL, cluster_id, os.urandom(8).hex())
    directory = DataDirectory(node_directory.parent)
    plan = directory.read_plan() if directory.plan_file.exists() else None
    if plan is not None and found.node_id in [node.id for node in plan.nodes]:
        directory.write_plan(alone(plan, found.node_id, cluster_id))
    return cluster_id


def alone(plan: ClusterPlan, node_id: str, cluster_id: str) -> ClusterPlan:
    """The plan of a cluster of this one node."""
    node = plan.node(node_id)
    return ClusterPlan(cluster_id, plan.secret, plan.port, (node,))
