"""The two servers that the corpus is sent to: a real `chroma run`, and three nodes behind their balancer.

Both are made anew, in directories of their own, when a case has left them unable to go on.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import http.client
import itertools
import json
import os
import signal
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, TypeAlias, TypeVar
from urllib.parse import quote

import psutil

from tests.hostile.case import COLLECTIONS, DATABASES, TARGET, Call, Setup, request
from tests.hostile.exchange import Reply, exchange
from tests.integration.differential import chroma_run
from tests.integration.harness import running_cluster
from wire import calls
from wire.prover import Prover

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path

LOST: Final = "lost: "
CANARY: Final = "canary"
_QUICKLY_S: Final = 15.0
#: What is sent with reads that must show one node's own state.
OWN: Final = ("X-Chroma-Consistency", "eventual")
LINEARIZABLE: Final = ("X-Chroma-Consistency", "linearizable")
#: What the case's collection holds beforehand.
SEED: Final[dict[str, Any]] = {
    "ids": ["r0", "r1", "r2"],
    "embeddings": [[0.1, 0.2, 0.3], [1.5, -2.0, 3.0], [9.0, 8.0, 7.5]],
    "documents": ["a bear in the woods", "w1 of two", None],
    "metadatas": [{"n": 0, "w": "a"}, {"n": 1, "tags": ["x", "y"]}, None],
    "uris": ["u0", None, None],
}

Names: TypeAlias = "dict[str, str]"
T = TypeVar("T")
S = TypeVar("S")

#: Nodes, and both sides, are asked beside each other: most of a case's time is waiting.
ASKERS: Final = concurrent.futures.ThreadPoolExecutor(8, thread_name_prefix="asker")


def side_by_side(function: Callable[[S], T], arguments: Iterable[S]) -> list[T]:
    """What `function` returns for each of the arguments, in their order; raises the first one's error."""
    return list(ASKERS.map(function, arguments))


class NotReadyError(Exception):
    """A server cannot be brought to where a case begins."""


def ask(url: str, call: Call, timeout_s: float = _QUICKLY_S) -> Reply:
    """One of the stand's own requests."""
    return exchange(url, call, {}, timeout_s)


def wanted(url: str, call: Call) -> Any:
    """The body of an answer that must be 200.

    Raises:
        NotReadyError: it is not.
    """
    reply = ask(url, call)
    if reply.status != 200:
        raise NotReadyError(f"{call.method} {call.target[:100]}: {reply.status} {str(reply.body)[:200]}")
    return reply.body


def prepare(url: str, setup: Setup) -> Names:
    """The case's collection, if it has one; its id under the name that requests have for it."""
    if setup == "none":
        return {}
    made = wanted(url, request("POST", COLLECTIONS, {"name": TARGET}))
    if setup == "records":
        wanted_status(url, request("POST", f"{COLLECTIONS}/{made['id']}/add", SEED), 201)
    return {"id": made["id"]}


def wanted_status(url: str, call: Call, status: int) -> None:
    """Raises:
    NotReadyError: the answer has another status.
    """
    reply = ask(url, call)
    if reply.status != status:
        raise NotReadyError(f"{call.method} {call.target[:100]}: {reply.status} {str(reply.body)[:200]}")


def clean(url: str) -> None:
    """Delete what cases have made, but for tenants, which nobody can.

    Records first: Chroma leaves the metadata lists of a deleted collection behind, and later records that
    get the numbers of its records have them.
    """
    for made in wanted(url, request("GET", COLLECTIONS)):
        if made["name"] != CANARY:
            _empty(url, made["id"])
            wanted_status(url, request("DELETE", f"{COLLECTIONS}/{quote(made['name'], safe='')}"), 200)
    for made in wanted(url, request("GET", DATABASES)):
        if made["name"] != "default_database":
            wanted_status(url, request("DELETE", f"{DATABASES}/{quote(made['name'], safe='')}"), 200)


def _empty(url: str, collection_id: str) -> None:
    """Delete its records by id, where that goes: cases leave collections that nobody can read."""
    found = ask(url, request("POST", f"{COLLECTIONS}/{collection_id}/get", {"include": []}))
    ids = found.body.get("ids", []) if found.status == 200 else []
    for start in range(0, len(ids), 5_000):
        ask(
            url, request("POST", f"{COLLECTIONS}/{collection_id}/delete", {"ids": ids[start : start + 5_000]})
        )


