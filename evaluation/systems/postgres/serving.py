"""How this folder's servers run: `--config FILE`, HTTP at one address, until SIGTERM or SIGINT."""

from __future__ import annotations

import argparse
import asyncio
import logging
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from aiohttp import web

from evaluation.systems.postgres.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

S = TypeVar("S", bound=Settings)


def run(description: str | None, form: type[S], serve: Callable[[S], Coroutine[Any, Any, None]]) -> None:
    """The whole program: `serve` is given the settings from the file that the command line names."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument(
        "--config", type=Path, required=True, help=f"JSON with the fields of `{form.__name__}`"
    )
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    asyncio.run(serve(form.load(arguments.config)))


async def answer(app: web.Application, listen: str, work: Coroutine[Any, Any, None]) -> None:
    """Serve `app` at host:port and do `work`, until SIGTERM or SIGINT.

    `work` never ends but by a defect: then this raises it, for the process to end with it.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for signum in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signum, stop.set)
    working = asyncio.ensure_future(work)
    stopping = asyncio.ensure_future(stop.wait())
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        host, _, port = listen.rpartition(":")
        await web.TCPSite(runner, host, int(port), shutdown_timeout=1.0).start()
        done, _ = await asyncio.wait({working, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if working in done:
            working.result()
    finally:
        working.cancel()
        stopping.cancel()
        await runner.cleanup()
