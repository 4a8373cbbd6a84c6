"""A cluster on this machine, driven as a person would: by the `chroma-cluster` command and by signals."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, cast

from cluster.cli.layout import DataDirectory
from wire.calls import ask
from wire.prover import Prover

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

COMMAND_TIMEOUT_S: Final = 120
ANSWER_TIMEOUT_S: Final = 5


class DemoError(Exception):
    """The demo cannot go on; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class Node:
    """One node as `status --json` describes it."""

    id: str
    pid: int | None
    url: str
    role: str
    applied_index: int
    commit_index: int
    healthy: bool


class LocalCluster:
    """The cluster in a data directory, started and stopped by `chroma-cluster`."""

    def __init__(self, data: Path) -> None:
        self.data = data
        self._prover: Prover | None = None

    def up(self, port: int | None = None) -> None:
        """Start what is missing and wait until the cluster answers writes.

        Raises:
            DemoError: it does not, with the command's own reason.
        """
        arguments = ["up", "--data", str(self.data), "--detach"]
        self._run([*arguments, "--port", str(port)] if port is not None else arguments)

    def down(self) -> None:
        """Stop all processes; data stays."""
        self._run(["down", "--data", str(self.data)])

    def exists(self) -> bool:
        """Does the data directory hold a cluster?"""
        return (self.data / "cluster.json").exists()

    def status(self) -> dict[str, Any]:
        """What `status --json` prints."""
        done = self._command(["status", "--data", str(self.data), "--json"])
        try:
            return cast("dict[str, Any]", json.loads(done.stdout))
        except ValueError:
            raise DemoError(f"`chroma-cluster status` gave no answer: {_last_words(done)}") from None

    def nodes(self) -> list[Node]:
        """All nodes, as they are now."""
        return [
            Node(
                id=node["id"],
                pid=node["pid"],
                url=node["url"],
                role=node["role"],
                applied_index=node["applied_index"] or 0,
                commit_index=node["commit_index"] or 0,
                healthy=bool(node["healthy"]),
            )
            for node in self.status()["nodes"]
        ]

    def leader(self) -> Node | None:
        """The node that leads, if `status` names one."""
        status = self.status()
        return next((node for node in self.nodes() if node.id == status["leader"]), None)

    def running(self) -> bool:
        """Does any of its nodes run?"""
        return self.exists() and any(node.pid is not None for node in self.nodes())

    def caught_up(self) -> bool:
        """Are all nodes healthy, and have they applied all that is committed?"""
        nodes = self.nodes()
        target = max(node.commit_index for node in nodes)
        return all(node.healthy and node.applied_index >= target for node in nodes)

    def stop_for_sure(self) -> None:
        """Stop everything, whatever state it is in: politely, and then by pid."""
        try:
            pids = [node.pid for node in self.nodes()] + [self.status()["balancer"]["pid"]]
        except (DemoError, KeyError, subprocess.TimeoutExpired):
            pids = []
        try:
            self.down()
        except (DemoError, subprocess.TimeoutExpired):
            for pid in pids:
                if pid is not None:
                    kill(pid)

    def ask(self, url: str, target: str, body: Any = None, headers: dict[str, str] | None = None) -> Any:
        """What the node at `url` answers to a GET, or to a POST of `body`, that proves the secret."""
        if self._prover is None:
            plan = DataDirectory(self.data).read_plan()
            if plan is None:
                raise DemoError(f"There is no cluster in {self.data}.")
            self._prover = Prover(plan.secret.encode())
        words = None if body is None else json.dumps(body).encode()
        timeout_s = ANSWER_TIMEOUT_S if body is None else 60
        return json.loads(ask(self._prover, url, target, words, headers=headers, timeout_s=timeout_s))

    def role_of(self, url: str) -> str:
        """What the node at `url` says it is at this moment."""
        try:
            return str(self.ask(url, "/cluster/status")["role"])
        except (OSError, ValueError, KeyError):
            return "unknown"

    def _run(self, arguments: list[str]) -> None:
        done = self._command(arguments)
        if done.returncode != 0:
            raise DemoError(f"`chroma-cluster {arguments[0]}` failed: {_last_words(done)}")

    def _command(self, arguments: list[str]) -> subprocess.CompletedProcess[str]:
        # A session of its own: Ctrl-C in the terminal is for the demo, which then cleans up.
        return subprocess.run(
            [sys.executable, "-m", "cluster", *arguments],
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            timeout=COMMAND_TIMEOUT_S,
            start_new_session=True,
            check=False,
        )


def kill(pid: int) -> None:
    """kill -9; a process that is gone already is fine."""
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def wait_for(condition: Callable[[], bool], deadline_s: float, what: str) -> float:
    """Seconds until `condition` held.

    Raises:
        DemoError: it did not within `deadline_s`.
    """
    started = time.monotonic()
    while not condition():
        if time.monotonic() - started > deadline_s:
            raise DemoError(f"Waited {deadline_s:.0f} s in vain for {what}.")
        time.sleep(0.1)
    return time.monotonic() - started


def _last_words(done: subprocess.CompletedProcess[str]) -> str:
    said = (done.stderr.strip() or done.stdout.strip()).splitlines()
    return "\n".join(said[-8:]) or f"exit code {done.returncode}, and not a word"