@dataclass
class Canary:
    """A collection that no case touches; its one record tells the time."""

    id: str = ""
    count: int = 0

    def hatch(self, url: str) -> None:
        made = wanted(url, request("POST", COLLECTIONS, {"name": CANARY, "get_or_create": True}))
        self.id = made["id"]

    def sing(self, url: str) -> None:
        """Write the next number.

        Raises:
            NotReadyError: it was not taken.
        """
        self.count += 1
        body = {"ids": ["c"], "embeddings": [[self.count, 1, 2]], "metadatas": [{"count": self.count}]}
        wanted_status(url, request("POST", f"{COLLECTIONS}/{self.id}/upsert", body), 200)

    def heard(self, url: str) -> None:
        """Read the number that was written last.

        Raises:
            NotReadyError: there is no answer, or another number.
        """
        found = wanted(url, request("POST", f"{COLLECTIONS}/{self.id}/get", {"ids": ["c"]}, LINEARIZABLE))
        shown = [one["count"] for one in found["metadatas"]]
        if shown != [self.count]:
            raise NotReadyError(f"the canary is {shown}, expected [{self.count}]")


@dataclass
class ChromaSide:
    """A `chroma run` that is started again, empty, when it has died or takes no writes any more."""

    directory: Path
    stack: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)
    canary: Canary = field(default_factory=Canary)
    url: str = ""
    starts: int = 0

    def start(self) -> None:
        self.stop()
        self.starts += 1
        self.url = self.stack.enter_context(chroma_run(self.directory / f"chroma-{self.starts}"))
        self.canary = Canary()
        self.canary.hatch(self.url)

    def stop(self) -> None:
        self.stack.close()

    def is_well(self) -> bool:
        """Whether it still writes and reads."""
        try:
            self.canary.sing(self.url)
            self.canary.heard(self.url)
        except NotReadyError:
            return False
        return True


@dataclass(frozen=True)
class Node:
    """One node as it was when its cluster came up."""

    id: str
    url: str
    pid: int


@dataclass
class ClusterSide:
    """Three nodes and a balancer, made anew when a case has left them broken."""

    directory: Path
    stack: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)
    canary: Canary = field(default_factory=Canary)
    url: str = ""
    nodes: tuple[Node, ...] = ()
    balancer_pid: int = 0
    starts: int = 0
    prover: Prover = field(default_factory=lambda: Prover(b""))

    def start(self) -> None:
        self.stop()
        self.starts += 1
        cluster = self.stack.enter_context(
            running_cluster(self.directory / f"cluster-{self.starts}", direct_clients=True)
        )
        self.url = cluster.url
        self.prover = cluster.member.prover
        status = cluster.status()
        self.nodes = tuple(Node(row["id"], row["url"], row["pid"]) for row in status["nodes"])
        self.balancer_pid = status["balancer"]["pid"]
        self.canary = Canary()
        self.canary.hatch(self.url)

    def stop(self) -> None:
        try:
            self.stack.close()
        except Exception:
            # A node that does not stop when it is told to: it is one of what the corpus looks for.
            for pid in self.pids():
                for child in _children(pid):
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(child, signal.SIGKILL)
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        self.nodes = ()
        self.balancer_pid = 0

    def pids(self) -> list[int]:
        """Of nodes and balancer."""
        own = [node.pid for node in self.nodes]
        return [*own, self.balancer_pid] if self.balancer_pid else own

    def children(self) -> set[int]:
        """Engines and oracles."""
        return set(itertools.chain.from_iterable(_children(node.pid) for node in self.nodes))

    def statuses(self, timeout_s: float = 2.0) -> list[dict[str, Any]]:
        """What each node says of itself; empty where it says nothing."""
        return side_by_side(lambda node: self._status(node, timeout_s), self.nodes)

    def _status(self, node: Node, timeout_s: float) -> dict[str, Any]:
        try:
            answer = calls.ask(self.prover, node.url, "/cluster/status", timeout_s=timeout_s)
            return json.loads(answer)
        except (OSError, http.client.HTTPException, ValueError):
            return {}

    def leader(self) -> Node:
        """Raises:
        NotReadyError: there is none.
        """
        for node, status in zip(self.nodes, self.statuses(), strict=True):
            if status.get("role") == "leader":
                return node
        raise NotReadyError("no node leads")

    def door(self, name: str) -> str:
        """The URL that a case's requests go to."""
        if name == "balancer":
            return self.url
        leader = self.leader()
        if name == "leader":
            return leader.url
        return next(node.url for node in self.nodes if node.id != leader.id)


