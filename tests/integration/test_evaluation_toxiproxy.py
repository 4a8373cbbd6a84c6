"""The real Toxiproxy server: every toxic that faults use bites, and is gone when it is removed."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from typing import TYPE_CHECKING

import pytest

from evaluation.failure import SystemFailure
from evaluation.faulting import toxiproxy
from evaluation.faulting.toxiproxy import ToxiproxyServer
from evaluation.systems.proxies import Toxic

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

pytestmark = pytest.mark.slow
SOON_S = 10.0
SILENCE_S = 0.3


class Echo:
    """A server that sends back what it gets, and remembers the sizes of what it got at once."""

    def __init__(self) -> None:
        self.address = ""
        self.got: list[bytes] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(65536):
                self.got.append(data)
                writer.write(data)
                await writer.drain()
        writer.close()


class Wire:
    """One connection through the proxy."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    async def receive(self, count: int) -> bytes:
        async with asyncio.timeout(SOON_S):
            return await self.reader.readexactly(count)

    async def silent(self) -> bool:
        try:
            async with asyncio.timeout(SILENCE_S):
                await self.reader.readexactly(1)
        except TimeoutError:
            return True
        return False

    async def ended(self) -> bytes:
        """What still came before the end."""
        async with asyncio.timeout(SOON_S):
            with contextlib.suppress(ConnectionError):
                return await self.reader.read()
        return b""


@contextlib.asynccontextmanager
async def running(tmp_path: Path) -> AsyncIterator[tuple[ToxiproxyServer, Echo]]:
    proxies, echo = ToxiproxyServer(), Echo()
    server = await asyncio.start_server(echo.serve, "127.0.0.1", 0)
    echo.address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    await proxies.start(None, tmp_path / "toxiproxy.log")
    try:
        await proxies.create("echo", echo.address)
        yield proxies, echo
    finally:
        await proxies.stop()
        server.close()


@contextlib.asynccontextmanager
async def dialled(proxies: ToxiproxyServer) -> AsyncIterator[Wire]:
    host, _, port = proxies.listen("echo").partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        yield Wire(reader, writer)
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


def run(tmp_path: Path, body: Callable[[ToxiproxyServer, Echo], Awaitable[None]]) -> None:
    async def whole() -> None:
        async with running(tmp_path) as (proxies, echo):
            await body(proxies, echo)

    asyncio.run(whole())


def test_disabled_closes_and_refuses_and_the_address_stays(tmp_path: Path) -> None:
    async def body(proxies: ToxiproxyServer, _: Echo) -> None:
        listen = proxies.listen("echo")
        async with dialled(proxies) as wire:
            wire.send(b"before")
            assert await wire.receive(6) == b"before"
            await proxies.enable("echo", False)
            assert await wire.ended() == b""
        with pytest.raises(ConnectionRefusedError):
            async with dialled(proxies):
                pass
        await proxies.enable("echo", True)
        assert proxies.listen("echo") == listen
        async with dialled(proxies) as wire:
            wire.send(b"after")
            assert await wire.receive(5) == b"after"

    run(tmp_path, body)


def test_black_hole_drops_bytes_and_its_end_closes_the_connection(tmp_path: Path) -> None:
    async def body(proxies: ToxiproxyServer, echo: Echo) -> None:
        async with dialled(proxies) as wire:
            await proxies.add("echo", Toxic("hole", "timeout", "upstream", {"timeout": 0}))
            wire.send(b"lost")
            assert await wire.silent()
            await proxies.remove("echo", "hole")
            assert await wire.ended() == b""
        assert echo.got == []

    run(tmp_path, body)


@pytest.mark.parametrize("stream", ["upstream", "downstream"])
def test_jam_holds_bytes_and_delivers_them_when_it_is_gone(tmp_path: Path, stream: str) -> None:
    async def body(proxies: ToxiproxyServer, echo: Echo) -> None:
        async with dialled(proxies) as wire:
            await proxies.add("echo", Toxic("jam", "bandwidth", stream, {"rate": 0}))
            wire.send(b"held" * 5000)
            assert await wire.silent()
            assert bool(echo.got) == (stream == "downstream")
            await proxies.remove("echo", "jam")
            assert await wire.receive(20000) == b"held" * 5000
            wire.send(b"on")
            assert await wire.receive(2) == b"on"

    run(tmp_path, body)


def test_jams_end_also_for_connections_that_nobody_waits_for_any_more(tmp_path: Path) -> None:
    """Removing one must neither hang (receiver gone) nor end the server (large chunks held)."""

    async def body(proxies: ToxiproxyServer, echo: Echo) -> None:
        for round_ in range(5):
            jams = [Toxic(f"jam-{way}", "bandwidth", way, {"rate": 0}) for way in ("upstream", "downstream")]
            async with dialled(proxies) as wire:
                wire.send(b"x")
                assert await wire.receive(1) == b"x"
                for jam in jams:
                    await proxies.add("echo", jam)
                for _ in range(10):
                    async with dialled(proxies) as left:
                        left.send(b"left" * 20_000)
                wire.send(b"held" * 20_000)
                await asyncio.gather(*(proxies.remove("echo", jam.name) for jam in jams))
                assert await wire.receive(80_000) == b"held" * 20_000, round_
            assert echo.got

    run(tmp_path, body)


