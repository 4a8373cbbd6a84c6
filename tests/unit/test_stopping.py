"""A command that is told to end cleans up, and says by its exit code what ended it."""

from __future__ import annotations

import asyncio
import os
import signal
from typing import TYPE_CHECKING, Any

import pytest

from evaluation import stopping

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(autouse=True)
def as_in_a_terminal() -> Iterator[None]:
    """Whoever runs the tests may ignore these signals, as nohup does."""
    before: dict[signal.Signals, Any] = {
        signum: signal.signal(signum, signal.SIG_DFL) for signum in (signal.SIGTERM, signal.SIGHUP)
    }
    yield
    for signum, handler in before.items():
        signal.signal(signum, handler)


def test_who_was_started_by_nohup_goes_on_without_a_terminal() -> None:
    async def work() -> str:
        os.kill(os.getpid(), signal.SIGHUP)
        await asyncio.sleep(0.01)
        return "went on"

    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    assert stopping.run(work()) == "went on"


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_lets_it_clean_up_undisturbed(signum: signal.Signals) -> None:
    cleaned: list[str] = []

    async def work() -> None:
        try:
            os.kill(os.getpid(), signum)
            await asyncio.Event().wait()
        finally:
            os.kill(os.getpid(), signum)  # impatience must not leave processes behind
            await asyncio.sleep(0.01)
            cleaned.append("all")

    before = signal.getsignal(signum)
    with pytest.raises(SystemExit) as ended:
        stopping.run(work())
    assert ended.value.code == 128 + signum
    assert cleaned == ["all"]
    assert signal.getsignal(signum) == before


def test_what_ends_by_itself_answers() -> None:
    async def work() -> int:
        return 7

    assert stopping.run(work()) == 7


def test_a_cancellation_of_its_own_is_no_signal() -> None:
    async def work() -> None:
        raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        stopping.run(work())
