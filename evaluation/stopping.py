"""A command that is told to end (SIGTERM, a closed terminal) stops what it started, as after Ctrl-C."""

from __future__ import annotations

import asyncio
import signal
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Coroutine

T = TypeVar("T")


def run(work: Coroutine[object, object, T]) -> T:
    """`asyncio.run`, but SIGTERM and SIGHUP cancel `work` too, once: what it cleans up then is not disturbed.

    Raises:
        SystemExit: with 128 and the signal's number, as shells say it.
    """
    caught: list[signal.Signals] = []

    async def main() -> T:
        task = asyncio.current_task()
        assert task is not None

        def stop(signum: signal.Signals) -> None:
            if not caught:
                task.cancel()
            caught.append(signum)

        loop = asyncio.get_running_loop()
        for signum in (signal.SIGTERM, signal.SIGHUP):
            # Who was started by nohup goes on without a terminal.
            if signal.getsignal(signum) is not signal.SIG_IGN:
                loop.add_signal_handler(signum, stop, signum)
        return await work

    try:
        return asyncio.run(main())
    except asyncio.CancelledError:
        if not caught:
            raise
        raise SystemExit(128 + caught[0]) from None
