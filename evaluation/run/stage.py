"""A started system with its proxies, in a folder of its own; always stopped and removed in the end."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from evaluation.faulting.toxiproxy import ToxiproxyServer

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

    from evaluation.systems.interface import System


def silent(_: str) -> None:
    """A progress that nobody looks at."""


@dataclass
class Stage:
    """A started system with its proxies; several runs may use it one after the other."""

    system: System
    proxies: ToxiproxyServer
    folder: Path
    runs: int = 0


@contextlib.asynccontextmanager
async def staged(
    make: Callable[[], System], progress: Callable[[str], None] = silent
) -> AsyncGenerator[Stage]:
    """Start it in a folder of its own, which is removed in the end; always stop everything.

    Raises:
        SystemFailure: it did not start.
    """
    folder = _new_folder()
    proxies = ToxiproxyServer()
    system = make()
    try:
        try:
            progress("starting")
            await proxies.start(None, folder / "toxiproxy.log")
            await system.start(folder, proxies)
            yield Stage(system, proxies, folder)
        finally:
            progress("stopping")
            try:
                await system.stop()
            finally:
                await proxies.stop()
    finally:
        await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)


def _new_folder() -> Path:
    # Short: Unix sockets below it have paths of at most 107 bytes. Open: Postgres runs as another user.
    folder = Path(tempfile.mkdtemp(prefix="cc-eval-"))
    folder.chmod(0o755)
    return folder
