"""This project: nodes and balancer as real processes, every link between any two of them behind a proxy.

A node dials peers by addresses of its own, so a proxy per link needs settings only. Of a pair, the node
with the greater id dials the Raft link; HTTP is dialled in both directions.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import aiohttp

from evaluation.checking.log import LogEvidence
from evaluation.failure import SystemFailure
from evaluation.processes import Child, free_port, wait_until
from evaluation.systems import http, journals, replicas
from evaluation.systems.environment import clean
from evaluation.systems.interface import Entry, Link, Observation, Promises
from evaluation.systems.operating import Operator
from wire.calls import proven
from wire.prover import Prover

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from evaluation.systems.proxies import Proxies

BALANCER: Final = "balancer"
ELECTION_TIMEOUT_MS: Final = 2000
"""The longest of a node's default; what "within 2 x election timeout" is counted from."""
_DEADLINE_S: Final = 120.0
_FSYNC_PAUSE_MS: Final = 400
_POISON: Final = "poison"
_MIB: Final = 1 << 20


@dataclass(slots=True)
class _Node:
    id: str
    """The member's own name, or that of the node which has taken its place."""
    http: str
    raft: str
    child: Child | None = None
    environment: dict[str, str] | None = None


class Cluster:
    """A `System` of `nodes` nodes and one balancer."""

    levels = ("linearizable", "session", "eventual")
    has_leader = True
    promises = Promises(
        durable=True,
        levels={"linearizable": "linearizable", "session": "session", "eventual": "eventual"},
        one_leader=True,
        converges=True,
        atomic_batches=True,
        available_majority=True,
    )

    def __init__(self, nodes: int = 3) -> None:
        self.name = "cluster" if nodes == 3 else f"cluster-{nodes}"
        self.members = tuple(f"node-{number}" for number in range(1, nodes + 1))
        self.links = tuple(_links(self.members))
        self.beside: Mapping[str, str] = {f"client@{member}": member for member in self.members}
        self.entries: tuple[Entry, ...] = ()
        self._folder = Path()
        self._nodes: dict[str, _Node] = {}
        self._balancer: Child | None = None
        self._session: aiohttp.ClientSession | None = None
        self._prover = Prover(b"")
        self._at: Mapping[str, str] = {}
        self._further: Mapping[str, str] = {}
        self.operator = Operator(self._run_node)

    # ------------------------------------------------------------------ start and stop

    async def start(self, folder: Path, proxies: Proxies) -> None:
        self._folder = folder
        self._session = aiohttp.ClientSession()
        (folder / "config").mkdir(parents=True)
        secret = folder / "config" / "secret"
        secret.touch(mode=0o600)
        secret.write_text(secrets.token_hex(16))
        self._prover = Prover(secret.read_bytes())
        (folder / "config" / _POISON).mkdir()
        for member in self.members:
            self._nodes[member] = _Node(member, _address(), _address())
        balancer = _address()
        at: dict[str, str] = {}
        for link in self.links:
            if link.acceptor == BALANCER:
                upstream = balancer
            elif link.plane == "raft":
                upstream = self._nodes[link.acceptor].raft
            else:
                upstream = self._nodes[link.acceptor].http
            at[link.proxy] = await proxies.create(link.proxy, upstream)
        for member in self.members:
            self._configure(member, at)
        self._at = at
        nodes = {member: f"http://{at[f'lb.{member}']}" for member in self.members}
        self._write_toml(
            BALANCER,
            {"listen": balancer, "cluster_id": "evaluation", "nodes": nodes, "secret_file": str(secret)},
        )
        self.entries = (
            Entry("lb", f"http://{at['client.lb']}"),
            *(Entry(member, f"http://{at[f'client.{member}']}", member) for member in self.members),
        )
        self.operator.begin(
            folder / "data",
            "evaluation",
            secret.read_text(),
            balancer,
            {member: (node.http, node.raft) for member, node in self._nodes.items()},
        )
        for member in self.members:
            self._run_node(member)
        self._run_balancer()
        await self._wait("all nodes healthy and caught up", self._is_healthy)
        for entry in self.entries:
            await self._wait(f"a write through {entry.name}", lambda url=entry.url: self._takes_writes(url))
        await self.settle()

    async def stop(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None
        children = [self._balancer, *(node.child for node in self._nodes.values())]
        await asyncio.gather(*(asyncio.to_thread(child.stop, 15.0) for child in children if child))
        self._balancer = None
        for node in self._nodes.values():
            node.child = None

    async def restart(self, participant: str) -> None:
        if self.pids(participant):
            return
        if participant == BALANCER:
            self._run_balancer()
            await self._wait("the balancer answers", self._balancer_answers)
            return
        self._run_node(participant)
        await self._wait(f"{participant} answers", lambda: self._answers(participant))

    async def settle(self) -> None:
        await self._wait("all nodes healthy and caught up", self._is_healthy)

    # ------------------------------------------------------------------ looking

    async def leader(self) -> str | None:
        leaders = [(seen.term or 0, seen.member) for seen in await self.observe() if seen.role == "leader"]
        # A node that is cut off may still think that it leads, in an older term.
        return max(leaders)[1] if leaders else None

    async def observe(self) -> list[Observation]:
        return list(await asyncio.gather(*(self._observe(member) for member in self.members)))

    async def health(self) -> str | None:
        statuses = dict(
            zip(
                self.members,
                await asyncio.gather(*(self._status(member) for member in self.members)),
                strict=True,
            )
        )
        silent = [member for member, status in statuses.items() if status is None]
        if silent:
            return f"no answer from {', '.join(silent)}"
        found = {member: status for member, status in statuses.items() if status is not None}
        ill = [f"{member}: {status['reason']}" for member, status in found.items() if not status["healthy"]]
        if ill:
            return f"not healthy: {'; '.join(ill)}"
        leaders = [member for member, status in found.items() if status["role"] == "leader"]
        if len(leaders) != 1:
            return f"one leader expected, these say they are: {leaders}"
        lonely = [m for m, status in found.items() if len(status["connected"]) < len(self.members) - 1]
        if lonely:
            return f"not connected to all peers: {', '.join(lonely)}"
        applied = {member: status["applied_index"] for member, status in found.items()}
        if len(set(applied.values())) != 1 or found[leaders[0]]["last_index"] not in applied.values():
            return f"not caught up: {applied}, the leader has {found[leaders[0]]['last_index']}"
        if not await self._balancer_answers():
            return "the balancer does not answer or sees no healthy cluster"
        return None

    def pids(self, participant: str) -> list[int]:
        child = self._balancer if participant == BALANCER else self._nodes[participant].child
        return [] if child is None else child.pids()

    def disk(self, member: str) -> Path:
        node = self._nodes.get(member)
        return self._folder / "data" / (member if node is None else node.id)

    async def log_evidence(self) -> LogEvidence:
        """What the members' journals hold as committed, whether they run or not."""
        committed: dict[str, int | None] = dict.fromkeys(self.members)
        if self._session is not None:
            for member in self.members:
                status = await self._status(member)
                committed[member] = None if status is None else int(status["commit_index"])
        entries = {
            member: await asyncio.to_thread(
                journals.committed_entries, self.disk(member) / journals.FILE, committed[member]
            )
            for member in self.members
        }
        return LogEvidence(entries)

    # ------------------------------------------------------------------ what only some faults ask for

    async def slow_fsync(self, member: str, slow: bool) -> None:
        """Each write to the member's journal takes 0.4 s longer, from now on, or no longer."""
        flag = self._slow_flag(member)
        if slow:
            flag.touch()
        else:
            flag.unlink(missing_ok=True)

    async def damage(self, member: str) -> str:
        """Flip one byte of an entry in the stopped member's journal; says where."""
        return await asyncio.to_thread(journals.flip_byte, self.disk(member) / journals.FILE)

    async def refusal(self, member: str) -> str:
        """Start a stopped member whose data is damaged; the reason that it gives when it ends by itself.

        Raises:
            SystemFailure: it runs, or ends without an error.
        """
        self._run_node(member)
        child = self._child(member)

        async def ended() -> bool:
            return child.returncode is not None

        await self._wait(f"{member} ends, because its journal is damaged", ended)
        child.kill()
        tail = child.log_tail(5)
        if child.returncode == 0:
            raise SystemFailure(f"{member} ended with 0 although its journal is damaged\n{tail}")
        return tail

    async def engine(self, member: str) -> int | None:
        """The process that runs the member's Chroma, as the member says."""
        status = await self._status(member)
        pid = None if status is None else status["engine"]["pid"]
        return None if pid is None else int(pid)

    @property
    def poison(self) -> Path:
        """While a file `raise`, `die` or `hang` is in there, every member's engine fails in that way on each
        write with a record whose id begins with `poison-`."""
        return self._folder / "config" / _POISON

    async def corrupt(self, member: str, collection: str, record: str, part: str) -> str:
        """Change the `metadata` value n or the `vector` of a record of the stopped member; says what."""
        chroma = self.disk(member) / "chroma"
        if part == "vector":
            return await asyncio.to_thread(replicas.flip_vector_bit, chroma, collection, record)
        return await asyncio.to_thread(replicas.change_metadata, chroma, collection, record, "n")

    async def keep_short_logs(self, say: Callable[[str], None], snapshot_bytes_per_s: int = 0) -> None:
        """From now on a member keeps one MiB of its log, whoever is away; by a rolling restart.

        `snapshot_bytes_per_s`: how fast it gives its state to one that lacks what is gone; 0: no limit.
        """
        short = {
            "CHROMA_CLUSTER_JOURNAL_BUDGET_BYTES": str(_MIB),
            "CHROMA_CLUSTER_LOG_RETENTION_BYTES": str(_MIB),
        }
        self._further = {**short, "CHROMA_CLUSTER_SNAPSHOT_BYTES_PER_S": str(snapshot_bytes_per_s)}
        await self.operator.restart_rolling(say)

    async def donor(self, member: str) -> str | None:
        """Whose state the member is given at this moment, once bytes have come; None: nobody's."""
        status = await self._status(member)
        filling = None if status is None else status["filling"]
        if not filling or not filling["bytes"]:
            return None
        return next((name for name, node in self._nodes.items() if node.id == filling["donor"]), None)

    async def first_entry(self, member: str) -> int:
        """The oldest index that is in the member's log; 0: there is none."""
        return await asyncio.to_thread(journals.first_index, self.disk(member) / journals.FILE)

    async def replace(self, member: str, say: Callable[[str], None]) -> str:
        """A node with another id and an empty directory takes the place of this member, which is dead: at its
        HTTP address, so that its clients find the new one. Returns the new id."""
        old, node = self._nodes[member].id, self._nodes[member]
        numbers = [int(each.id.rpartition("-")[2]) for each in self._nodes.values()]
        node.id, node.raft = f"node-{max(numbers) + 1}", _address()
        living = next(other for other in self.members if other != member and self.pids(other))
        self._configure(member, self._at, join=f"http://{self._nodes[living].http}")
        self._run_node(member)
        say(f"{node.id} is started in the place of {old}")
        await self.operator.replace(old, node.id, node.http, node.raft, self._nodes[living].http)
        await self._wait(f"{node.id} answers", lambda: self._answers(member))
        return node.id

    async def environment(self, member: str, variables: Mapping[str, str] | None) -> None:
        """Restart the member with further environment variables; None: with none."""
        await asyncio.to_thread(self._child(member).stop)
        self._nodes[member].environment = None if variables is None else dict(variables)
        await self.restart(member)

        async def healthy() -> bool:
            status = await self._status(member)
            return status is not None and bool(status["healthy"])

        # Not caught up to the last entry: under traffic there is always a later one.
        await self._wait(f"{member} is healthy", healthy)

    # ------------------------------------------------------------------ inside

    def _configure(self, member: str, at: Mapping[str, str], *, join: str | None = None) -> None:
        """Write the settings of the member's node; `at`: where the proxy of each link listens."""
        node = self._nodes[member]
        peers = {
            # Who has the smaller id never dials: what it would dial leads nowhere but to the node itself.
            self._nodes[other].id: {
                "raft": at.get(f"raft.{member}.{other}", self._nodes[other].raft),
                "http": f"http://{at[f'http.{member}.{other}']}",
            }
            for other in self.members
            if other != member
        }
        settings: dict[str, Any] = {
            "node_id": node.id,
            "cluster_id": "evaluation",
            "data_dir": str(self.disk(member)),
            "http": node.http,
            "raft": node.raft,
            "secret_file": str(self._folder / "config" / "secret"),
            "allow_reset": True,
            # Clients under faults go to nodes too, past the balancer, and are stock clients.
            "allow_direct_clients": True,
            "peers": peers,
        }
        self._write_toml(member, settings if join is None else {"join": join, **settings})

    def _write_toml(self, name: str, settings: Mapping[str, Any]) -> None:
        lines = [
            f"{key} = {json.dumps(value)}" for key, value in settings.items() if not isinstance(value, dict)
        ]
        for key, table in settings.items():
            if isinstance(table, dict):
                lines.append(f"[{key}]")
                lines += [f"{json.dumps(item)} = {_toml(value)}" for item, value in table.items()]  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
        (self._folder / "config" / f"{name}.toml").write_text("\n".join(lines) + "\n")

    def _run_node(self, member: str) -> None:
        node = self._nodes[member]
        pause = f"journal.before_fsync=pause:{_FSYNC_PAUSE_MS}@{self._slow_flag(member)}"
        environment = clean(
            CHROMA_CLUSTER_FAILPOINTS=pause,
            CHROMA_CLUSTER_POISON=str(self.poison),
            **self._further,
            **(node.environment or {}),
        )
        config = self._folder / "config" / f"{member}.toml"
        command = [sys.executable, "-m", "cluster", "node", "--config", str(config)]
        if node.child is not None and node.child.returncode is None:
            node.child.pids()  # the command for it has stopped that one, and nobody has reaped it
        # Not the checkout as working directory: a node must not depend on where it is started.
        node.child = Child(command, self._log(member), environment, cwd=self._folder / "config")
        self.operator.started(node.id, node.child.pid)

    def _run_balancer(self) -> None:
        config = self._folder / "config" / f"{BALANCER}.toml"
        command = [sys.executable, "-m", "cluster", "lb", "--config", str(config)]
        self._balancer = Child(command, self._log(BALANCER), clean(), cwd=self._folder / "config")
        self.operator.started_balancer(self._balancer.pid)

    def _log(self, name: str) -> Path:
        return self._folder / "logs" / f"{name}.log"

    def _slow_flag(self, member: str) -> Path:
        return self._folder / "config" / f"slow-fsync.{member}"

    def _child(self, member: str) -> Child:
        child = self._nodes[member].child
        if child is None:
            raise SystemFailure(f"{member} was never started")
        return child

    async def _status(self, member: str, timeout_s: float = 2.0) -> Mapping[str, Any] | None:
        assert self._session is not None
        timeout = aiohttp.ClientTimeout(total=timeout_s)
        node = f"http://{self._nodes[member].http}"
        try:
            async with proven(
                self._session, self._prover, "GET", node, "/cluster/status", timeout=timeout
            ) as answer:
                return await answer.json() if answer.status == 200 else None
        except (aiohttp.ClientError, TimeoutError, ValueError):
            return None

    async def _observe(self, member: str) -> Observation:
        node = self._nodes[member]
        status = await self._status(member, 0.5)
        now = time.monotonic_ns()
        if status is None:
            lives = node.child is not None and bool(node.child.pids())
            return Observation(member, now, "silent" if lives else "stopped", healthy=False)
        return Observation(
            member,
            now,
            status["role"],
            term=status["term"],
            applied=status["applied_index"],
            healthy=status["healthy"],
            detail=status["reason"] or "",
        )

    async def _answers(self, member: str) -> bool:
        child = self._child(member)
        if child.returncode is not None:
            raise SystemFailure(f"{member} ended with {child.returncode}\n{child.log_tail()}")
        return await self._status(member) is not None

    async def _balancer_answers(self) -> bool:
        assert self._session is not None
        status = await http.get_json(self._session, f"{self.entries[0].url}/cluster/status", 2.0)
        return status is not None and bool(status["healthy"])

    async def _is_healthy(self) -> bool:
        for name, child in self._children():
            if child.returncode is not None:
                raise SystemFailure(f"{name} ended with {child.returncode}\n{child.log_tail()}")
        return await self.health() is None

    async def _takes_writes(self, url: str) -> bool:
        assert self._session is not None
        return await http.takes_writes(self._session, url, 15.0)

    def _children(self) -> list[tuple[str, Child]]:
        named = [(BALANCER, self._balancer), *((name, node.child) for name, node in self._nodes.items())]
        return [(name, child) for name, child in named if child is not None]

    async def _wait(self, what: str, condition: Callable[[], Awaitable[bool]]) -> None:
        try:
            await wait_until(what, condition, _DEADLINE_S, pause_s=0.1)
        except TimeoutError as error:
            health = await self.health()
            tails = "\n".join(f"--- {name}\n{child.log_tail()}" for name, child in self._children())
            raise SystemFailure(f"{error}: {health}\n{tails}") from error


def _address() -> str:
    return f"127.0.0.1:{free_port()}"


def _toml(value: object) -> str:
    """A string, or an inline table of strings."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {json.dumps(item)}" for key, item in value.items()) + "}"  # pyright: ignore[reportUnknownVariableType]
    return json.dumps(value)


def _links(members: tuple[str, ...]) -> list[Link]:
    links = [Link("client.lb", "client", BALANCER, "client")]
    for member in members:
        links.append(Link(f"lb.{member}", BALANCER, member, "balancer"))
        links.append(Link(f"client.{member}", f"client@{member}", member, "client"))
        for other in members:
            if member != other:
                links.append(Link(f"http.{member}.{other}", member, other, "http"))
            if member > other:
                links.append(Link(f"raft.{member}.{other}", member, other, "raft"))
    return links
