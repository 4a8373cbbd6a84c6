"""A cluster whose processes are killed at failpoints, and what every node of it must hold.

Every process has every point armed behind a file of its own that opens it (see `cluster.failpoint`), so that
a node that was killed starts again with all points closed, ready for the next.
"""

from __future__ import annotations

import contextlib
import os
import re
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import requests

from cluster.cli.layout import DataDirectory
from cluster.cli.plan import BALANCER, new_plan
from cluster.cli.serving import wait_until_serving
from cluster.cli.supervisor import Supervisor
from cluster.failpoint import NAMES, VARIABLE
from evaluation.processes import free_ports
from tests.integration.harness import RunningCluster

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

COLLECTIONS = "/api/v2/tenants/default_tenant/databases/default_database/collections"


@dataclass(frozen=True)
class Write:
    """One request under its own key, and the outcome that it has when it happens exactly once."""

    path: str
    body: dict[str, Any]
    key: str
    method: str = "POST"

    def send(self, url: str, auth: Any = None) -> requests.Response | None:
        """None when the connection broke."""
        try:
            # No proxy of the environment, no connection kept: what is sent is sent once.
            return requests.request(
                self.method,
                f"{url}{COLLECTIONS}{self.path}",
                json=self.body,
                headers={"Idempotency-Key": self.key},
                auth=auth,
                timeout=40,
            )
        except requests.RequestException:
            return None


@dataclass
class Lab:
    """The cluster, what was written to it, and what every node must hold now."""

    supervisor: Supervisor
    gates: Path
    cluster: RunningCluster
    collection_id: str = ""
    records: dict[str, Any] = field(default_factory=dict[str, Any])
    collections: dict[str, str] = field(default_factory=dict[str, str])
    outcomes: list[tuple[Write, tuple[int, Any]]] = field(default_factory=list[Any])

    @property
    def nodes(self) -> list[str]:
        return [node.id for node in self.supervisor.plan.nodes]

    def url(self, name: str) -> str:
        return self.supervisor.plan.url if name == BALANCER else self.supervisor.plan.node(name).url

    def start(self, names: list[str]) -> None:
        before = os.environ.get(VARIABLE)
        for name in names:
            (self.gates / name).mkdir(exist_ok=True)
            points = (f"{point}=kill:1@{self.gates / name / point}" for point in NAMES)
            os.environ[VARIABLE] = ";".join(points)
            self.supervisor.start([name])
        if before is None:
            del os.environ[VARIABLE]
        else:
            os.environ[VARIABLE] = before

    def heal(self) -> None:
        """No point is open, everything runs."""
        for gate in self.gates.glob("*/*"):
            gate.unlink()
        for name, child in list(self.supervisor.children.items()):
            if child.process.poll() is not None:
                self.start([name])

    def kill(self, name: str) -> None:
        child = self.supervisor.children[name]
        child.process.kill()
        child.process.wait()

    def status(self, name: str) -> dict[str, Any]:
        """What a node says of itself; empty while it says nothing."""
        try:
            answer: dict[str, Any] = requests.get(
                f"{self.url(name)}/cluster/status", auth=self.cluster.member, timeout=5
            ).json()
            return answer
        except (requests.RequestException, ValueError):
            return {}

    def wait_whole(self, deadline_s: float = 60.0) -> str:
        """Every node is healthy and has applied everything; the leader's id."""

        def leader() -> str | None:
            rows = [self.status(name) for name in self.nodes]
            lead = next((row for row in rows if row.get("role") == "leader"), None)
            if lead is None or not all(row.get("healthy") for row in rows):
                return None
            last = lead["last_index"]
            # What a leader has verified since the connection was made: no probe is under way.
            held = list(lead["match_index"].values())
            same = all(row["applied_index"] == last and row["leader"] == lead["id"] for row in rows)
            return str(lead["id"]) if same and held == [last] * (len(rows) - 1) else None

        return self.wait("a whole cluster", leader, deadline_s) or ""

    def wait(self, what: str, condition: Callable[[], Any], deadline_s: float = 60.0) -> Any:
        end = time.monotonic() + deadline_s
        while not (value := condition()):
            states = {name: self.status(name) for name in self.nodes} if time.monotonic() > end else None
            assert states is None, f"waited {deadline_s} s for {what}: {states}\n{self.cluster.logs()}"
            time.sleep(0.05)
        return value

    def outcome(self, write: Write) -> tuple[int, Any]:
        """The answer to the write, sent again under its key until it is not 'try again'."""

        def answered() -> tuple[int, Any] | None:
            answer = write.send(self.url(BALANCER))
            if answer is None or answer.status_code in (429, 502, 503, 504):
                return None
            return answer.status_code, answer.json()

        found: tuple[int, Any] = self.wait("an answer", answered)
        return found

    def assert_replicas_hold_exactly_this(self) -> None:
        """Records one by one and collections with their ids, on every node."""
        self.wait_whole()
        for name in self.nodes:
            row = {"id": name, "url": self.url(name)}
            assert self.cluster.records(row, self.collection_id) == self.records, name
            listed = requests.get(
                self.url(name) + COLLECTIONS,
                headers={"X-Chroma-Consistency": "eventual"},
                auth=self.cluster.member,
                timeout=20,
            ).json()
            assert {each["name"]: each["id"] for each in listed} == self.collections, name


@contextlib.contextmanager
def running_lab(data: Path) -> Iterator[Lab]:
    """Three nodes and a balancer that answer writes; whatever is left of them is stopped at the end."""
    directory = DataDirectory(data)
    directory.prepare()
    ports = free_ports(7)
    plan = new_plan(3, ports[0], ports[1:])
    directory.write_plan(plan)
    supervisor = Supervisor(directory, plan)
    gates = directory.root / "gates"
    gates.mkdir()
    made = Lab(supervisor, gates, RunningCluster(directory.root, plan.port))
    try:
        made.start(list(supervisor.names))
        verdict = wait_until_serving(supervisor, timeout_s=120, interrupted=lambda: False)
        assert verdict.answers, verdict
        yield made
    finally:
        supervisor.stop(list(supervisor.names), hurry=lambda: True)


def death(log: Path, start: int, point: str) -> int | None:
    """The process that died at `point`, as it said itself in what was logged from `start` on."""
    with log.open("rb") as file:
        file.seek(start)
        text = file.read().decode(errors="replace")
    died = re.search(rf"failpoint {re.escape(point)}: SIGKILL to process (\d+)", text)
    return int(died[1]) if died else None
