"""What `cluster.json` says of a cluster on one machine: identity, secret, nodes and their addresses."""

from __future__ import annotations

import json
import secrets
import uuid
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, cast

from cluster.cli.errors import LayoutError
from cluster.cli.ports import LOOPBACK

if TYPE_CHECKING:
    from collections.abc import Iterable

BALANCER: Final = "lb"
DEFAULT_PORT: Final = 8000
DEFAULT_NODES: Final = 3


def title(name: str) -> str:
    """A process' name in a sentence."""
    return "the balancer" if name == BALANCER else name


@dataclass(frozen=True, slots=True)
class NodePlan:
    """The id and the two addresses (`host:port`) of one node."""

    id: str
    http: str
    raft: str
    joined: bool = False
    """It was added to a cluster that others founded."""

    @property
    def url(self) -> str:
        """Where this node's HTTP server is."""
        return f"http://{self.http}"

    def as_json(self) -> dict[str, Any]:
        found: dict[str, Any] = {"id": self.id, "http": self.http, "raft": self.raft}
        return {**found, "joined": True} if self.joined else found


@dataclass(frozen=True, slots=True)
class ClusterPlan:
    """What `cluster.json` holds. `port` may change later, and so may `nodes`, by `chroma-cluster members`.

    `founders` are those that the cluster began with: its nodes are started with them for ever, also with
    removed ones.
    """

    cluster: str
    secret: str
    port: int
    nodes: tuple[NodePlan, ...]
    removed_founders: tuple[NodePlan, ...] = ()

    @property
    def founders(self) -> tuple[NodePlan, ...]:
        return (*(node for node in self.nodes if not node.joined), *self.removed_founders)

    def with_node(self, node: NodePlan) -> ClusterPlan:
        """The same with one more, if it is not there."""
        return self if node in self.nodes else replace(self, nodes=(*self.nodes, node))

    def without_node(self, node_id: str) -> ClusterPlan:
        """The same without one that is no member any more."""
        node = self.node(node_id)
        gone = self.removed_founders if node.joined else (*self.removed_founders, node)
        rest = tuple(other for other in self.nodes if other.id != node_id)
        return replace(self, nodes=rest, removed_founders=gone)

    @property
    def url(self) -> str:
        """Where the balancer is: the address that clients use."""
        return f"http://{LOOPBACK}:{self.port}"

    def node(self, node_id: str) -> NodePlan:
        """The plan of one node.

        Raises:
            KeyError: there is no such node.
        """
        for node in self.nodes:
            if node.id == node_id:
                return node
        raise KeyError(node_id)

    def to_json(self) -> str:
        """The text of `cluster.json`."""
        value = {
            "cluster": self.cluster,
            "secret": self.secret,
            "port": self.port,
            "nodes": [node.as_json() for node in self.nodes],
        }
        if self.removed_founders:
            value["removed_founders"] = [node.as_json() for node in self.removed_founders]
        return json.dumps(value, indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str) -> ClusterPlan:
        """The plan in the text of a `cluster.json`.

        Raises:
            ValueError: not JSON, or a value is missing or of the wrong type.
        """
        value: Any = json.loads(text)
        try:
            nodes, gone = (
                tuple(
                    NodePlan(
                        _text(item["id"]),
                        _text(item["http"]),
                        _text(item["raft"]),
                        item.get("joined") is True,
                    )
                    for item in cast("list[dict[str, Any]]", items)
                )
                for items in (value["nodes"], value.get("removed_founders", []))
            )
            plan = cls(_text(value["cluster"]), _text(value["secret"]), int(value["port"]), nodes, gone)
        except (KeyError, TypeError) as error:
            raise ValueError(f"{type(error).__name__}: {error}") from None
        if not nodes:
            raise ValueError("it lists no node")
        return plan


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise TypeError(f"expected a text, got {value!r}")
    return value


def new_plan(count: int, port: int, ports: Iterable[int]) -> ClusterPlan:
    """A fresh cluster of `count` nodes: random id and secret, two of `ports` for each node."""
    free = iter(ports)
    nodes = tuple(
        NodePlan(f"node-{number}", f"{LOOPBACK}:{next(free)}", f"{LOOPBACK}:{next(free)}")
        for number in range(1, count + 1)
    )
    return ClusterPlan(str(uuid.uuid4()), secrets.token_urlsafe(32), port, nodes)


def added_node(plan: ClusterPlan, node_id: str | None, ports: Iterable[int]) -> NodePlan:
    """The plan of a node that shall be added: with an id that no node ever had, if none is given.

    One that was begun to be added is that one.

    Raises:
        LayoutError: the id is that of a founder, whose directory holds what it was.
    """
    held = {node.id: node for node in (*plan.nodes, *plan.removed_founders)}
    if node_id is None:
        numbers = [int(name.removeprefix("node-")) for name in held if name.removeprefix("node-").isdigit()]
        node_id = f"node-{max(numbers, default=0) + 1}"
    known = held.get(node_id)
    if known is not None:
        if known.joined:
            return known
        raise LayoutError(
            f"{node_id} is one of the nodes that this cluster was founded with. Nothing was changed. Choose "
            "another id, or leave it out."
        )
    free = iter(ports)
    return NodePlan(node_id, f"{LOOPBACK}:{next(free)}", f"{LOOPBACK}:{next(free)}", joined=True)


def settle_plan(plan: ClusterPlan, *, nodes: int | None, port: int | None) -> ClusterPlan:
    """The plan under which an existing cluster resumes, given what was asked for on the command line.

    Raises:
        LayoutError: another number of nodes was asked for than the cluster has.
    """
    if nodes is not None and nodes != len(plan.nodes):
        raise LayoutError(
            f"This data directory holds a cluster of {len(plan.nodes)} nodes, but --nodes {nodes} was asked "
            "for. Nothing was changed. Leave --nodes out to resume it, or choose another directory with "
            "--data DIR."
        )
    return plan if port is None or port == plan.port else replace(plan, port=port)
