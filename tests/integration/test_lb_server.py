"""The balancer as a process: it starts with clear words, stops when asked, and finishes what it has begun."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import socket
import sys
from typing import TYPE_CHECKING

import aiohttp
import pytest

from tests.integration.lb_nodes import COLLECTION, SECRET, Node, answers

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from aiohttp import web

WAIT_S = 60.0


async def _start(*flags: str) -> asyncio.subprocess.Process:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("CHROMA_CLUSTER_")}
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "cluster",
        "lb",
        *flags,
        stderr=asyncio.subprocess.PIPE,
        env=environment | {"CHROMA_CLUSTER_LB_SECRET": SECRET},
    )


@contextlib.asynccontextmanager
async def _running(node: Node) -> AsyncGenerator[tuple[asyncio.subprocess.Process, str]]:
    """A balancer process before `node`, and its URL."""
    await node.start()
    process = await _start("--listen", "127.0.0.1:0", "--node", f"{node.node_id}={node.url}")
    try:
        assert process.stderr is not None
        url = ""
        async with asyncio.timeout(WAIT_S):
            while not url:
                line = (await process.stderr.readline()).decode()
                assert line, "it ended before it told its address"
                url = "".join(re.findall(r"balancer at (\S+)", line))
        yield process, url
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()
        await node.kill()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_finishes_requests_under_way_and_exits_with_zero(number: signal.Signals) -> None:
    async def scenario() -> None:
        arrived, released = asyncio.Event(), asyncio.Event()

        async def slow(node: Node, request: web.BaseRequest) -> web.StreamResponse:
            arrived.set()
            await released.wait()
            return await answers(node, request)

        node = Node("node-1", slow, role="leader")
        async with _running(node) as (process, url), aiohttp.ClientSession() as session:
            write = asyncio.create_task(_post(session, url))
            await asyncio.wait_for(arrived.wait(), WAIT_S)
            process.send_signal(number)
            async with asyncio.timeout(WAIT_S):
                while await _accepts(url):
                    pass
            released.set()
            assert await write == 200
            assert await asyncio.wait_for(process.wait(), WAIT_S) == 0

    asyncio.run(scenario())


def test_a_hangup_is_logged_and_ends_nothing() -> None:
    async def scenario() -> None:
        node = Node("node-1", answers, role="leader")
        async with _running(node) as (process, url), aiohttp.ClientSession() as session:
            process.send_signal(signal.SIGHUP)
            assert process.stderr is not None
            async with asyncio.timeout(WAIT_S):
                while b"SIGHUP" not in await process.stderr.readline():
                    pass
            assert await _post(session, url) == 200
            assert process.returncode is None

    asyncio.run(scenario())


def test_a_taken_address_is_told_and_exits_with_one() -> None:
    async def scenario() -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            address = f"127.0.0.1:{taken.getsockname()[1]}"
            process = await _start("--listen", address, "--node", "node-1=http://127.0.0.1:1")
            _, errors = await asyncio.wait_for(process.communicate(), WAIT_S)
        assert process.returncode == 1
        assert f"cannot listen on {address}" in errors.decode()

    asyncio.run(scenario())


def test_listening_beyond_loopback_is_refused_with_two() -> None:
    async def scenario() -> None:
        process = await _start("--listen", "0.0.0.0:0", "--node", "node-1=http://127.0.0.1:1")
        _, errors = await asyncio.wait_for(process.communicate(), WAIT_S)
        assert process.returncode == 2
        assert "allow_insecure_listen=true" in errors.decode()

    asyncio.run(scenario())


async def _post(session: aiohttp.ClientSession, url: str) -> int:
    async with session.post(f"{url}{COLLECTION}/add", json={}) as response:
        return response.status


async def _accepts(url: str) -> bool:
    host, port = url.removeprefix("http://").split(":")
    try:
        _, writer = await asyncio.open_connection(host, int(port))
    except OSError:
        return False
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
    return True
