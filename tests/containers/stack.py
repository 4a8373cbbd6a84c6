"""The compose file's cluster as a test runs it: up, down, kill, start, and each node's own state."""

from __future__ import annotations

import json
import secrets
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from evaluation.processes import free_port
from tests.containers.engine import ROOT, CommandFailedError, Engine, run

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")
COMPOSE_FILE = ROOT / "docker-compose.cluster.yml"
NODES = ("node-1", "node-2", "node-3")
SERVICES = (*NODES, "balancer")
# Nodes publish no port, so a node is asked from inside its own container.
ASK = (
    "import os, sys; from wire.calls import ask; from wire.prover import Prover; "
    "prover = Prover(os.environ['CHROMA_CLUSTER_SECRET'].encode()); "
    "answer = ask(prover, 'http://127.0.0.1:8001', sys.argv[1], sys.argv[2].encode() or None, "
    "headers={'X-Chroma-Consistency': 'eventual'}, timeout_s=20); "
    "sys.stdout.write(answer.decode())"
)


@dataclass
class Stack:
    """One project made from `docker-compose.cluster.yml`; `destroy` removes all of it."""

    engine: Engine
    image: str
    profile: str = ""
    variables: dict[str, str] = field(default_factory=dict[str, str])
    project: str = field(default_factory=lambda: f"chroma-test-{secrets.token_hex(4)}")
    port: int = field(default_factory=free_port)

    @property
    def environment(self) -> dict[str, str]:
        return {
            **self.engine.environment,
            "CHROMA_CLUSTER_IMAGE": self.image,
            "CHROMA_CLUSTER_SECRET": f"secret of {self.project}",
            "CHROMA_CLUSTER_PORT": str(self.port),
            **self.variables,
        }

    def compose(self, *arguments: str, timeout_s: float = 180) -> str:
        profile = ("--profile", self.profile) if self.profile else ()
        command = (*self.engine.compose, "-f", str(COMPOSE_FILE), "-p", self.project, *profile, *arguments)
        return run(command, self.environment, timeout_s)

    def up(self) -> None:
        """Start what is not running; the image must be there."""
        self.compose("up", "--detach", "--no-build")

    def stop(self) -> None:
        """End the processes as compose does; the containers stay."""
        self.compose("stop")

    def down(self) -> None:
        """Stop and remove the containers; the volumes stay."""
        self.compose("down")

    def destroy(self) -> None:
        """Remove containers, networks and volumes."""
        self.compose("down", "--volumes")

    def container(self, service: str) -> str:
        """The container of a service, running or not."""
        found = self.engine.run(
            "ps",
            "--all",
            "--quiet",
            "--filter",
            f"label=com.docker.compose.project={self.project}",
            "--filter",
            f"label=com.docker.compose.service={service}",
        ).split()
        if len(found) != 1:
            raise AssertionError(f"expected one container of {service}, found {found}")
        return found[0]

    def kill(self, service: str) -> None:
        self.engine.run("kill", "--signal", "KILL", self.container(service))
        self.wait(lambda: not self.running(service), f"{service} to be dead", 20)

    def start(self, service: str) -> None:
        self.engine.run("start", self.container(service))

    def running(self, service: str) -> bool:
        return self.inspect(service, "{{.State.Running}}") == "true"

    def inspect(self, service: str, template: str) -> str:
        return self.engine.run("inspect", "--format", template, self.container(service)).strip()

    def ask(self, node: str, path: str, body: Any = None) -> Any:
        """What the node itself answers, read at level `eventual`: its own copy."""
        text = "" if body is None else json.dumps(body)
        return json.loads(self.engine.run("exec", self.container(node), "python3", "-c", ASK, path, text))

    def status(self, node: str) -> dict[str, Any] | None:
        """The node's `/cluster/status`, or None if it does not answer."""
        try:
            answer: dict[str, Any] = self.ask(node, "/cluster/status")
        except (CommandFailedError, ValueError):
            return None
        return answer

    def leader(self) -> str | None:
        for node in NODES:
            status = self.status(node) if self.running(node) else None
            if status and status["role"] == "leader":
                return node
        return None

    def probe_is_healthy(self, service: str) -> bool:
        """What the health check says: run now by podman, last run by Docker's own timer."""
        if self.engine.command == "podman":
            return self.engine.succeeds("healthcheck", "run", self.container(service))
        return self.inspect(service, "{{.State.Health.Status}}") == "healthy"

    def wait(self, condition: Callable[[], T | None], what: str, deadline_s: float) -> T:
        """The first true value of `condition`.

        Raises:
            AssertionError: it stayed false for `deadline_s`; the text has the ends of the logs.
        """
        end = time.monotonic() + deadline_s
        while True:
            if value := condition():
                return value
            if time.monotonic() > end:
                raise AssertionError(f"waited {deadline_s} s for {what}\n{self.logs()}")
            time.sleep(0.2)

    def logs(self) -> str:
        parts: list[str] = []
        for service in SERVICES:
            try:
                text = self.engine.run("logs", "--tail", "25", self.container(service), check=False)
            except AssertionError as error:
                text = str(error)
            parts.append(f"--- {service}\n{text}")
        return "\n".join(parts)

    def left_over(self) -> list[str]:
        """Containers and volumes that still carry the project's name."""
        label = f"label=com.docker.compose.project={self.project}"
        containers = self.engine.run("ps", "--all", "--quiet", "--filter", label).split()
        volumes = self.engine.run("volume", "ls", "--quiet", "--filter", f"name={self.project}").split()
        return containers + volumes
