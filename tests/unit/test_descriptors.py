# pyright: reportPrivateUsage=false
"""Files and sockets: how many there may be, who gets how many, and what happens when there are none."""

from __future__ import annotations

import asyncio
import errno
import random
import resource
import selectors
import socket
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any

import pytest
from aiohttp import web

from cluster.descriptors import FLOOR, backlog, clients, indexes
from cluster.raft.handshake import Identity
from cluster.raft.settings import RaftSettings
from cluster.raft.transport import TcpTransport
from lb.receiving import Crowded, Receiving, allowed_s
from wire import connections

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cluster.raft.connection import Peer
    from cluster.raft.dialing import Dialing

FULL = OSError(errno.EMFILE, "Too many open files")


@pytest.mark.parametrize("limit", [FLOOR, 1024, 4096, 65_536])
def test_what_is_shared_out_is_there(limit: int) -> None:
    assert indexes(limit) * 5 + 64 <= limit
    assert clients(limit) * 2 + 64 <= limit
    # Accepted in one go, before they are counted.
    assert clients(limit) + backlog(limit) + 64 <= limit
    assert indexes(limit) >= 8
    assert clients(limit) >= 32


@pytest.mark.parametrize(
    ("soft", "hard", "expected"), [(256, 1024, "1024"), (300, 300, "300"), (64, 100, "only 100 files open")]
)
def test_a_process_takes_what_the_system_allows_or_says_that_it_is_too_little(
    soft: int, hard: int, expected: str
) -> None:
    code = (
        "from cluster.descriptors import raise_limit as r\ntry: print(r())\nexcept ValueError as e: print(e)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard)),
    )
    assert expected in done.stdout


@pytest.fixture
def transport() -> Iterator[TcpTransport]:
    made = TcpTransport(
        Identity("c", "b", b"secret"),
        {"b": ("127.0.0.1", 0), "a": ("127.0.0.1", 9), "Z": ("name.invalid", 9)},
        ("127.0.0.1", 0),
        RaftSettings(),
        clock=lambda: 0.0,
        rng=random.Random(0),
    )
    yield made
    made.destroy()


def _dialing(transport: TcpTransport) -> Dialing:
    return transport._dialing


def _peer(transport: TcpTransport, name: str) -> Peer:
    return transport._peers[name]


def test_a_dial_without_descriptors_or_threads_is_tried_again(
    transport: TcpTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none(*_: object, **__: object) -> Any:
        raise FULL

    def no_thread(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    dialing = _dialing(transport)
    with monkeypatch.context() as full:
        full.setattr(socket, "socket", none)
        full.setattr(threading.Thread, "start", no_thread)
        dialing.dial_due(0.0)
    for name in ("a", "Z"):
        assert not _peer(transport, name).dials
        assert not _peer(transport, name).is_resolving
        assert 0 < _peer(transport, name).dial_due_s < 5
    dialing.dial_due(5.0)
    assert _peer(transport, "a").dials


def test_a_connection_that_cannot_be_watched_is_closed(
    transport: TcpTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none(*_: object, **__: object) -> Any:
        raise OSError(errno.ENOMEM, "Cannot allocate memory")

    with monkeypatch.context() as full:
        full.setattr(transport._sockets.selector, "register", none)
        _dialing(transport).dial_due(0.0)
    assert not transport._sockets.connections
    assert not _peer(transport, "a").dials


def test_who_cannot_be_accepted_is_left_waiting_and_does_not_keep_the_thread_busy(
    transport: TcpTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = transport.open()
    listening = transport._listener.sock
    assert listening is not None
    selector = transport._sockets.selector
    with socket.create_connection(("127.0.0.1", port)):
        selector.select(5)  # it is there

        def none(_: socket.socket) -> Any:
            raise FULL

        with monkeypatch.context() as full:
            full.setattr(socket.socket, "accept", none)
            transport._accept()
        with pytest.raises(KeyError):
            selector.get_key(listening)
        transport._upkeep(1.0)
        assert selector.get_key(listening).events == selectors.EVENT_READ
        transport._accept()
        assert any(one.acceptor for one in transport._sockets.connections)


def test_a_listener_at_rest_can_be_closed(transport: TcpTransport, monkeypatch: pytest.MonkeyPatch) -> None:
    transport.open()

    def none(_: socket.socket) -> Any:
        raise FULL

    with monkeypatch.context() as full:
        full.setattr(socket.socket, "accept", none)
        transport._accept()


def test_bodies_have_time_by_their_size() -> None:
    assert allowed_s(0) == 10
    assert allowed_s(64 * 1024) == 11
    assert allowed_s(10**12) == allowed_s(None) == 120


def test_the_oldest_slow_body_gives_way_and_a_fresh_one_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        receiving = Receiving(2)
        ended: list[str] = []

        async def slow(name: str) -> None:
            try:
                async with receiving.body(10):
                    await asyncio.Event().wait()
            except TimeoutError:
                ended.append(name)

        tasks = [asyncio.create_task(slow(name)) for name in ("first", "second")]
        await asyncio.sleep(0)
        with pytest.raises(Crowded):
            async with receiving.body(10):
                pass
        monkeypatch.setattr("lb.receiving._FRESH_S", 0.0)
        async with receiving.body(10):
            await asyncio.wait_for(tasks[0], 20)
            assert (ended, len(receiving)) == (["first"], 2)
        tasks[1].cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert len(receiving) == 0

    asyncio.run(scenario())


def test_connections_beyond_the_bound_are_told_so() -> None:
    async def scenario() -> None:
        async def handle(_: web.BaseRequest) -> web.StreamResponse:
            return web.Response(text="ok")

        server = web.Server(handle)
        listener = await asyncio.get_running_loop().create_server(
            connections.bounded(server, 2), "127.0.0.1", 0
        )
        port = listener.sockets[0].getsockname()[1]
        stalled = [await asyncio.open_connection("127.0.0.1", port) for _ in range(2)]
        for answer, leave in ((b"503", True), (b"200", False)):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            async with asyncio.timeout(20):
                assert (await reader.read()).split()[1] == answer
            writer.close()
            if leave:
                stalled[0][1].close()
                async with asyncio.timeout(20):
                    while len(server.connections) == 2:  # noqa: ASYNC110
                        await asyncio.sleep(0.01)
        stalled[1][1].close()
        listener.close()
        await server.shutdown(1)

    asyncio.run(scenario())
