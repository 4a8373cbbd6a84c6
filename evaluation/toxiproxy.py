"""The real Toxiproxy server and its proxies, each change verified by reading it back.

Changes are made with toxiproxy-python. It knows one server per process (host and port belong to its
class), never times out, takes any answer from 500 on for success and cannot update a toxic. So each of
its calls runs in a thread, alone, under a deadline, and what counts is what the server says afterwards.
"""

from __future__ import annotations

import asyncio
import math
import os
import shutil
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol, cast

import aiohttp
from toxiproxy import Proxy, Toxiproxy
from toxiproxy.exceptions import InvalidToxic, NotFound, ProxyExists

from evaluation.processes import Child, free_port, wait_until
from evaluation.systems.interface import SystemFailure

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

DEADLINE_S: Final = 15.0
_HOST: Final = "127.0.0.1"
_ONE_AT_A_TIME = threading.Lock()


@dataclass(frozen=True, slots=True)
class Toxic:
    """One toxic of Toxiproxy 2.12: its kind, stream (`upstream` is dialer -> acceptor) and attributes."""

    name: str
    kind: str
    stream: str
    attributes: Mapping[str, int] = field(default_factory=dict[str, int])
    toxicity: float = 1.0


class Proxies(Protocol):
    """What systems and faults need of a Toxiproxy server."""

    async def create(self, name: str, upstream: str) -> str:
        """A proxy to `upstream`; returns where it listens. Both are host:port. The name must be new."""
        ...

    async def enable(self, name: str, enabled: bool) -> None:
        """Disabled: live connections are closed and new ones refused."""
        ...

    async def add(self, name: str, toxic: Toxic) -> None: ...

    async def remove(self, name: str, toxic: str) -> None: ...

    async def reset(self) -> None:
        """All proxies enabled, all toxics gone."""
        ...

    def listen(self, name: str) -> str:
        """Where the proxy listens, host:port.

        Raises:
            SystemFailure: there is no such proxy.
        """
        ...


def find_server() -> Path:
    """The Toxiproxy server's program: $TOXIPROXY, this checkout's .cache/bin/server, or on the PATH.

    Raises:
        SystemFailure: there is none, and how to get it.
    """
    named = os.environ.get("TOXIPROXY")
    if named:
        if os.access(named, os.X_OK):
            return Path(named)
        raise SystemFailure(f"TOXIPROXY names {named}, which is not a program that can be run")
    built = Path(__file__).parents[1] / ".cache" / "bin" / "server"
    if os.access(built, os.X_OK):
        return built
    on_path = shutil.which("toxiproxy-server")
    if on_path:
        return Path(on_path)
    raise SystemFailure(
        "The Toxiproxy server, through which all links go, was not found. `make toxiproxy` builds it "
        f"into {built}; or name its program in the variable TOXIPROXY."
    )


class ToxiproxyServer:
    """`Proxies` on a server process of its own."""

    def __init__(self) -> None:
        self._child: Child | None = None
        self._port = 0
        self._session: aiohttp.ClientSession | None = None
        self._listen: dict[str, str] = {}

    async def start(self, binary: Path | None, log: Path) -> None:
        """Start the server; `binary` None: the one of `find_server`."""
        binary = find_server() if binary is None else binary
        self._port = free_port()
        self._session = aiohttp.ClientSession(
            f"http://{_HOST}:{self._port}", timeout=aiohttp.ClientTimeout(total=DEADLINE_S)
        )
        self._child = Child([str(binary), "-host", _HOST, "-port", str(self._port)], log)
        try:
            await wait_until("the Toxiproxy server's API", self._answers, DEADLINE_S)
        return ""

    async def _get(self, path: str, *, missing: bool = False) -> dict[str, Any] | None:
        assert self._session is not None
        try:
            async with self._session.get(path) as response:
                if missing and response.status == 404:
                    return None
                if response.status != 200:
                    text = await response.text()
                    raise SystemFailure(f"Toxiproxy answers {response.status} to GET {path}: {text}")
                return await response.json()
        except (aiohttp.ClientError, TimeoutError) as error:
            raise SystemFailure(f"Toxiproxy does not answer GET {path}: {error!r}\n{self._tail()}") from error

    async def _answers(self) -> bool:
        child = self._running()
        if child.returncode is not None:
            raise SystemFailure(f"the Toxiproxy server ended with {child.returncode}\n{child.log_tail()}")
        assert self._session is not None
        try:
            async with self._session.get("/proxies") as response:
                return response.status == 200
        except aiohttp.ClientError:
            return False

    def _running(self) -> Child:
        if self._child is None:
            raise SystemFailure("the Toxiproxy server is not running")
        return self._child

    def _tail(self) -> str:
        return "" if self._child is None else self._child.log_tail(10)
