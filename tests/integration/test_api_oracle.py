"""The Chroma child that words refusals: started when needed, replaced when dead, never left behind."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from cluster.chroma.oracle import COLLECTIONS, Oracle
from cluster.chroma.sampling import look
from cluster.errors import EngineDied

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


def run(test: Callable[[Oracle], Awaitable[None]]) -> None:
    async def main() -> None:
        oracle = Oracle()
        try:
            await test(oracle)
        finally:
            await oracle.close()

    asyncio.run(main())


async def refused(oracle: Oracle) -> Any:
    answer = await oracle.ask("POST", COLLECTIONS, b'{"nam":"x"}', "application/json")
    assert answer is not None
    assert answer.is_refusal
    assert b"missing field `name` at line 1 column 11" in answer.body
    return answer


def test_it_starts_at_the_first_question_and_ends_with_close() -> None:
    async def test(oracle: Oracle) -> None:
        assert oracle.pid is None
        await asyncio.gather(*[refused(oracle) for _ in range(10)])
        pid = oracle.pid
        assert pid is not None
        await oracle.close()
        assert not alive(pid)
        assert await oracle.ask("GET", "/api/v2/version") is None

    run(test)


def test_a_dead_child_is_replaced() -> None:
    async def test(oracle: Oracle) -> None:
        await refused(oracle)
        first = oracle.pid
        assert first is not None
        os.kill(first, signal.SIGKILL)
        # The first question may meet the dead child; it is then unanswered and the next is not.
        while await oracle.ask("GET", "/api/v2/version") is None:
            pass
        await refused(oracle)
        assert oracle.pid not in (None, first)

    run(test)


def test_a_request_at_which_chroma_hangs_up_has_no_answer() -> None:
    async def test(oracle: Oracle) -> None:
        assert await oracle.ask("GET", "/api/v2/collections/a:b:c") is None
        await refused(oracle)

    run(test)


def test_collections_are_fresh_and_removed() -> None:
    async def test(oracle: Oracle) -> None:
        async with oracle.collection() as one, oracle.collection() as other:
            assert one is not None
            assert other is not None
            assert one != other
            answer = await oracle.ask("GET", f"{COLLECTIONS}/{one}/count")
            assert answer is not None
            assert (answer.status, answer.body) == (200, b"0")
        answer = await oracle.ask("GET", COLLECTIONS)
        assert answer is not None
        assert answer.body == b"[]"

    run(test)


_PARENT = """
import asyncio, sys
from cluster.chroma.oracle import Oracle

async def main():
    oracle = Oracle()
    assert await oracle.ask("GET", "/api/v2/version") is not None
    print(oracle.pid, flush=True)
    await asyncio.sleep(600)

asyncio.run(main())
"""


def test_it_dies_with_a_killed_parent() -> None:
    with subprocess.Popen([sys.executable, "-c", _PARENT], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        assert alive(child)
        parent.kill()
    end = time.monotonic() + 30
    while alive(child):
        assert time.monotonic() < end, "the oracle outlived its parent"
        time.sleep(0.02)


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def test_a_child_that_crashes_over_a_request_is_said_to_have_done_so() -> None:
    async def test(oracle: Oracle) -> None:
        await refused(oracle)
        pid = oracle.pid
        assert pid is not None
        os.kill(pid, signal.SIGSTOP)
        deadline = time.monotonic() + 30
        while (seen := look(pid)) is None or not seen.stopped:
            assert time.monotonic() < deadline
        asked = asyncio.create_task(oracle.ask("GET", "/api/v2/version"))
        await asyncio.wait((asked,), timeout=0.2)
        assert not asked.done()
        os.kill(pid, signal.SIGSEGV)
        os.kill(pid, signal.SIGCONT)
        with pytest.raises(EngineDied, match="SIGSEGV"):
            await asked
        await refused(oracle)
        assert oracle.pid not in (None, pid)

    run(test)
