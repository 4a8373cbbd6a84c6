"""An overview as a person reads it: a table of nodes, the balancer, and what changed since the last look."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from rich.console import Group
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from rich.console import RenderableType

    from cluster.cli.overview import BalancerView, NodeView, Overview

_ROLE_STYLES: Final = {
    "leader": "bold green",
    "follower": "cyan",
    "candidate": "yellow",
    "stopped": "yellow",
    "unknown": "yellow",
    "down": "bold red",
}


def render(overview: Overview) -> RenderableType:
    """The whole cluster: headline, nodes, balancer."""
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, header_style="dim")
    for name in ("node", "role", "leader"):
        table.add_column(name, no_wrap=True)
    for name in ("term", "last", "commit", "applied", "lag", "documents"):
        table.add_column(name, justify="right", no_wrap=True)
    for name in ("health", "pid"):
        table.add_column(name, no_wrap=True)
    for node in overview.nodes:
        table.add_row(*_row(node))
    reasons = [
        Text(" ".join(filter(None, (f"{node.id}: {node.reason}", node.remedy))), style=_reason_style(node))
        for node in overview.nodes
        if node.reason is not None
    ]
    disks = [
        Text(f"{node.id}: {said}", style="yellow")
        for node in overview.nodes
        if node.disk is not None and (said := node.disk.get("writes_refused") or node.disk.get("warning"))
    ]
    levels = [Text(said, style="yellow") for said in _held_back(overview)]
    notes = (*reasons, *disks, *levels)
    return Group(_headline(overview), Text(), table, *notes, Text(), _balancer(overview.balancer))


def _held_back(overview: Overview) -> list[str]:
    """Who keeps the cluster from rising to the command level that others understand, by its leader."""
    levels = [node.level for node in overview.nodes if node.id == overview.leader and node.level]
    return [
        f"command level {level['in_force']}; it does not rise because of {member}: {why}"
        for level in levels
        for member, why in level["waits_for"].items()
    ]


def _headline(overview: Overview) -> Text:
    line = Text("cluster ", style="bold").append(overview.cluster, style="dim").append("  ")
    if overview.leader:
        return line.append("leader ").append(overview.leader, style="bold green")
    return line.append("no leader: writes wait", style="bold red")


def _row(node: NodeView) -> list[Text]:
    numbers = [node.term, node.last_index, node.commit_index, node.applied_index, node.lag, node.documents]
    return [
        Text(node.id, style="bold"),
        Text(node.role, style=_ROLE_STYLES.get(node.role, "")),
        Text(node.leader or "-", style="" if node.leader else "dim"),
        *(Text("-", style="dim") if number is None else Text(f"{number:,}") for number in numbers),
        _health(node),
        Text("-" if node.pid is None else str(node.pid), style="dim"),
    ]


def _health(node: NodeView) -> Text:
    if node.healthy and node.ready:
        return Text("healthy", style="green")
    return Text("not ready", style="yellow") if node.healthy else Text("no", style="bold red")


def _reason_style(node: NodeView) -> str:
    return "yellow" if node.healthy else "red"


def _balancer(balancer: BalancerView) -> Text:
    line = Text("balancer ", style="bold").append(balancer.url, style="bold underline").append("  ")
    if balancer.healthy:
        line.append("healthy", style="green")
    else:
        line.append(f"not healthy: {balancer.reason}", style="red")
    if balancer.pid is not None:
        line.append(f"  pid {balancer.pid}", style="dim")
    if balancer.nodes:
        used = [name for name, is_used in balancer.nodes.items() if is_used]
        left_out = [name for name, is_used in balancer.nodes.items() if not is_used]
        line.append(f"  writes to {balancer.leader or 'no one yet'}")
        line.append(f", reads from {', '.join(used) or 'no one'}")
        if left_out:
            line.append(f", not to {', '.join(left_out)}", style="yellow")
    for name, why in balancer.not_used.items():
        line.append(f"\n  {name} is passed over: {why}", style="yellow")
    return line


def changes(before: Overview, after: Overview) -> list[str]:
    """What happened between two looks, one sentence each."""
    lines: list[str] = []
    for was, now in zip(before.nodes, after.nodes, strict=True):
        if now.pid is None and was.pid is not None:
            lines.append(f"{now.id} (pid {was.pid}) is down")
        elif now.pid is not None and now.pid != was.pid:
            lines.append(f"{now.id} runs (pid {now.pid})")
        elif was.healthy and not now.healthy:
            lines.append(f"{now.id} is not healthy: {now.reason or 'it gives no reason'}")
        elif now.healthy and not was.healthy:
            lines.append(f"{now.id} is healthy")
    if after.balancer.pid is None and before.balancer.pid is not None:
        lines.append(f"the balancer (pid {before.balancer.pid}) is down")
    elif after.balancer.pid is not None and before.balancer.pid != after.balancer.pid:
        lines.append(f"the balancer runs (pid {after.balancer.pid})")
    if after.leader != before.leader:
        lines.append(f"{after.leader} is the leader" if after.leader else "there is no leader")
    return lines
