"""`naive`: three `chroma run`, each behind its gateway, a round-robin balancer, a sync agent."""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import aiohttp

from evaluation.failure import SystemFailure
from evaluation.processes import Child, free_port, wait_until
from evaluation.systems import http
from evaluation.systems.interface import Entry, Link, Observation, Promises
from evaluation.systems.program import log_tails, start_chroma, start_module

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from evaluation.systems.proxies import Proxies

BALANCER: Final = "balancer"
AGENT: Final = "agent"
SYNC_S: Final = 5.0
_DEADLINE_S: Final = 120.0


@dataclass(slots=True)
class _Member:
    chroma_port: int = field(default_factory=free_port)
    gateway_port: int = field(default_factory=free_port)
    chroma: Child | None = None
    gateway: Child | None = None
    variables: Mapping[str, str] | None = None

    def children(self) -> list[Child]:
        return [child for child in (self.chroma, self.gateway) if child is not None]


class Naive:
    """A `System`. A member is a Chroma server with its gateway: they live, pause and die together."""

    levels = ("default",)
    has_leader = False

    def __init__(
        self,
        strategy: str,
        *,
        tombstones: bool = False,
        scope: str = "record",
        sync_s: float = SYNC_S,
        members: int = 3,
    ) -> None:
        """`tombstones` and `scope` ("record" or "store") are settings of last write wins."""
        self.name = f"naive-{strategy}"
        self.strategy = strategy
        self.sync_s = sync_s
        self._tombstones = tombstones
        self._scope = scope
        self.members = tuple(f"chroma-{number}" for number in range(1, members + 1))
        self.promises = Promises(
            # What is acknowledged may be discarded or hidden later: such systems promise to be available
            # everywhere and, but for the manual queue, to agree in the end.
            levels={"default": "eventual"},
            converges=strategy != "manual",
            available_majority=True,
        )
        self.links = (
            Link("client.lb", "client", BALANCER, "client"),
            *(Link(f"lb.{member}", BALANCER, member, "balancer") for member in self.members),
            *(Link(f"sync.{member}", AGENT, member, "sync") for member in self.members),
            *(Link(f"client.{member}", f"client@{member}", member, "client") for member in self.members),
        )
        self.beside: Mapping[str, str] = {f"client@{member}": member for member in self.members}
        self.entries: tuple[Entry, ...] = ()
        self._folder = Path()
        self._members: dict[str, _Member] = {}
        self._at: dict[str, str] = {}
        self._ports = {BALANCER: 0, AGENT: 0}
        self._others: dict[str, Child] = {}
        self._session: aiohttp.ClientSession | None = None

    # ------------------------------------------------------------------ start and stop

    async def start(self, folder: Path, proxies: Proxies) -> None:
        self._folder = folder
        self._session = aiohttp.ClientSession()
        (folder / "config").mkdir(parents=True)
        self._members = {member: _Member() for member in self.members}
        self._ports = {BALANCER: free_port(), AGENT: free_port()}
        for link in self.links:
            port = (
                self._ports[BALANCER]
                if link.acceptor == BALANCER
                else self._members[link.acceptor].gateway_port
            )
            self._at[link.proxy] = await proxies.create(link.proxy, f"127.0.0.1:{port}")
        self.entries = (
            Entry("lb", f"http://{self._at['client.lb']}"),
            *(Entry(member, f"http://{self._at[f'client.{member}']}", member) for member in self.members),
        )
        for member in self.members:
            self._run_member(member)
        await asyncio.gather(*(self._up(member) for member in self.members))
        self._run_balancer()
        # Not at the balancer: it would make the probe's collection at one member and drop it at the next.
        for entry in self.entries[1:]:
            await self._wait(f"a write through {entry.name}", lambda url=entry.url: self._takes_writes(url))
        # The agent last: without tombstones it would bring a dropped collection back.
        self._run_agent()
        await self._wait("a round of the agent reaches all members", self._healthy)

    async def stop(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None
        children = [child for _, child in self._children()]
        await asyncio.gather(*(asyncio.to_thread(child.stop) for child in children))
        self._others.clear()
        for member in self._members.values():
            member.chroma = member.gateway = None

    async def restart(self, participant: str) -> None:
        if participant in self._members:
            member = self._members[participant]
            if not (member.chroma and member.chroma.pids() and member.gateway and member.gateway.pids()):
                self._run_member(participant)
            await self._up(participant)
        elif not self.pids(participant):
            self._run_balancer() if participant == BALANCER else self._run_agent()
            await self._wait(f"{participant} answers", self._others_answer)

    async def settle(self) -> None:
        """Rounds of the agent until one reaches all members and finds nothing to copy."""

        async def quiet() -> bool:
            done = await self._agent("POST", "/round", _DEADLINE_S)
            return done is not None and not done["failed"] and done["copied"] == 0

        await self._wait("the agent finds nothing to copy", quiet)

    # ------------------------------------------------------------------ looking

    async def leader(self) -> str | None:
        return None

    async def health(self) -> str | None:
        answers = await asyncio.gather(*(self._status(member, 5.0) for member in self.members))
        silent = [name for name, answer in zip(self.members, answers, strict=True) if answer is None]
        if silent:
            return f"no answer from {', '.join(silent)}"
        if not await self._others_answer():
            return "the balancer or the agent does not answer"
        last = await self._agent("GET", "/status", 5.0)
        if last is None or len(last["reached"]) < len(self.members) or last["failed"]:
            return f"the agent's last round did not reach all members: {last}"
        return None

    async def observe(self) -> list[Observation]:
        return list(await asyncio.gather(*(self._observe(member) for member in self.members)))

    def pids(self, participant: str) -> list[int]:
        if participant in self._members:
            return [pid for child in self._members[participant].children() for pid in child.pids()]
        child = self._others.get(participant)
        if child is None and participant not in self._ports:
            raise KeyError(participant)
        return [] if child is None else child.pids()

    def disk(self, member: str) -> Path:
        return self._folder / "data" / member

    async def counters(self) -> dict[str, int]:
        """Rounds of the agent, documents it copied, conflicts that wait for the operator, and documents of
        which members keep more than one version."""
        status = await self._agent("GET", "/status", 5.0)
        if status is None:
            return {}
        kept = {
            (name, id)
            for member in self.members
            for name, documents in (await self._conflicts(member)).items()
            for id in documents
        }
        return {
            "rounds": status["number"],
            "copied": status["copied_in_all"],
            "waiting": status["waiting"],
            "conflicts": len(kept),
        }

    async def examine(self) -> dict[str, Any]:
        """What the traffic cannot see, after it: the same for every system that has something to show."""
        counts = await self.counters()
        kept = {kind: counts[kind] for kind in ("conflicts", "waiting") if counts.get(kind)}
        queue = {name: sorted(documents) for name, documents in (await self.queue()).items()}
        return {"own_errors": kept, **counts, "queue": queue}

    async def siblings(self, collection: str) -> dict[str, int]:
        """Document -> versions kept at the first member, where there is more than one."""
        return (await self._conflicts(self.members[0])).get(collection, {})

    # ------------------------------------------------------------------ what an operator, or a fault, does

    async def queue(self) -> dict[str, Any]:
        """Collection -> document -> versions by member: the conflicts that wait."""
        return await self._agent("GET", "/queue", 5.0) or {}

    async def resolve(self, collection: str, id: str, winner: str) -> bool:
        """The operator's decision on a waiting conflict; False: it could not be carried out."""
        asked = {"collection": collection, "id": id, "winner": winner}
        return await self._agent("POST", "/resolve", 30.0, asked) is not None

    def set_clock(self, member: str, offset_ms: int) -> None:
        """The member's wall clock is wrong by this much, from its next write on."""
        path = self._clock_file(member)
        temporary = path.with_suffix(".new")
        temporary.write_text(str(offset_ms))
        temporary.replace(path)

    async def environment(self, member: str, variables: Mapping[str, str] | None) -> None:
        """Restart the member's gateway, where stamps are made, with further environment variables; None: with
        none."""
        state = self._members[member]
        state.variables = variables
        if state.gateway is not None:
            await asyncio.to_thread(state.gateway.stop)
        self._run_gateway(member)
        await self._up(member)

    # ------------------------------------------------------------------ inside

    def _run_member(self, member: str) -> None:
        state = self._members[member]
        for child in state.children():
            child.kill()
        config = self._folder / "config" / f"{member}.yaml"
        config.write_text(
            f"port: {state.chroma_port}\nlisten_address: 127.0.0.1\n"
            f"persist_path: {json.dumps(str(self.disk(member) / 'chroma'))}\nallow_reset: true\n"
        )
        state.chroma = start_chroma([str(config)], self._log(member), self._folder)
        self._run_gateway(member)

    def _run_gateway(self, member: str) -> None:
        state = self._members[member]
        options = {
            "member": member,
            "port": state.gateway_port,
            "chroma": f"http://127.0.0.1:{state.chroma_port}",
            "strategy": self.strategy,
            "tombstones": self._tombstones,
            "folder": str(self.disk(member)),
            "clock_offset_file": str(self._clock_file(member)),
        }
        state.gateway = self._program("naive.gateway", f"{member}.gateway", options, state.variables)

    def _run_balancer(self) -> None:
        backends = [f"http://{self._at[f'lb.{member}']}" for member in self.members]
        options = {"port": self._ports[BALANCER], "backends": backends}
        self._others[BALANCER] = self._program("round_robin", BALANCER, options)

    def _run_agent(self) -> None:
        options = {
            "port": self._ports[AGENT],
            "members": {member: f"http://{self._at[f'sync.{member}']}" for member in self.members},
            "strategy": self.strategy,
            "tombstones": self._tombstones,
            "scope": self._scope,
            "sync_s": self.sync_s,
            "queue_file": str(self._folder / "conflicts.json"),
        }
        self._others[AGENT] = self._program("naive.agent", AGENT, options)

    def _program(
        self, module: str, name: str, options: Mapping[str, Any], variables: Mapping[str, str] | None = None
    ) -> Child:
        return start_module(module, [json.dumps(options)], self._log(name), variables)

    def _log(self, name: str) -> Path:
        return self._folder / "logs" / f"{name}.log"

    def _clock_file(self, member: str) -> Path:
        return self._folder / "config" / f"{member}.clock-offset-ms"

    async def _status(self, member: str, timeout_s: float) -> Mapping[str, Any] | None:
        assert self._session is not None
        url = f"http://127.0.0.1:{self._members[member].gateway_port}/sync/status"
        return await http.get_json(self._session, url, timeout_s)

    async def _conflicts(self, member: str) -> Mapping[str, dict[str, int]]:
        assert self._session is not None
        url = f"http://127.0.0.1:{self._members[member].gateway_port}/sync/conflicts"
        return await http.get_json(self._session, url, 10.0) or {}

    async def _observe(self, member: str) -> Observation:
        answer = await self._status(member, 0.5)
        role = "peer" if answer else ("silent" if self.pids(member) else "stopped")
        merged = "" if answer is None else f"{answer['merged']} documents brought by the agent"
        return Observation(member, time.monotonic_ns(), role, healthy=answer is not None, detail=merged)

    async def _agent(
        self, method: str, path: str, timeout_s: float, body: Any = None
    ) -> dict[str, Any] | None:
        assert self._session is not None
        url = f"http://127.0.0.1:{self._ports[AGENT]}{path}"
        timeout = aiohttp.ClientTimeout(total=timeout_s)
        try:
            async with self._session.request(method, url, json=body, timeout=timeout) as response:
                return await response.json() if response.status == 200 else None
        except (aiohttp.ClientError, TimeoutError):
            return None

    async def _others_answer(self) -> bool:
        assert self._session is not None
        # Not a heartbeat through the balancer: a member that is down would fail every third one.
        if not self.pids(BALANCER) or not self.pids(AGENT):
            return False
        url = f"http://127.0.0.1:{self._ports[BALANCER]}/api/v2/heartbeat"
        balancer = await http.get_json(self._session, url, 5.0)
        return balancer is not None and await self._agent("GET", "/status", 5.0) is not None

    async def _healthy(self) -> bool:
        return await self.health() is None

    async def _up(self, member: str) -> None:
        async def answers() -> bool:
            for child in self._members[member].children():
                if child.returncode is not None:
                    raise SystemFailure(f"{member} ended with {child.returncode}\n{child.log_tail()}")
            return await self._status(member, 2.0) is not None

        await self._wait(f"{member} answers", answers)

    async def _takes_writes(self, url: str) -> bool:
        assert self._session is not None
        return await http.takes_writes(self._session, url, 10.0)

    def _children(self) -> list[tuple[str, Child]]:
        return [
            *((name, child) for name, state in self._members.items() for child in state.children()),
            *self._others.items(),
        ]

    async def _wait(self, what: str, condition: Callable[[], Awaitable[bool]]) -> None:
        try:
            await wait_until(f"{self.name}: {what}", condition, _DEADLINE_S)
        except TimeoutError as error:
            last = await self._agent("GET", "/status", 5.0)
            tails = log_tails(self._children())
            raise SystemFailure(f"{error} The agent's last round: {last}\n{tails}") from error
