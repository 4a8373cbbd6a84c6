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

    @property
    def url(self) -> str:
        """Where this node's HTTP server is."""
        return f"http://{self.http}"


@dataclass(frozen=True, slots=True)
class ClusterPlan:
    """What `cluster.json` holds: fixed when the directory is made, only `port` may change later."""

    cluster: str
    secret: str
    port: int
    nodes: tuple[NodePlan, ...]

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
        nodes = [{"id": node.id, "http": node.http, "raft": node.raft} for node in self.nodes]
        value = {"cluster": self.cluster, "secret": self.secret, "port": self.port, "nodes": nodes}
        return json.dumps(value, indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str) -> ClusterPlan:
        """The plan in the text of a `cluster.json`.

        Raises:
            ValueError: not JSON, or a value is missing or of the wrong type.
        """
        value: Any = json.loads(text)
        try:
            nodes = tuple(
                NodePlan(_text(item["id"]), _text(item["http"]), _text(item["raft"]))
                for item in cast("list[dict[str, Any]]", value["nodes"])
            )
            plan = cls(_text(value["cluster"]), _text(value["secret"]), int(value["port"]), nodes)
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
