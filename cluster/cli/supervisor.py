"""Starts and stops the processes of one cluster on this machine: the nodes and the balancer.

It keeps no state but the pid files: any `up`, `down` or `status` sees the same processes, whoever
started them. Nothing here restarts a process by itself; `up` again starts what is missing.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import subprocess
import sys
import time
import urllib.request
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Final
from urllib.error import HTTPError

from cluster.cli import overview
from cluster.cli.layout import BALANCER, LOOPBACK, port_is_free, port_of
from cluster.cli.processes import Identity, forget, identify, recorded, running, stop, write_pid_file
from cluster.errors import ClusterError

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from cluster.cli.layout import ClusterPlan, DataDirectory, NodePlan

STOP_TIMEOUT_S: Final = 20.0
LOCK_TIMEOUT_S: Final = 60.0
PROBE_TIMEOUT_S: Final = 2.0
POLL_S: Final = 0.05
TAIL_LINES: Final = 12
MAX_LOG_BYTES: Final = 64 * 1024 * 1024


class StartError(ClusterError):
    """A process cannot be started; the message says why and what was (not) started."""

    error = "StartError"


@dataclass(frozen=True, slots=True)
class Child:
    """A process that this supervisor started, and where in its log it began to write."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path
    log_start: int

    def death(self) -> Death | None:
        """How it ended, or None while it runs."""
        code = self.process.poll()
        return None if code is None else Death(self.name, code, log_tail(self.log, self.log_start))


@dataclass(frozen=True, slots=True)
class Death:
    """How a process ended: exit code (below 0: minus the signal) and the end of what it printed."""

    name: str
    code: int
    tail: str

    def __str__(self) -> str:
        if self.code < 0:
            how = f"was killed by {signal.Signals(-self.code).name}"
        else:
            how = f"ended with exit code {self.code}"
        name = "The balancer" if self.name == BALANCER else self.name
        return f"{name} {how}" + (f"; the end of its log:\n{self.tail}" if self.tail else "")


@dataclass(frozen=True, slots=True)
class Verdict:
    """How a start went: does the cluster answer writes, which processes died, what it last answered."""

    answers: bool
    deaths: tuple[Death, ...] = ()
    reason: str | None = None
    hopeless: bool = False


def title(name: str) -> str:
    """A process' name in a sentence."""
    return "the balancer" if name == BALANCER else name


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
        environment = {**os.environ, "CHROMA_CLUSTER_SECRET": self.plan.secret, "PYTHONUNBUFFERED": "1"}
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
    for peer in plan.nodes:
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


def lock_is_held(path: Path) -> bool:
    """Does some process hold this lock file?"""
    try:
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False  # no such file; what cannot be read is reported by the node itself
    return False


def lock_holder(path: Path) -> str:
    """The pid that the holder of a node's lock file wrote into it."""
    try:
        return path.read_text(errors="replace").strip() or "unknown"
    except OSError:
        return "unknown"


@contextlib.contextmanager
def exclusive(directory: DataDirectory, *, timeout_s: float = LOCK_TIMEOUT_S) -> Generator[None]:
    """Only one `up` or `down` at a time changes what runs in this directory.

    Raises:
        StartError: another one has been at it for too long.
    """
    with directory.lock_file.open("ab") as file:
        deadline = time.monotonic() + timeout_s
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise StartError(
                        f"Another `up` or `down` has been at work in {directory.root} for {timeout_s:.0f} s. "
                        "Nothing was changed. Wait for it, or stop it, and try again."
                    ) from None
                time.sleep(POLL_S)
        # Children must not inherit the lock: Python opens files close-on-exec.
        yield


def open_log(path: Path) -> IO[bytes]:
    """The log to append to; one that has grown too big becomes `.1` first."""
    with contextlib.suppress(FileNotFoundError):
        if path.stat().st_size > MAX_LOG_BYTES:
            os.replace(path, path.with_suffix(".log.1"))
    file = path.open("ab")
    file.seek(0, os.SEEK_END)
    return file


def log_tail(path: Path, start: int) -> str:
    """The last lines that were written to a log from byte `start` on."""
    try:
        with path.open("rb") as file:
            file.seek(max(start, path.stat().st_size - 16_384))
            lines = file.read().decode(errors="replace").splitlines()
    except OSError:
        return ""
    return "\n".join(lines[-TAIL_LINES:])


def wait_until_serving(
    supervisor: Supervisor,
    *,
    timeout_s: float,
    interrupted: Callable[[], bool],
    probe: Callable[[str, str], str | None] | None = None,
) -> Verdict:
    """Wait until the cluster answers a write and every process just started answers or is dead.

    Ends early when too few processes are left to answer a write, or when `interrupted()`.
    """
    write = probe or answers_a_write
    deadline = time.monotonic() + timeout_s
    key = f"up-{uuid.uuid4()}"  # one key: however often it is tried, it is one write
    reason: str | None = "not asked yet"
    silent = [name for name in supervisor.children if name != BALANCER]
    while not interrupted():
        if reason is not None:
            reason = write(supervisor.plan.url, key)
        deaths = supervisor.deaths()
        dead = {death.name for death in deaths}
        silent = [name for name in silent if name not in dead and not _answers(supervisor, name)]
        if reason is None and not silent:
            return Verdict(True, deaths)
        if reason is not None and not could_serve(supervisor.running(), len(supervisor.plan.nodes)):
            return Verdict(False, deaths, reason, hopeless=True)
        if time.monotonic() > deadline:
            return Verdict(reason is None, deaths, reason or f"{', '.join(silent)} did not answer in time")
        time.sleep(POLL_S)
    return Verdict(False, supervisor.deaths(), "interrupted")


def _answers(supervisor: Supervisor, name: str) -> bool:
    answer, _ = overview.ask(f"{supervisor.plan.node(name).url}/cluster/status")
    return answer is not None


def could_serve(there: dict[str, Identity], nodes: int) -> bool:
    """Do enough processes run to answer a write: the balancer and a majority of the nodes?"""
    return BALANCER in there and len([name for name in there if name != BALANCER]) > nodes // 2


def answers_a_write(url: str, key: str) -> str | None:
    """None if a write through the balancer went through the log, else why not.

    The write is one that no user can see: it sets a field of the default tenant that no answer shows.
    """
    request = urllib.request.Request(
        f"{url}/api/v2/tenants/default_tenant",
        data=b'{"resource_name": "default_tenant"}',
        headers={"Content-Type": "application/json", "Idempotency-Key": key},
        method="PATCH",
    )
    try:
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(
            request, timeout=PROBE_TIMEOUT_S
        ) as answer:
            answer.read()
    except HTTPError as error:
        with error:
            text = error.read(2_000).decode(errors="replace")
        return f"a write was answered with {error.code}: {text}"
    except (OSError, ValueError) as error:
        return f"a write got no answer: {overview.explain(error)}"
    return None