def test_latency_and_its_change(tmp_path: Path) -> None:
    async def body(proxies: ToxiproxyServer, _: Echo) -> None:
        async def round_trip_s(wire: Wire) -> float:
            begin = time.monotonic()
            wire.send(b"x")
            await wire.receive(1)
            return time.monotonic() - begin

        async with dialled(proxies) as wire:
            await proxies.add("echo", Toxic("slow", "latency", "downstream", {"latency": 200, "jitter": 0}))
            assert await round_trip_s(wire) >= 0.2
            await proxies.replace("echo", Toxic("slow", "latency", "downstream", {"latency": 400}))
            assert await round_trip_s(wire) >= 0.4
            await proxies.remove("echo", "slow")
            assert await round_trip_s(wire) < 0.4

    run(tmp_path, body)


def test_bandwidth_limits(tmp_path: Path) -> None:
    async def body(proxies: ToxiproxyServer, _: Echo) -> None:
        async with dialled(proxies) as wire:
            await proxies.add("echo", Toxic("thin", "bandwidth", "upstream", {"rate": 100}))
            begin = time.monotonic()
            wire.send(bytes(50_000))
            await wire.receive(50_000)
            assert time.monotonic() - begin >= 0.3  # 50 KB at 100 KB/s

    run(tmp_path, body)


def test_slow_close_delays_the_end(tmp_path: Path) -> None:
    async def body(proxies: ToxiproxyServer, echo: Echo) -> None:
        closed = asyncio.Event()

        async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read(1)
            writer.close()
            closed.set()

        server = await asyncio.start_server(hang_up, "127.0.0.1", 0)
        listen = await proxies.create("end", f"127.0.0.1:{server.sockets[0].getsockname()[1]}")
        await proxies.add("end", Toxic("late", "slow_close", "downstream", {"delay": 500}))
        host, _, port = listen.partition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(b"x")
        await closed.wait()
        begin = time.monotonic()
        wire = Wire(reader, writer)
        assert await wire.silent()
        assert await wire.ended() == b""
        assert time.monotonic() - begin >= SILENCE_S
        writer.close()
        server.close()

    run(tmp_path, body)


def test_reset_peer_ends_new_connections(tmp_path: Path) -> None:
    async def body(proxies: ToxiproxyServer, _: Echo) -> None:
        await proxies.add("echo", Toxic("rst", "reset_peer", "downstream", {"timeout": 0}))
        async with dialled(proxies) as wire:
            wire.send(b"x")
            with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
                await wire.receive(1)

    run(tmp_path, body)


def test_limit_data_cuts_in_the_middle(tmp_path: Path) -> None:
    async def body(proxies: ToxiproxyServer, _: Echo) -> None:
        await proxies.add("echo", Toxic("cut", "limit_data", "downstream", {"bytes": 7}))
        async with dialled(proxies) as wire:
            wire.send(b"0123456789")
            assert await wire.ended() == b"0123456"

    run(tmp_path, body)


def test_slicer_cuts_into_small_pieces_and_loses_nothing(tmp_path: Path) -> None:
    async def body(proxies: ToxiproxyServer, echo: Echo) -> None:
        attributes = {"average_size": 8, "size_variation": 4, "delay": 100}
        await proxies.add("echo", Toxic("thin", "slicer", "upstream", attributes))
        data = bytes(range(256)) * 4
        async with dialled(proxies) as wire:
            wire.send(data)
            assert await wire.receive(len(data)) == data
        assert len(echo.got) > 5

    run(tmp_path, body)


def test_reset_clears_all_and_mistakes_are_named(tmp_path: Path) -> None:
    async def body(proxies: ToxiproxyServer, echo: Echo) -> None:
        await proxies.add("echo", Toxic("a", "timeout", "upstream", {"timeout": 0}))
        await proxies.enable("echo", False)
        await proxies.reset()
        assert await proxies.toxics("echo") == {}
        async with dialled(proxies) as wire:
            wire.send(b"x")
            assert await wire.receive(1) == b"x"
        with pytest.raises(SystemFailure, match="already"):
            await proxies.create("echo", echo.address)
        with pytest.raises(SystemFailure, match="no proxy 'other'"):
            await proxies.enable("other", False)
        # The server takes an attribute that it does not know for 0: a black hole for ever.
        with pytest.raises(SystemFailure, match="should have"):
            await proxies.add("echo", Toxic("b", "timeout", "upstream", {"timeuot": 5}))
        with pytest.raises(SystemFailure, match="refused"):
            await proxies.add("echo", Toxic("c", "no-such-kind", "upstream"))

    run(tmp_path, body)


def test_a_dead_server_is_an_error_and_not_success(tmp_path: Path) -> None:
    async def body(proxies: ToxiproxyServer, _: Echo) -> None:
        os.kill(proxies.pid, signal.SIGKILL)
        with pytest.raises(SystemFailure):
            await proxies.enable("echo", False)

    run(tmp_path, body)


def test_a_missing_server_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TOXIPROXY", raising=False)
    monkeypatch.setattr(toxiproxy, "__file__", "/nowhere/evaluation/faulting/toxiproxy.py")
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(SystemFailure, match="make toxiproxy"):
        toxiproxy.find_server()
