"""A plain `chroma run` on a directory, on loopback, as a child process that ends with this one."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

import aiohttp

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

_POLL_S: Final = 0.05
#: What it is given to end by itself, so that what it has open is closed in order.
_END_S: Final = 10.0

#: The child asks the kernel to be killed when its parent ends, however that happens.
_CHILD: Final = """
import ctypes, os, signal, sys
ctypes.CDLL(None).prctl(1, signal.SIGKILL)
if os.getppid() != int(sys.argv[2]):
    sys.exit(1)
import chromadb_rust_bindings
chromadb_rust_bindings.cli(["chroma", "run", sys.argv[1]])
"""


class DoesNotOpen(Exception):
    """Chroma ended, or did not answer in time, on this directory; the text is what it said last."""


def free_port() -> int:
    """A port that nobody uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


async def start(
    configuration: Path, output: Path, *, own_session: bool = False
) -> asyncio.subprocess.Process:
    """Start `chroma run` with a configuration file; to be called on the thread that outlives the child.

    (The kernel's signal comes when the thread ends that forked it.)
    """
    with output.open("wb") as log:
        return await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            _CHILD,
            str(configuration),
            str(os.getpid()),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            # Ctrl-C in a terminal is for this process, which ends the child when it is done with it.
            start_new_session=own_session,
        )


def configuration(path: Path, port: int) -> str:
    """The text of a configuration file for a server of `path`; JSON strings are YAML strings."""
    where = f"persist_path: {json.dumps(str(path))}\nport: {port}\n"
    return where + 'listen_address: "127.0.0.1"\nallow_reset: false\n'


@contextlib.asynccontextmanager
async def served(path: Path, beside: Path, *, timeout_s: float) -> AsyncGenerator[str]:
    """Serve the Chroma directory `path` (made if need be) as long as the block lasts; its URL.

    Args:
        beside: a directory for its configuration and its output.
        timeout_s: how long it may take to answer; a directory of an older Chroma is migrated first.

    Raises:
        DoesNotOpen: Chroma cannot open it.
    """
    port = free_port()
    settings, output = beside / "chroma.yaml", beside / "chroma.log"
    settings.write_text(configuration(path, port), encoding="utf-8")
    process = await start(settings, output, own_session=True)
    try:
        url = f"http://127.0.0.1:{port}"
        try:
            async with asyncio.timeout(timeout_s):
                # First whose port it is: somebody else may have taken it since it was found free.
                while not (_listens(process.pid, port) and await _beats(url)):
                    if process.returncode is not None:
                        raise DoesNotOpen(_last_words(output) or f"it ended with status {process.returncode}")
                    await asyncio.sleep(_POLL_S)
        except TimeoutError:
            raise DoesNotOpen(f"it does not answer within {timeout_s:.0f} s") from None
        yield url
    finally:
        await _end(process)


async def _end(process: asyncio.subprocess.Process) -> None:
    with contextlib.suppress(ProcessLookupError):
        process.terminate()
    try:
        async with asyncio.timeout(_END_S):
            await process.wait()
    except TimeoutError:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


def _listens(pid: int, port: int) -> bool:
    """Whether this process, and no other, listens on the port of 127.0.0.1."""
    try:
        rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
        sockets = {
            f"socket:[{row[9]}]" for row in rows if row[1] == f"0100007F:{port:04X}" and row[3] == "0A"
        }
        return any(os.readlink(held) in sockets for held in Path(f"/proc/{pid}/fd").iterdir())
    except OSError:  # it has ended, or closed a file just now
        return False


async def _beats(url: str) -> bool:
    timeout = aiohttp.ClientTimeout(total=5)
    try:
        async with (
            aiohttp.ClientSession(timeout=timeout) as session,
            session.get(f"{url}/api/v2/heartbeat") as response,
        ):
            return response.status == 200
    except (aiohttp.ClientError, TimeoutError, OSError):
        return False


def _last_words(output: Path) -> str:
    lines = [line.strip() for line in output.read_text(errors="replace").splitlines() if line.strip()]
    return lines[-1][:500] if lines else ""
