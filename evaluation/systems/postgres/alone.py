"""One Postgres server with one API server and nothing else: for tests of the API, and to see its price."""

from __future__ import annotations

import asyncio
import shutil
from typing import TYPE_CHECKING, Final

import aiohttp

from evaluation.failure import SystemFailure
from evaluation.processes import free_port, wait_until
from evaluation.systems import http
from evaluation.systems.postgres.bouncer import Bouncer
from evaluation.systems.postgres.installation import prepare
from evaluation.systems.postgres.programs import home, programs
from evaluation.systems.postgres.servers import Server
from evaluation.systems.postgres.settings import ApiSettings
from evaluation.systems.program import start_module

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType

    from evaluation.processes import Child

_MEMBER: Final = "pg-1"
_DEADLINE_S: Final = 60.0


class Alone:
    """An async context: `url` of the API, `address` of Postgres (host:port, user and database postgres)."""

    def __init__(self, folder: Path) -> None:
        """`folder`: where its data go; made if it is not there."""
        self._folder = folder
        self.url = ""
        self.address = ""
        self._place = folder
        self._server: Server | None = None
        self._bouncer: Bouncer | None = None
        self._api: Child | None = None

    async def __aenter__(self) -> Alone:
        try:
            await self._start()
        except BaseException:
            await self._stop()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stop()

    async def _start(self) -> None:
        await asyncio.to_thread(self._folder.mkdir, parents=True, exist_ok=True)
        place = await asyncio.to_thread(home, self._folder)
        self._place = place
        binaries = await asyncio.to_thread(programs, place)
        self._server = Server(
            _MEMBER, place / "data", free_port(), binaries, self._folder / "logs" / f"{_MEMBER}.log"
        )
        await self._server.initialize()
        await self._server.start()
        self.address = self._server.address
        await prepare(self.address)
        self._bouncer = Bouncer("pgbouncer-1", place, {_MEMBER: self.address})
        await self._bouncer.start()
        port = free_port()
        settings = self._folder / "api-1.json"
        ApiSettings(
            name="api-1",
            listen=f"127.0.0.1:{port}",
            local=_MEMBER,
            members=(_MEMBER,),
            pgbouncer=self._bouncer.address,
            supervisor=None,
            lease_s=1.0,
        ).save(settings)
        arguments = ["--config", str(settings)]
        child = start_module("postgres.api", arguments, self._folder / "logs" / "api-1.log")
        self._api = child
        url = f"http://127.0.0.1:{port}"
        async with aiohttp.ClientSession() as session:

            async def answers() -> bool:
                if child.returncode is not None:
                    raise SystemFailure(f"The API server ended. {child.log_tail()}")
                return await http.takes_writes(session, url, 10.0)

            await wait_until("the API server to take writes", answers, _DEADLINE_S, context=child.log_tail)
        self.url = url

    async def _stop(self) -> None:
        if self._api is not None:
            await asyncio.to_thread(self._api.stop, 3.0)
        if self._bouncer is not None:
            await self._bouncer.stop()
        if self._server is not None:
            await self._server.stop()
        if self._place != self._folder:
            await asyncio.to_thread(shutil.rmtree, self._place, True)
