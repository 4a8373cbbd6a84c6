"""Starts and stops the processes of one cluster on this machine: the nodes and the balancer.

It keeps no state but the pid files: any `up`, `down` or `status` sees the same processes, whoever
started them. Nothing here restarts a process by itself; `up` again starts what is missing.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

from cluster.cli.children import Child
from cluster.cli.errors import StartError
from cluster.cli.locks import lock_holder, lock_is_held
from cluster.cli.logs import open_log
from cluster.cli.plan import BALANCER
from cluster.cli.ports import LOOPBACK, port_is_free, port_of
from cluster.cli.processes import Identity, forget, identify, recorded, running, stop, write_pid_file

if TYPE_CHECKING:
    from collections.abc import Callable

    from cluster.cli.children import Death
    from cluster.cli.layout import DataDirectory
    from cluster.cli.plan import ClusterPlan, NodePlan

STOP_TIMEOUT_S: Final = 20.0


class Supervisor:
    """The processes of the cluster `plan` in `directory`."""

    def __init__(self, directory: DataDirectory, plan: ClusterPlan) -> None:
        self.directory = directory
        self.plan = plan
        self.children: dict[str, Child] = {}

    @property
    def names(self) -> tuple[str, ...]:
        """All processes that a complete cluster has: the nodes in order, then the balancer."""
        return (*(node.id for node in self.plan.nodes), BALANCER)

    def running(self) -> dict[str, Identity]:
        """Those that run now, whoever started them."""
        found = {name: running(self.directory.pid_file(name)) for name in self.names}
        return {name: process for name, process in found.items() if process is not None}

    def missing(self) -> list[str]:
        """Those that do not run."""
        there = self.running()
        return [name for name in self.names if name not in there]

    def check(self, names: list[str]) -> None:
        """Make sure that all `names` can be started: their ports are free, their directories unused.

        Raises:
            StartError: with the port or the directory that is in use.
        """
        for name in names:
            if name == BALANCER:
                _require_port(
                    self.plan.port, "clients are to reach the cluster", "Choose another with --port PORT."
                )
                continue
            if lock_is_held(self.directory.node_lock(name)):
                holder = lock_holder(self.directory.node_lock(name))
                raise StartError(
                    f"{self.directory.node_directory(name)} is in use by process {holder}, which this "
                    "cluster directory does not know. Nothing was started. Stop that process first."
                )
            node = self.plan.node(name)
            advice = f"It is fixed in {self.directory.plan_file}: stop the process that uses it."
            _require_port(port_of(node.http), f"{name} serves", advice)
            _require_port(port_of(node.raft), f"{name} talks to the other nodes", advice)

    def start(self, names: list[str]) -> None:
        """Start processes; they outlive this one and its terminal."""
        for name in names:
            self.children[name] = self._spawn(name)

    def _spawn(self, name: str) -> Child:
        log = self.directory.log_file(name)
        environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
        for name_of_secret in ("CHROMA_CLUSTER_SECRET", "CHROMA_CLUSTER_LB_SECRET"):
            environment[name_of_secret] = self.plan.secret
        # This very package, even if the working directory has another one called `cluster`.
        paths = [str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")]
        environment["PYTHONPATH"] = os.pathsep.join(path for path in paths if path)
        with open_log(log) as output:
            start = output.tell()
            process = subprocess.Popen(
                self.command(name),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=environment,
                start_new_session=True,  # Ctrl-C and the end of the terminal are for `up` to handle
            )
        if identity := identify(process.pid):  # none if it is dead already: `death` tells
            write_pid_file(self.directory.pid_file(name), identity)
        return Child(name, process, log, start)

    def command(self, name: str) -> list[str]:
        """The command line of one process; the secret is not in it, other users can read command lines."""
        python = [sys.executable, "-P", "-m", "cluster"]
        if name == BALANCER:
            return [*python, *balancer_arguments(self.plan)]
        node = self.plan.node(name)
        return [*python, *node_arguments(self.plan, node, self.directory.node_directory(name))]

    def deaths(self) -> tuple[Death, ...]:
        """How those ended that this supervisor started and that run no more."""
        found = [child.death() for child in self.children.values()]
        return tuple(death for death in found if death is not None)

    def stop(self, names: list[str], *, hurry: Callable[[], bool] = lambda: False) -> dict[str, bool]:
        """Stop those of `names` that run, all at once; on return they are gone. Name -> had to be killed."""
        there = {name: process for name, process in self.running().items() if name in names}
        killed = stop(there.values(), timeout_s=STOP_TIMEOUT_S, hurry=hurry)
        for name in names:
            forget(self.directory.pid_file(name))
            if name in self.children:
                self.children.pop(name).process.wait()
        return {name: process in killed for name, process in there.items()}

    def was_stopped(self, name: str) -> bool:
        """Was it stopped on purpose (by `down`, which removes the pid file), rather than lost?"""
        return recorded(self.directory.pid_file(name)) is None


def node_arguments(plan: ClusterPlan, node: NodePlan, directory: Path) -> list[str]:
    """Arguments of `chroma-cluster` that run one node."""
    arguments = ["node", "--id", node.id, "--cluster-id", plan.cluster, "--data-dir", str(directory)]
    arguments += ["--http", node.http, "--raft", node.raft]
    if node.joined:
        others = [other.url for other in plan.nodes if other.id != node.id]
        return [*arguments, "--join", others[0] if others else node.url]
    for peer in plan.founders:
        if peer.id != node.id:
            arguments += ["--peer", f"{peer.id}={peer.raft},{peer.url}"]
    return arguments


def balancer_arguments(plan: ClusterPlan) -> list[str]:
    """Arguments of `chroma-cluster` that run the balancer."""
    arguments = ["lb", "--listen", f"{LOOPBACK}:{plan.port}", "--cluster-id", plan.cluster]
    for node in plan.nodes:
        arguments += ["--node", f"{node.id}={node.url}"]
    return arguments


def _require_port(port: int, purpose: str, advice: str) -> None:
    if not port_is_free(port):
        raise StartError(
            f"Port {port}, on which {purpose}, is in use by another process. Nothing was started. {advice}"
        )
