"""Nodes of a cluster on this machine that come and go: its plan and its processes follow."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cluster.cli.layout import DataDirectory
    from cluster.cli.plan import ClusterPlan, NodePlan


def new_node(directory: DataDirectory, plan: ClusterPlan, node_id: str | None) -> NodePlan:
    """The plan of a node that shall be added; one that is in the plan already is begun and not finished."""
    from cluster.cli.plan import added_node
    from cluster.cli.ports import choose_ports, port_is_free, shuffled_ports

    ports = choose_ports(2, shuffled_ports(random.Random()), port_is_free)
    folders = [path.name for path in directory.root.glob("node-*")]
    return added_node(plan, node_id, ports, folders)


def start(directory: DataDirectory, plan: ClusterPlan, node: NodePlan) -> None:
    """Put a node into the plan, and start it if it does not run."""
    from cluster.cli.locks import exclusive
    from cluster.cli.supervisor import Supervisor

    with exclusive(directory):
        after = plan.with_node(node)
        supervisor = Supervisor(directory, after)
        if node.id in supervisor.running():
            return
        supervisor.check([node.id])
        directory.write_plan(after)
        supervisor.start([node.id])


def forget(directory: DataDirectory, plan: ClusterPlan, node_id: str) -> None:
    """Stop a node that is no member any more, and take it out of the plan; its directory stays."""
    from cluster.cli.locks import exclusive
    from cluster.cli.supervisor import Supervisor

    with exclusive(directory):
        if node_id in [node.id for node in plan.nodes]:
            Supervisor(directory, plan).stop([node_id])
            directory.write_plan(plan.without_node(node_id))
