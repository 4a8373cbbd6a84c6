"""One picture of a whole cluster: every node and the balancer asked at once, each with one second to answer.

`as_json` of an `Overview` is a stable interface (`status --json`): keys may be added, never changed.
"""

from __future__ import annotations

import http.client
import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any, Final, cast
from urllib.error import URLError

from cluster.cli.plan import BALANCER
from cluster.cli.processes import running
from wire import calls
from wire.prover import Prover

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cluster.cli.layout import DataDirectory
    from cluster.cli.plan import ClusterPlan, NodePlan

ASK_TIMEOUT_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class NodeView:
    """One node as it described itself, or why it did not.

    `role` is leader, follower, candidate or stopped as the node says; `down` if its process does not run;
    `unknown` if the process runs and gives no answer (it starts, hangs or is suspended). Numbers are
    None without an answer.
    """

    id: str
    pid: int | None
    url: str
    raft_address: str
    role: str
    term: int | None
    leader: str | None
    last_index: int | None
    commit_index: int | None
    applied_index: int | None
    lag: int | None
    documents: int | None
    healthy: bool
    reason: str | None
    chroma_path: str
    ready: bool = False
    state: str | None = None
    remedy: str | None = None
    lacks: Mapping[str, int] | None = None
    disk: Mapping[str, Any] | None = None
    filling: Mapping[str, Any] | None = None
    """How far it is with fetching a snapshot."""
    level: Mapping[str, Any] | None = None
    """The command level in force, which ones it understands, and who keeps it from rising."""

    @property
    def is_beyond_waiting(self) -> bool:
        """Whether it says that only an operator can make it ready."""
        return self.state in ("failed", "differs")

    def as_json(self) -> dict[str, Any]:
        """This node in `status --json`."""
        return {name: getattr(self, name) for name in self.__slots__}


@dataclass(frozen=True, slots=True)
class BalancerView:
    """The balancer: `nodes` is which node it sends requests to, by id, where it said so."""

    url: str
    pid: int | None
    healthy: bool
    reason: str | None
    leader: str | None
    nodes: Mapping[str, bool]
    not_used: Mapping[str, str] = field(default_factory=dict[str, str])
    """Why requests go to other nodes, by the id of the node that is left out or asked last."""

    def as_json(self) -> dict[str, Any]:
        """The balancer in `status --json`."""
        own = {name: getattr(self, name) for name in self.__slots__}
        return own | {"nodes": dict(self.nodes), "not_used": dict(self.not_used)}


@dataclass(frozen=True, slots=True)
class Overview:
    """The whole cluster at about one moment. `leader` is who leads the highest term that any node leads."""

    cluster: str
    leader: str | None
    balancer: BalancerView
    nodes: tuple[NodeView, ...]

    @property
    def serving(self) -> bool:
        """Is there a leader, and a balancer to reach it through?"""
        return self.leader is not None and self.balancer.healthy

    @property
    def complete(self) -> bool:
        """Is every member ready besides?"""
        return self.serving and all(node.ready for node in self.nodes)

    def as_json(self) -> dict[str, Any]:
        """What `status --json` prints."""
        return {
            "cluster": self.cluster,
            "leader": self.leader,
            "balancer": self.balancer.as_json(),
            "nodes": [node.as_json() for node in self.nodes],
        }


def look(directory: DataDirectory, plan: ClusterPlan) -> Overview:
    """Ask all nodes and the balancer, in parallel."""
    with ThreadPoolExecutor(max_workers=len(plan.nodes) + 1) as pool:
        balancer = pool.submit(_look_at_balancer, directory, plan)
        asked = [pool.submit(_look_at_node, directory, plan, node) for node in plan.nodes]
        nodes = [question.result() for question in asked]
        return Overview(plan.cluster, leader_of(nodes), balancer.result(), tuple(nodes))


def look_at_node(directory: DataDirectory, plan: ClusterPlan, node_id: str) -> NodeView:
    """Ask one node."""
    return _look_at_node(directory, plan, plan.node(node_id))


def leader_of(nodes: list[NodeView]) -> str | None:
    """Who leads: a cut-off former leader may still think so, the higher term is right."""
    leaders = [node for node in nodes if node.role == "leader" and node.term is not None]
    return max(leaders, key=lambda node: node.term or 0).id if leaders else None