def _children(pid: int) -> list[int]:
    try:
        return [child.pid for child in psutil.Process(pid).children(recursive=True)]
    except psutil.Error:
        return []


class Memory:
    """The most memory that processes have had since `begin`, in MiB."""

    def __init__(self, pids: list[int]) -> None:
        self._before = {pid: 0.0 for pid in pids}
        for pid in pids:
            with contextlib.suppress(OSError), open(f"/proc/{pid}/clear_refs", "w") as file:
                file.write("5")
            self._before[pid] = _resident(pid)

    def grown(self) -> float:
        """By how much the process that grew most has grown, at its peak."""
        return max((_resident(pid) - before for pid, before in self._before.items()), default=0.0)


def _resident(pid: int) -> float:
    """Peak of resident memory, 0 where it cannot be known."""
    try:
        with open(f"/proc/{pid}/status") as file:
            for line in file:
                if line.startswith("VmHWM:"):
                    return int(line.split()[1]) / 1024
    except OSError:
        pass
    return 0.0


def states(cluster: ClusterSide) -> list[dict[str, Any]]:
    """What each node holds: its catalogue, and the records of every collection."""
    return side_by_side(lambda node: state_of(node.url), cluster.nodes)


def untouched(state: dict[str, Any]) -> dict[str, Any]:
    """A node's state without the canary, which changes after every case."""
    return {name: value for name, value in state.items() if name != CANARY}


def state_of(url: str) -> dict[str, Any]:
    """What one server holds."""
    databases = ask(url, request("GET", DATABASES, None, OWN), 30)
    listed = ask(url, request("GET", COLLECTIONS, None, OWN), 30)
    found: dict[str, Any] = {
        "databases": (databases.status, _sorted(databases.body)),
        "collections": (listed.status, _sorted(listed.body)),
    }
    for collection in listed.body if listed.status == 200 else ():
        body = {"include": ["embeddings", "documents", "metadatas", "uris"]}
        reply = ask(url, request("POST", f"{COLLECTIONS}/{collection['id']}/get", body, OWN), 30)
        found[collection["name"][:60]] = (
            reply.status,
            _by_id(reply.body) if reply.status == 200 else reply.body,
        )
    return found


def _sorted(body: Any) -> Any:
    return sorted(body, key=lambda one: json.dumps(one, sort_keys=True)) if isinstance(body, list) else body


def _by_id(page: Mapping[str, Any]) -> dict[str, Any]:
    columns = ("embeddings", "documents", "metadatas", "uris")
    return {record_id: [page[column][at] for column in columns] for at, record_id in enumerate(page["ids"])}


def wait_until_well(cluster: ClusterSide, deadline_s: float) -> str | None:
    """Until every node is healthy and has applied the same; what is still missing at the deadline."""
    end = time.monotonic() + deadline_s
    while True:
        found = _ailing(cluster)
        # A node that is gone, or has stopped serving, does not come back by itself.
        if found is None or found.startswith(LOST) or time.monotonic() > end:
            return found
        time.sleep(0.05)


def _ailing(cluster: ClusterSide) -> str | None:
    statuses = cluster.statuses()
    for node, status in zip(cluster.nodes, statuses, strict=True):
        if not status:
            alive = psutil.pid_exists(node.pid) and psutil.Process(node.pid).status() != psutil.STATUS_ZOMBIE
            return f"{node.id} gives no status" if alive else f"{LOST}{node.id} has died"
        if status["pid"] != node.pid:
            return f"{LOST}{node.id} was started again"
        if status["state"] == "failed":
            return f"{LOST}{node.id} has stopped serving: {status['reason']}"
        if not (status["healthy"] and status["ready"]):
            return f"{node.id} ({status['role']}) is not ready: {status['reason']}"
    applied = [status["applied_index"] for status in statuses]
    last = max(status["last_index"] for status in statuses)
    if applied != [last] * len(applied):
        return f"applied {applied} of {last}"
    if sum(status["role"] == "leader" for status in statuses) != 1:
        return "no single leader"
    if not psutil.pid_exists(cluster.balancer_pid):
        return "the balancer has died"
    return None
