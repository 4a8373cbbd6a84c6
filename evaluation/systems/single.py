"""One `chroma run` that all clients share: no copy, no failover, nothing to disagree with."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

import aiohttp

from evaluation.failure import SystemFailure
from evaluation.processes import Child, free_port, wait_until
from evaluation.systems import http
from evaluation.systems.interface import Entry, Link, Observation, Promises
from evaluation.systems.program import start_chroma

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from evaluation.systems.proxies import Proxies

MEMBER: Final = "chroma-1"
_DEADLINE_S: Final = 120.0


class Single:
    """A `System` of one member."""

    name = "single"
    members = (MEMBER,)
    levels = ("default",)
    has_leader = False
    links = (Link("client.lb", "client", MEMBER, "client"),)
    promises = Promises(durable=True, levels={"default": "linearizable"}, converges=True)

    def __init__(self) -> None:
        self._folder = Path()
        self._port = 0
        self._child: Child | None = None
        self._session: aiohttp.ClientSession | None = None
        self.entries: tuple[Entry, ...] = ()
        self.beside: Mapping[str, str] = {}

    async def start(self, folder: Path, proxies: Proxies) -> None:
        self._folder = folder
        self._port = free_port()
        self._session = aiohttp.ClientSession()
        listen = await proxies.create("client.lb", f"127.0.0.1:{self._port}")
        self.entries = (Entry("lb", f"http://{listen}"),)
        self._run()
        await self._wait("writes are answered", self._takes_writes)

    async def stop(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None
        if self._child is not None:
            await asyncio.to_thread(self._child.stop)
            self._child = None

    async def leader(self) -> str | None:
        return None

    async def health(self) -> str | None:
        if await self._answers(5.0):
            return None
        return "chroma-1 does not answer its heartbeat"

    async def observe(self) -> list[Observation]:
        lives = self._child is not None and bool(self._child.pids())
        answers = lives and await self._answers(0.5)
        role = "peer" if answers else ("silent" if lives else "stopped")
        return [Observation(MEMBER, time.monotonic_ns(), role, healthy=answers)]

    def pids(self, participant: str) -> list[int]:
        if participant != MEMBER:
            raise KeyError(participant)
        return [] if self._child is None else self._child.pids()

    async def restart(self, participant: str) -> None:
        if not self.pids(participant):
            self._run()
        await self._wait("its heartbeat is answered", lambda: self._answers(5.0))

    async def settle(self) -> None:
        await self._wait("its heartbeat is answered", lambda: self._answers(5.0))

    def disk(self, member: str) -> Path:
        if member != MEMBER:
            raise KeyError(member)
        return self._folder / MEMBER

    # ------------------------------------------------------------------ inside

    def _run(self) -> None:
        arguments = ["--path", str(self.disk(MEMBER)), "--port", str(self._port)]
        self._child = start_chroma(arguments, self._folder / "logs" / f"{MEMBER}.log", self._folder)

    async def _takes_writes(self) -> bool:
        assert self._session is not None
        return await http.takes_writes(self._session, self.entries[0].url, 10.0)

    async def _answers(self, timeout_s: float) -> bool:
        assert self._session is not None
        url = f"http://127.0.0.1:{self._port}/api/v2/heartbeat"
        return await http.get_json(self._session, url, timeout_s) is not None

    async def _wait(self, what: str, condition: Callable[[], Awaitable[bool]]) -> None:
        assert self._child is not None
        child = self._child
        try:
            await wait_until(f"{MEMBER}: {what}", condition, _DEADLINE_S)
        except TimeoutError as error:
            raise SystemFailure(f"{error}\n{child.log_tail()}") from error
