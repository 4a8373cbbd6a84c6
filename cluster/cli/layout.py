"""A cluster's data directory on one machine: which file is where, and what `cluster.json` says.

DIR/cluster.json        identity, secret and addresses; made once, mode 0600
DIR/node-1/             one node: LOCK, raft.sqlite, state.sqlite, chroma/ (a plain Chroma directory)
DIR/logs/node-1.log     what a process printed; DIR/logs/lb.log the balancer
DIR/run/node-1.pid      which process runs; DIR/run/lb.pid the balancer; DIR/run/LOCK held by a starting `up`
"""

from __future__ import annotations

import json
import os
import secrets
import socket
import tempfile
import uuid
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

from cluster.errors import ClusterError

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Iterable

LOOPBACK: Final = "127.0.0.1"
BALANCER: Final = "lb"
DEFAULT_PORT: Final = 8000
DEFAULT_NODES: Final = 3

# Below the ports that Linux and the BSDs hand to outgoing connections: a client's connection must not sit
# on a node's port while the node is down, or the node could not come back.
PORT_RANGE: Final = range(18_000, 32_000)


class LayoutError(ClusterError):
    """The data directory cannot be used as asked; the message says what to do."""

    error = "DataDirectoryError"


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


@dataclass(frozen=True, slots=True)
class DataDirectory:
    """Names every file of one cluster's data directory; `open` and `create` read and write its plan."""

    root: Path

    @property
    def plan_file(self) -> Path:
        """`cluster.json`."""
        return self.root / "cluster.json"

    @property
    def lock_file(self) -> Path:
        """Held by an `up` or `down` while it changes what runs."""
        return self.root / "run" / "LOCK"

    def node_directory(self, node_id: str) -> Path:
        """All that one node keeps."""
        return self.root / node_id

    def chroma_directory(self, node_id: str) -> Path:
        """One node's Chroma: opens with plain `chromadb.PersistentClient` while the node is down."""
        return self.root / node_id / "chroma"

    def node_lock(self, node_id: str) -> Path:
        """Held by the node that uses the directory, as long as it lives."""
        return self.root / node_id / "LOCK"

    def log_file(self, name: str) -> Path:
        """What the process `name` (a node id or `lb`) printed."""
        return self.root / "logs" / f"{name}.log"

    def pid_file(self, name: str) -> Path:
        """Which process runs as `name` (a node id or `lb`)."""
        return self.root / "run" / f"{name}.pid"

    def read_plan(self) -> ClusterPlan | None:
        """The cluster that lives here, or None if the directory has none yet.

        Raises:
            LayoutError: `cluster.json` cannot be read or is damaged.
        """
        try:
            return ClusterPlan.from_json(self.plan_file.read_text())
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise LayoutError(
                f"{self.plan_file} cannot be read: {error.strerror}. Nothing was changed."
            ) from None
        except ValueError as error:
            raise LayoutError(
                f"{self.plan_file} is damaged ({error}). Nothing was changed. Restore the file from a copy: "
                "the nodes' data is of use only with the cluster id and the addresses in it."
            ) from None

    def write_plan(self, plan: ClusterPlan) -> None:
        """Replace `cluster.json` at once or not at all; readable by its owner only (it holds the secret)."""
        handle, name = tempfile.mkstemp(dir=self.root, prefix=".cluster.json.")
        try:
            with os.fdopen(handle, "w") as file:  # mkstemp makes it with mode 0600
                file.write(plan.to_json())
                file.flush()
                os.fsync(file.fileno())
            os.replace(name, self.plan_file)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise

    def prepare(self) -> None:
        """Make the directory and its folders, and make sure that this user may write there.

        Raises:
            LayoutError: it cannot be made or written to.
        """
        try:
            for folder in (self.root, self.root / "logs", self.root / "run"):
                folder.mkdir(parents=True, exist_ok=True)
                with tempfile.TemporaryFile(dir=folder) as probe:
                    probe.write(b"x")
                    probe.flush()
        except OSError as error:
            reason = error.strerror or str(error)
            raise LayoutError(
                f"The data directory {self.root} cannot be used: {reason} ({error.filename or self.root}). "
                "Nothing was started. Choose a directory that you may write to with --data DIR."
            ) from None

    def refuse_foreign_data(self) -> None:
        """Refuse to found a cluster on top of data that belongs to something else.

        Raises:
            LayoutError: a plain Chroma directory, or nodes whose `cluster.json` is gone.
        """
        if (self.root / "chroma.sqlite3").exists():
            raise LayoutError(
                f"{self.root} is a plain Chroma directory, not a cluster's. Nothing was changed. "
                "Choose another directory with --data DIR and copy the collections over with a client."
            )
        if (self.root / "node-1").exists():
            raise LayoutError(
                f"{self.root} holds the data of nodes, but {self.plan_file.name} is missing. "
                "Nothing was changed. Restore that file, or choose another directory with --data DIR."
            )


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


def port_of(address: str) -> int:
    """The port in `host:port`."""
    return int(address.rpartition(":")[2])


def choose_ports(count: int, candidates: Iterable[int], is_free: Callable[[int], bool]) -> list[int]:
    """The first `count` candidates that are free.

    Raises:
        LayoutError: there are not so many.
    """
    found: list[int] = []
    for port in candidates:
        if len(found) == count:
            break
        if port not in found and is_free(port):
            found.append(port)
    if len(found) < count:
        raise LayoutError(f"Only {len(found)} free TCP ports of the {count} that the nodes need were found.")
    return found


def shuffled_ports(rng: random.Random) -> list[int]:
    """All ports that nodes may get, from a random place on: two clusters founded at once seldom collide."""
    start = rng.randrange(len(PORT_RANGE))
    return [*PORT_RANGE[start:], *PORT_RANGE[:start]]


def port_is_free(port: int, host: str = LOOPBACK) -> bool:
    """Could a server listen on this port now?"""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # As servers do: connections of a server that just stopped must not count as "in use".
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True
