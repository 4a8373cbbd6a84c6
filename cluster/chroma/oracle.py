"""A real `chroma run` beside the node, asked only for the words in which it refuses a request.

Chroma's server words the refusal of a malformed body from inside its JSON reader, with line and
column. Instead of imitating that, the node shows such a request to a Chroma child process over an
empty temporary directory and passes its 4xx on. The child starts at the first such request (most
nodes never need one), is started again if it died, and dies with the node.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import shutil
import tempfile
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import aiohttp

from cluster.chroma import plain
from cluster.chroma.death import death_of

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

log = logging.getLogger(__name__)

COLLECTIONS: Final = "/api/v2/tenants/default_tenant/databases/default_database/collections"

_START_TIMEOUT_S: Final = 30.0
_ANSWER_TIMEOUT_S: Final = 20.0
_POLL_S: Final = 0.02
_AT_ONCE: Final = 4
#: A child that broke a connection because it ended is known to have ended by then.
_END_S: Final = 0.1


@dataclass(frozen=True, slots=True)
class OracleAnswer:
    """What Chroma answered; `content_type` is None where it sends none."""

    status: int
    content_type: str | None
    body: bytes
    location: str | None = None

    @property
    def is_refusal(self) -> bool:
        """Whether this words a refusal that does not come from the oracle's own (empty) state."""
        return self.status == 501 or (400 <= self.status < 500 and self.status not in (404, 409))


class Oracle:
    """Lives on one event loop; `close` ends the child."""

    def __init__(self) -> None:
        self._lock = asyncio.Lock()
        self._slots = asyncio.Semaphore(_AT_ONCE)
        self._process: asyncio.subprocess.Process | None = None
        self._session: aiohttp.ClientSession | None = None
        self._directory: Path | None = None
        self._url = ""
        self._closed = False

    @property
    def pid(self) -> int | None:
        """The child's process id while it runs."""
        alive = self._process is not None and self._process.returncode is None
        return self._process.pid if alive and self._process else None

    async def ask(
        self, method: str, target: str, body: bytes = b"", content_type: str | None = None
    ) -> OracleAnswer | None:
        """Chroma's answer to this request; None if it gave none (it hangs up on some).

        Raises:
            EngineDied: the child crashed over this request; the next request starts it again.
        """
        async with self._slots:
            if not await self._ready() or self._session is None:
                return None
            headers = {} if content_type is None else {"Content-Type": content_type}
            skip = ("Content-Type",) if content_type is None else ()
            try:
                async with self._session.request(
                    method,
                    self._url + target,
                    data=body or None,
                    headers=headers,
                    skip_auto_headers=skip,
                    allow_redirects=False,
                ) as response:
                    return OracleAnswer(
                        response.status,
                        response.headers.get("Content-Type"),
                        await response.read(),
                        response.headers.get("Location"),
                    )
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                log.info("the oracle gave no answer to %s %s: %r", method, target[:200], error)
                if isinstance(error, TimeoutError) and self._process is not None:
                    self._process.kill()  # it hangs
                await self._require_alive()
                return None

    async def _require_alive(self) -> None:
        """Raises:
        EngineDied: the child has crashed.
        """
        process = self._process
        if process is None or self._closed:
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_END_S):
                await process.wait()
        if process.returncode is not None:
            death = death_of(process.pid, process.returncode, frozenset({1}), None, None)
            verdict = death.verdict(1)
            # One that was killed from outside says nothing about the request.
            if death.kind == "crashed" and verdict is not None:
                raise verdict

    @contextlib.asynccontextmanager
    async def collection(self) -> AsyncGenerator[str | None]:
        """Id of a fresh, empty collection in the oracle, for requests that need one to exist."""
        name = f"asked-{uuid.uuid4().hex}"
        made = await self.ask("POST", COLLECTIONS, b'{"name":"%s"}' % name.encode(), "application/json")
        if made is None or made.status != 200:
            yield None
            return
        try:
            # {"id":"<uuid>", ...}: the id comes first and is of fixed length.
            yield made.body[7:43].decode()
        finally:
            await self.ask("DELETE", f"{COLLECTIONS}/{name}")

    async def close(self) -> None:
        """End the child and remove its directory; nothing is answered afterwards."""
        async with self._lock:
            self._closed = True
            await self._end()

    async def _ready(self) -> bool:
        if self.pid is not None and self._url:
            return True
        async with self._lock:
            if self._closed:
                return False
            if self.pid is not None and self._url:
                return True
            try:
                await self._start()
            except (OSError, TimeoutError) as error:
                log.warning("the oracle (a Chroma child process) does not start: %r", error)
                await self._end()
                return False
            return True

    async def _start(self) -> None:
        await self._end()
        directory = Path(tempfile.mkdtemp(prefix="chroma-oracle-"))
        self._directory = directory
        port = plain.free_port()
        settings = directory / "chroma.yaml"
        settings.write_text(plain.configuration(directory / "data", port), encoding="utf-8")
        self._process = await plain.start(settings, directory / "output.log")
        self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=_ANSWER_TIMEOUT_S))
        url = f"http://127.0.0.1:{port}"
        async with asyncio.timeout(_START_TIMEOUT_S):
            while not await self._beats(url):
                if self._process.returncode is not None:
                    raise OSError(f"it ended with status {self._process.returncode} while starting")
                await asyncio.sleep(_POLL_S)
        self._url = url

    async def _beats(self, url: str) -> bool:
        if self._session is None:
            return False
        try:
            async with self._session.get(f"{url}/api/v2/heartbeat") as response:
                return response.status == 200
        except (aiohttp.ClientError, OSError):
            return False

    async def _end(self) -> None:
        self._url = ""
        if self._session is not None:
            await self._session.close()
            self._session = None
        if self._process is not None:
            if self._process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    self._process.kill()
            await self._process.wait()
            self._process = None
        if self._directory is not None:
            shutil.rmtree(self._directory, ignore_errors=True)
            self._directory = None
