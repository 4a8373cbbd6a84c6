"""Failover and backup really done once on each system, while one client writes."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import shutil
import signal
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import aiohttp
import orjson
from chromadb import PersistentClient
from chromadb.config import Settings

from evaluation.costs import http_load as load
from evaluation.costs.sql import primary_address
from evaluation.failure import SystemFailure
from evaluation.processes import wait_until
from evaluation.systems.postgres.programs import programs

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from pathlib import Path

    from evaluation.systems.interface import System
    from evaluation.systems.proxies import Proxies

COLLECTION = "drill"
_ANSWER_S = 3.0
_PATIENCE_S = 20.0
"""So long a system has to take writes again by itself; after that a person restarts what was killed."""
_OWN_END_S = 5.0
_PAUSE_S = 0.02
_DEADLINE_S = 120.0


@dataclass(slots=True)
class Writer:
    """One client that writes one document after another, and never gives up."""

    session: aiohttp.ClientSession
    collection: str
    """URL of the collection."""
    prefix: str
    acknowledged: list[str] = field(default_factory=list[str])
    at_s: list[float] = field(default_factory=list[float])
    """When each was acknowledged."""
    began_s: list[float] = field(default_factory=list[float])

    async def run(self) -> None:
        for number in itertools.count():
            id = f"{self.prefix}{number}"
            began = time.monotonic()
            if await self._write(id):
                self.acknowledged.append(id)
                self.began_s.append(began)
                self.at_s.append(time.monotonic())
            await asyncio.sleep(_PAUSE_S)

    async def wait_for_one_that_began_after(self, moment: float, deadline_s: float) -> float | None:
        """When the first such write was acknowledged; None if none was in time."""
        end = time.monotonic() + deadline_s
        while time.monotonic() < end:
            found = [at for began, at in zip(self.began_s, self.at_s, strict=True) if began > moment]
            if found:
                return found[0]
            await asyncio.sleep(_PAUSE_S)
        return None

    async def _write(self, id: str) -> bool:
        body = orjson.dumps({"ids": [id], "embeddings": [[float(len(id)), 1.0, 0.5]]})
        timeout = aiohttp.ClientTimeout(total=_ANSWER_S)
        try:
            async with self.session.post(
                f"{self.collection}/upsert", data=body, headers=load.JSON, timeout=timeout
            ) as response:
                await response.read()
                return response.status < 300
        except (aiohttp.ClientError, TimeoutError):
            return False


def longest_pause_ms(at_s: list[float], from_s: float, to_s: float) -> float:
    """Longest time between two acknowledgements that touches the interval."""
    gaps = [b - a for a, b in itertools.pairwise(at_s) if b > from_s and a < to_s]
    return round(max(gaps, default=0.0) * 1000, 1)


async def failover(system: System, session: aiohttp.ClientSession, collection: str) -> dict[str, Any]:
    """kill -9 of the member that leads (else of the first); who has to do what until writes go on.

    The result: killed, commands (0: it went on by itself; 1: the member had to be started again), pause_ms
    (longest time without an acknowledgement; null with a command: that is the person's time),
    after_command_ms (null without one), acknowledged, lost (missing after everything is up again).
    """
    writer = Writer(session, collection, "f")
    async with _running(writer):
        victim = await system.leader() or system.members[0]
        killed = time.monotonic()
        for pid in system.pids(victim):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        alone = len(system.members) == 1
        again = await writer.wait_for_one_that_began_after(killed, 3.0 if alone else _PATIENCE_S)
        commands, pause_ms, after_command_ms = 0, None, None
        if again is None:
            commands, typed = 1, time.monotonic()
            await system.restart(victim)
            again = await writer.wait_for_one_that_began_after(typed, _DEADLINE_S)
            if again is None:
                raise SystemFailure(f"no write is answered after {victim} was killed and started again")
            after_command_ms = round((again - typed) * 1000, 1)
        else:
            # A round-robin balancer meets the dead member some writes later.
            await writer.wait_for_one_that_began_after(again + 1.0, _DEADLINE_S)
            pause_ms = longest_pause_ms(writer.at_s, killed, time.monotonic())
            await system.restart(victim)
    await system.settle()
    lost = await _missing(session, collection, writer.acknowledged)
    return {
        "killed": victim,
        "commands": commands,
        "pause_ms": pause_ms,
        "after_command_ms": after_command_ms,
        "acknowledged": len(writer.acknowledged),
        "lost": len(lost),
    }


async def backup(
    system: System, links: Proxies, session: aiohttp.ClientSession, collection: str, folder: Path
) -> dict[str, Any] | None:
    """A copy that opens, made while a client writes; None where there is no sound way.

    The result: of, commands (what was typed, in words), pause_ms (of the writes meanwhile), seconds,
    documents (in the copy), acknowledged_before (that must be in it), missing (of these).
    """
    if system.name.startswith("shared-dir"):
        return None
    writer = Writer(session, collection, "b")
    async with _running(writer):
        before, began = list(writer.acknowledged), time.monotonic()
        if system.name.startswith("postgres"):
            of, commands = "the primary", ["pg_basebackup", "pg_verifybackup"]
            await _base_backup(system, links, folder)
            ids: list[str] | None = None
        else:
            of = await _copy_of_stopped(system, folder)
            commands = [f"stop {of}", f"copy its directory ({of})", f"start {of}"]
            ids = []
        seconds = time.monotonic() - began
        await writer.wait_for_one_that_began_after(time.monotonic(), _DEADLINE_S)
        pause_ms = longest_pause_ms(writer.at_s, began, time.monotonic())
    if ids is not None:
        ids = await asyncio.to_thread(_ids_in, folder)
    return {
        "of": of,
        "commands": commands,
        "pause_ms": pause_ms,
        "seconds": round(seconds, 2),
        "documents": None if ids is None else len(ids),
        "acknowledged_before": len(before),
        "missing": None if ids is None else len(set(before) - set(ids)),
    }


@contextlib.asynccontextmanager
async def _running(writer: Writer) -> AsyncGenerator[None]:
    """The writer at work, from its 20th acknowledgement on."""
    task = asyncio.create_task(writer.run())
    try:

        async def warm() -> bool:
            return len(writer.acknowledged) >= 20

        await wait_until("20 acknowledged writes", warm, _DEADLINE_S)
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def _copy_of_stopped(system: System, to: Path) -> str:
    """Stop a member that does not lead, copy its Chroma directory, start it again; which one it was."""
    leader = await system.leader()
    member = next(name for name in reversed(system.members) if name != leader)
    source = next(system.disk(member).rglob("chroma.sqlite3")).parent
    began = time.monotonic()

    async def ended() -> bool:
        pids = system.pids(member)
        # Its first process ends the others, unless that is a wrapper which passes no signals on.
        for pid in pids[:1] if time.monotonic() < began + _OWN_END_S else pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
        return not pids

    await wait_until(f"{member} to end", ended, _DEADLINE_S, pause_s=0.5)
    await asyncio.to_thread(shutil.copytree, source, to)
    await system.restart(member)
    return member


async def _base_backup(system: System, links: Proxies, to: Path) -> None:
    """pg_basebackup of the primary, verified with its own manifest."""
    host, port = (await primary_address(system, links)).split(":")
    tools = await asyncio.to_thread(programs, to.parent)
    flags = ["-D", str(to), "-h", host, "-p", port, "-U", "postgres", "-c", "fast", "--no-sync"]
    await _call(str(tools / "pg_basebackup"), *flags)
    await _call(str(tools / "pg_verifybackup"), str(to))


async def _call(*command: str) -> None:
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    output, _ = await process.communicate()
    if process.returncode != 0:
        raise SystemFailure(f"{command[0]} ended with {process.returncode}: {output.decode()[-300:]}")


def _ids_in(folder: Path) -> list[str]:
    """What stock Chroma finds in the copy."""
    client = PersistentClient(path=str(folder), settings=Settings(anonymized_telemetry=False))
    return client.get_collection(COLLECTION, embedding_function=None).get(include=[])["ids"]


async def _missing(session: aiohttp.ClientSession, collection: str, ids: list[str]) -> list[str]:
    found: set[str] = set()
    for start in range(0, len(ids), 500):
        body = orjson.dumps({"ids": ids[start : start + 500], "include": []})
        async with session.post(f"{collection}/get", data=body, headers=load.JSON) as response:
            if response.status != 200:
                raise SystemFailure(f"reading back answered {response.status}: {await response.text()}")
            found.update(orjson.loads(await response.read())["ids"])
    return [id for id in ids if id not in found]
