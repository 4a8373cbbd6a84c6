"""What an operator does to a cluster of this project while it serves, by the code of the operator's commands.

Its data directory looks as `chroma-cluster up` makes one, so that `status`, `verify` and `repair` find it.
Only a node's command line is another one: in an evaluation each link between two nodes is a proxy of its own,
which `up` has no word for. So a rolling restart runs here, and starts nodes as the evaluation does.
"""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING, Any, Final

import orjson

from cluster.cli.errors import StartError
from cluster.cli.interrupts import Interrupts
from cluster.cli.layout import DataDirectory
from cluster.cli.plan import BALANCER, ClusterPlan, NodePlan
from cluster.cli.processes import identify, write_pid_file
from cluster.cli.rolling import roll
from cluster.cli.supervisor import Supervisor
from evaluation.failure import SystemFailure
from evaluation.systems.environment import clean

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

_NODE_S: Final = 120.0
_COMMAND_S: Final = 180.0


class _Supervisor(Supervisor):
    """Stops as `up`'s does, and starts nodes as the evaluation does."""

    def __init__(self, directory: DataDirectory, plan: ClusterPlan, run_node: Callable[[str], None]) -> None:
        super().__init__(directory, plan)
        self._run_node = run_node

    def start(self, names: list[str]) -> None:
        for name in names:
            self._run_node(name)


class Operator:
    """The commands, for one cluster; `run_node` starts a node of it. `begin` comes before all else."""

    def __init__(self, run_node: Callable[[str], None]) -> None:
        self._run_node = run_node
        self._directory: DataDirectory | None = None
        self._plan: ClusterPlan | None = None

    def begin(
        self, root: Path, cluster: str, secret: str, balancer: str, nodes: Mapping[str, tuple[str, str]]
    ) -> None:
        """`nodes`: id -> its own addresses, of HTTP and of the log; nothing is started by this."""
        port = int(balancer.rpartition(":")[2])
        plans = tuple(NodePlan(name, http, raft) for name, (http, raft) in nodes.items())
        self._directory, self._plan = DataDirectory(root), ClusterPlan(cluster, secret, port, plans)
        self._directory.prepare()
        self._directory.write_plan(self._plan)

    def started(self, name: str, pid: int) -> None:
        """The node runs as this process."""
        directory, _ = self._known()
        if found := identify(pid):
            write_pid_file(directory.pid_file(name), found)

    def started_balancer(self, pid: int) -> None:
        """So does the balancer."""
        self.started(BALANCER, pid)

    async def restart_rolling(self, say: Callable[[str], None]) -> None:
        """`restart --rolling`.

        Raises:
            SystemFailure: it did not get to its end.
        """
        loop = asyncio.get_running_loop()
        directory, plan = self._known()
        supervisor = _Supervisor(directory, plan, self._run_node)

        def tell(text: str) -> None:
            loop.call_soon_threadsafe(say, text)

        try:
            await asyncio.to_thread(roll, supervisor, Interrupts(), _NODE_S, tell)
        except StartError as error:
            raise SystemFailure(f"restart --rolling: {error}") from error

    async def verify(self) -> tuple[int, dict[str, Any]]:
        """`verify --json`: its exit code and what it printed."""
        code, output = await self._command("verify", "--json")
        try:
            return code, orjson.loads(output)
        except orjson.JSONDecodeError as error:
            raise SystemFailure(f"verify ended with {code} and printed no JSON: {output[-500:]}") from error

    async def repair(self, member: str) -> None:
        """`repair --node MEMBER`.

        Raises:
            SystemFailure: its exit code was not 0.
        """
        code, output = await self._command("repair", "--node", member, "--timeout", "120")
        if code:
            raise SystemFailure(f"repair ended with {code}: {output[-500:]}")

    async def replace(self, old: str, new: str, http: str, raft: str, living: str) -> None:
        """`members replace OLD NEW`, asked of a node that lives; NEW was started at these addresses.

        Raises:
            SystemFailure: its exit code was not 0.
        """
        directory, plan = self._known()
        words = ("members", "replace", old, new, "--raft", raft, "--http", f"http://{http}")
        code, output = await self._command(*words, "--url", f"http://{living}", "--timeout", "120")
        if code:
            raise SystemFailure(f"members replace ended with {code}: {output[-500:]}")
        self._plan = plan.with_node(NodePlan(new, http, raft, joined=True)).without_node(old)
        directory.write_plan(self._plan)

    async def _command(self, *words: str) -> tuple[int, str]:
        directory, plan = self._known()
        where = () if "--url" in words else ("--data", str(directory.root))
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "cluster", *words, *where),
            env=clean(CHROMA_CLUSTER_SECRET=plan.secret),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            async with asyncio.timeout(_COMMAND_S):
                output, errors = await process.communicate()
        except TimeoutError as error:
            raise SystemFailure(f"{words[0]} did not end within {_COMMAND_S:g} s") from error
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        return process.returncode or 0, (output or errors).decode(errors="replace")

    def _known(self) -> tuple[DataDirectory, ClusterPlan]:
        if self._directory is None or self._plan is None:
            raise SystemFailure("the cluster was not started")
        return self._directory, self._plan