def _look_at_node(directory: DataDirectory, plan: ClusterPlan, node: NodePlan) -> NodeView:
    process = running(directory.pid_file(node.id))
    pid = process.pid if process else None
    answer, reason = ask(node.url, plan.secret)
    return node_view(
        node, plan.cluster, pid, answer, reason, chroma_path=str(directory.chroma_directory(node.id))
    )


def node_view(
    node: NodePlan, cluster: str, pid: int | None, answer: Any, reason: str | None, *, chroma_path: str
) -> NodeView:
    """One node's view from its answer to /cluster/status (or the reason why there is none) and its pid."""
    if isinstance(answer, dict):
        said = cast("dict[str, Any]", answer)
        if said.get("cluster") == cluster and said.get("id") == node.id:
            role = str(said.get("role", "unknown"))
            return NodeView(
                id=node.id,
                # A node started by hand has no pid file, but says who it is.
                pid=pid if pid is not None else _number(said, "pid"),
                url=node.url,
                raft_address=node.raft,
                role=role,
                term=_number(said, "term"),
                leader=said.get("leader"),
                last_index=_number(said, "last_index"),
                commit_index=_number(said, "commit_index"),
                applied_index=_number(said, "applied_index"),
                lag=_number(said, "lag"),
                documents=_number(said, "documents"),
                healthy=bool(said.get("healthy", False)),
                reason=said.get("reason"),
                chroma_path=chroma_path,
                ready=bool(said.get("ready", said.get("healthy", False))),
                state=said.get("state"),
                remedy=said.get("remedy"),
                lacks=said.get("lacks"),
                disk=said.get("disk"),
                filling=said.get("filling"),
                level=said.get("level"),
            )
        reason = f"another server answers at {node.url}"
    return NodeView(
        id=node.id,
        pid=pid,
        url=node.url,
        raft_address=node.raft,
        role="down" if pid is None else "unknown",
        term=None,
        leader=None,
        last_index=None,
        commit_index=None,
        applied_index=None,
        lag=None,
        documents=None,
        healthy=False,
        reason="not running" if pid is None else reason,
        chroma_path=chroma_path,
    )


def _number(said: dict[str, Any], name: str) -> int | None:
    value = said.get(name)
    return int(value) if isinstance(value, int | float) else None


def _look_at_balancer(directory: DataDirectory, plan: ClusterPlan) -> BalancerView:
    process = running(directory.pid_file(BALANCER))
    pid = process.pid if process else None
    answer, reason = ask(plan.url, plan.secret)
    return balancer_view(plan, pid, answer, reason)


def balancer_view(plan: ClusterPlan, pid: int | None, answer: Any, reason: str | None) -> BalancerView:
    """The balancer's view from its pid and its answer to /cluster/status, or why there is none."""
    if not isinstance(answer, dict):
        return BalancerView(plan.url, pid, False, "not running" if pid is None else reason, None, {})
    said = cast("dict[str, Any]", answer)
    listed = cast("list[dict[str, Any]]", said.get("nodes", []))
    nodes = {str(node.get("id")): bool(node.get("healthy", False)) for node in listed}
    if set(nodes) != {node.id for node in plan.nodes}:
        return BalancerView(plan.url, pid, False, f"another server answers at {plan.url}", None, {})
    healthy = bool(said.get("healthy", False))
    return BalancerView(
        url=plan.url,
        pid=pid if pid is not None else _number(said, "pid"),
        healthy=healthy,
        reason=None if healthy else str(said.get("reason") or "it knows no leader"),
        leader=said.get("leader"),
        nodes=nodes,
        not_used={str(node["id"]): str(node["not_used"]) for node in listed if node.get("not_used")},
    )


def ask(
    url: str, secret: str, target: str = "/cluster/status", timeout_s: float = ASK_TIMEOUT_S
) -> tuple[Any, None] | tuple[None, str]:
    """The JSON that a node or balancer answers a member's GET with, or None and the reason."""
    try:
        return json.loads(calls.ask(prover_of(secret), url, target, timeout_s=timeout_s)), None
    except (OSError, http.client.HTTPException, ValueError) as error:
        return None, explain(error)


@cache
def prover_of(secret: str) -> Prover:
    """One for all that this process asks: nodes remember who asked them."""
    return Prover(secret.encode())


def explain(error: Exception) -> str:
    """Why a request got no usable answer, in a few words."""
    cause = error.reason if isinstance(error, URLError) and isinstance(error.reason, Exception) else error
    if isinstance(cause, TimeoutError):
        return "it does not answer"
    if isinstance(cause, ConnectionRefusedError):
        return "nothing listens on its port"
    return str(cause) or type(cause).__name__
