"""A real cluster for tests: started by the command line, watched as `status --json` does, killed by pid.

Every wait is for a condition with a deadline; a missed one raises with the ends of the logs.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

import requests

from cluster.cli.layout import DataDirectory
from cluster.cli.overview import look
from cluster.cli.ports import keep_port, port_of
from cluster.cli.supervisor import Supervisor
from evaluation.processes import free_port
from tests.integration.members import Member

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from chromadb.api import ClientAPI

T = TypeVar("T")
COMMAND = [sys.executable, "-m", "cluster"]


@dataclass
class RunningCluster:
    """A cluster in `data`, its balancer on `port`."""

    data: Path
    port: int
    nodes_count: int = 3
    direct_clients: bool = False
    """Whether its nodes serve stock clients that come to them directly."""
    wrapper: tuple[str, ...] = ()
    """What the command is started by, e.g. with fewer descriptors."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def up(self, *flags: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """`up --detach`: starts whatever is missing and returns when writes are answered."""
        command = [*self.wrapper, *COMMAND, "up", "--detach", "--data", str(self.data)]
        command += ["--port", str(self.port), "--nodes", str(self.nodes_count), *flags]
        environment = {**os.environ, "CHROMA_CLUSTER_ALLOW_DIRECT_CLIENTS": str(self.direct_clients)}
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=120, check=False, env=environment
        )
        if check and done.returncode != 0:
            raise AssertionError(f"up failed ({done.returncode}): {done.stdout}{done.stderr}\n{self.logs()}")
        self._keep_ports()
        return done

    def _keep_ports(self) -> None:
        """No other test takes a port of a node that is down, which will come back to it."""
        plan = self.directory.read_plan()
        for node in plan.nodes if plan else ():
            keep_port(port_of(node.http))
            keep_port(port_of(node.raft))

    def up_again(self) -> None:
        """`up`, unless it is seen without it that nothing is missing and every node is ready."""
        status = self.status()
        if (
            not all(row["pid"] and row["ready"] for row in status["nodes"])
            or not status["balancer"]["healthy"]
        ):
            self.up()

    def down(self) -> None:
        subprocess.run(
            [*COMMAND, "down", "--data", str(self.data)],
            capture_output=True,
            text=True,
            timeout=90,
            check=True,
        )

    def end(self) -> None:
        """Stop all that runs, for the end of a test: kill -9 of what has not ended after a second."""
        plan = self.directory.read_plan()
        if plan is not None:
            patience = time.monotonic() + 1
            supervisor = Supervisor(self.directory, plan)
            supervisor.stop(list(supervisor.names), hurry=lambda: time.monotonic() > patience)

    @property
    def directory(self) -> DataDirectory:
        return DataDirectory(self.data)

    def status(self) -> dict[str, Any]:
        """What `status --json` prints, without the half second of processor time that a process of its own
        would take: waits ask for it again and again."""
        plan = self.directory.read_plan()
        assert plan is not None, f"no cluster in {self.data}"
        answer: dict[str, Any] = json.loads(json.dumps(look(self.directory, plan).as_json()))
        return answer

    @cached_property
    def member(self) -> Member:
        """For `requests.get(url, auth=cluster.member)`: nodes serve only who knows the cluster's secret."""
        return Member(json.loads((self.data / "cluster.json").read_text())["secret"])

    def node(self, node_id: str) -> dict[str, Any]:
        """The row of one node in the status."""
        return next(row for row in self.status()["nodes"] if row["id"] == node_id)

    def leader(self) -> dict[str, Any]:
        """The leader's row, waiting for one if there is an election."""

        def found() -> dict[str, Any] | None:
            status = self.status()
            return next(
                (row for row in status["nodes"] if row["id"] == status["leader"] and row["pid"]), None
            )

        return self.wait("a leader", found)

    def followers(self) -> list[dict[str, Any]]:
        leader = self.leader()["id"]
        return [row for row in self.status()["nodes"] if row["id"] != leader]

    def kill(self, row: dict[str, Any], signum: int = signal.SIGKILL) -> None:
        """Send a signal to a node (or to the balancer's row) by its process id."""
        os.kill(int(row["pid"]), signum)

    def wait_caught_up(self, deadline_s: float = 60.0) -> None:
        """All nodes are healthy and have applied the same index as the leader's last."""

        def caught_up() -> bool:
            rows = self.status()["nodes"]
            applied = {row["applied_index"] for row in rows}
            return all(row["healthy"] for row in rows) and len(applied) == 1 and None not in applied

        self.wait("all nodes caught up", caught_up, deadline_s)

    def wait(self, what: str, condition: Callable[[], T], deadline_s: float = 30.0) -> T:
        """The first true value of `condition`."""
        end = time.monotonic() + deadline_s
        while True:
            value = condition()
            if value:
                return value
            if time.monotonic() > end:
                raise AssertionError(f"waited {deadline_s} s for {what}: {self.status()}\n{self.logs()}")
            time.sleep(0.05)

    def logs(self) -> str:
        parts: list[str] = []
        for path in sorted((self.data / "logs").glob("*.log")):
            parts.append(
                f"--- {path.name}\n" + "\n".join(path.read_text(errors="replace").splitlines()[-30:])
            )
        return "\n".join(parts)

    def client(self, **kwargs: Any) -> ClientAPI:
        """A stock client of the balancer."""
        import chromadb

        return chromadb.HttpClient(host="127.0.0.1", port=self.port, **kwargs)

    def records(self, row: dict[str, Any], collection_id: str) -> dict[str, Any]:
        """All records of a collection as one node has them: id -> (vector, document, metadata)."""
        base = f"{row['url']}/api/v2/tenants/default_tenant/databases/default_database/collections"
        found: dict[str, Any] = {}
        while True:
            answer = requests.post(
                f"{base}/{collection_id}/get",
                json={
                    "include": ["embeddings", "documents", "metadatas"],
                    "limit": 1000,
                    "offset": len(found),
                },
                headers={"X-Chroma-Consistency": "eventual"},
                auth=self.member,
                timeout=30,
            )
            answer.raise_for_status()
            page = answer.json()
            rows = zip(page["ids"], page["embeddings"], page["documents"], page["metadatas"], strict=True)
            for record_id, vector, document, metadata in rows:
                assert record_id not in found, f"{record_id} twice on {row['id']}"
                found[record_id] = (vector, document, metadata)
            if len(page["ids"]) < 1000:
                return found

    def assert_replicas_equal(self, collection_id: str) -> dict[str, Any]:
        """Every node has the same records, vectors bit for bit; they are returned."""
        self.wait_caught_up()
        rows = self.status()["nodes"]
        first = self.records(rows[0], collection_id)
        for row in rows[1:]:
            assert self.records(row, collection_id) == first, f"{row['id']} differs from {rows[0]['id']}"
        return first


@contextlib.contextmanager
def running_cluster(
    data: Path, *flags: str, nodes: int = 3, direct_clients: bool = False
) -> Iterator[RunningCluster]:
    """A cluster that answers writes; whatever is left of it is stopped at the end."""
    cluster = RunningCluster(data, free_port(), nodes, direct_clients)
    try:
        cluster.up(*flags)
        yield cluster
    finally:
        cluster.end()
