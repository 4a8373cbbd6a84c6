"""A balancer or node that is told to stop answers every request whose headers it has."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

import pytest
from aiohttp import web

from cluster.api.app import DRAIN, SERVER_OPTIONS, create_app
from tests.integration.lb_nodes import COLLECTION, bench, hangs
from wire.prover import Prover

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

BODY = b'{"ids":["1"],"embeddings":[[1,2,3]]}'
WAIT_S = 20.0


class Connection:
    """One client's connection, on which it writes what it likes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    @classmethod
    async def to(cls, port: int) -> Connection:
        return cls(*await asyncio.open_connection("127.0.0.1", port))

    def begin(self, target: str, sent: int) -> None:
        """A POST and the first `sent` bytes of its body."""
        lines = [f"POST {target} HTTP/1.1", "Host: x", "Content-Type: application/json"]
        lines += [f"Content-Length: {len(BODY)}", "", ""]
        self.writer.write("\r\n".join(lines).encode() + BODY[:sent])

    async def answer(self) -> tuple[int, bytes, bool]:
        """Status, body, and whether the connection ends here."""
        async with asyncio.timeout(WAIT_S):
            head = (await self.reader.readuntil(b"\r\n\r\n")).lower()
            length = int(head.partition(b"content-length: ")[2].split(b"\r\n")[0])
            body = await self.reader.readexactly(length)
        ends = b"connection: close" in head
        outcome = {503: b"x-chroma-outcome: unchanged", 504: b"x-chroma-outcome: unknown"}
        assert outcome.get(int(head.split()[1]), b"") in head
        if ends:
            self.writer.close()
        return int(head.split()[1]), body, ends


async def _refused(port: int) -> None:
    async with asyncio.timeout(WAIT_S):
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                return
            writer.close()


def _port(b: Any) -> int:
    return int(b.balancer.url.rpartition(":")[2])


def test_a_body_half_sent_is_received_while_the_balancer_drains() -> None:
    async def scenario() -> None:
        async with bench() as b:
            client = await Connection.to(_port(b))
            client.begin(f"{COLLECTION}/add", len(BODY) // 2)
            await b.until(lambda: b.balancer.status()["in_flight"] == 1, "the request's beginning")
            stop = asyncio.create_task(b.balancer.stop())
            await _refused(_port(b))
            client.writer.write(BODY[len(BODY) // 2 :])
            status, _, ends = await client.answer()
            await stop
            assert (status, ends) == (200, True)
            assert b.nodes[0].received[-1].body == BODY

    asyncio.run(scenario())


def test_what_does_not_end_in_time_is_answered_by_the_balancer_all_the_same() -> None:
    async def scenario() -> None:
        async with bench(drain_ms=100) as b:
            b.nodes[0].behaviour = hangs
            half, whole, read = [await Connection.to(_port(b)) for _ in range(3)]
            half.begin(f"{COLLECTION}/add", 3)
            whole.begin(f"{COLLECTION}/add", len(BODY))
            b.nodes[1].behaviour = b.nodes[2].behaviour = hangs
            read.begin(f"{COLLECTION}/get", len(BODY))
            await b.until(lambda: b.balancer.status()["in_flight"] == 3, "the requests")
            await b.until(lambda: sum(len(node.received) for node in b.nodes) == 2, "two at nodes")
            await b.balancer.stop()
            came = [await one.answer() for one in (half, whole, read)]
            assert [(status, ends) for status, _, ends in came] == [(503, True), (504, True), (503, True)]
            assert b"Nothing was changed" in came[0][1]
            assert b"OutcomeUnknownError" in came[1][1]

    asyncio.run(scenario())


def test_clients_that_write_without_pause_are_told_and_lose_no_answer() -> None:
    async def scenario() -> None:
        async with bench() as b:
            told = 0

            async def client() -> None:
                nonlocal told
                connection = await Connection.to(_port(b))
                while True:
                    connection.begin(f"{COLLECTION}/add", len(BODY))
                    status, _, ends = await connection.answer()
                    assert status == 200
                    if ends:
                        told += 1
                        return

            clients = [asyncio.create_task(client()) for _ in range(16)]
            await b.until(lambda: len(b.nodes[0].received) > 100, "load")
            await b.balancer.stop()
            await asyncio.gather(*clients)
            assert told == 16

    asyncio.run(scenario())


class _Service:
    node_id = "node-1"

    def leader_id(self) -> str | None:
        return None


@contextlib.asynccontextmanager
async def _node(began: asyncio.Event) -> AsyncGenerator[tuple[web.AppRunner, web.TCPSite, int]]:
    async def echo(request: web.Request) -> web.StreamResponse:
        began.set()
        body = await request.read()
        if body.endswith(b"]}") and request.query.get("hang"):
            await asyncio.Event().wait()
        return web.Response(body=body)

    service: Any = _Service()
    service.max_request_bytes = 1000
    service.prover = Prover(b"")
    app = create_app(service, {"/echo": {"POST": echo}})
    runner = web.AppRunner(app, shutdown_timeout=0.5, **SERVER_OPTIONS)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield runner, site, runner.addresses[0][1]
    finally:
        await runner.cleanup()


@pytest.mark.parametrize(
    ("sent", "target", "rest", "expected"),
    [
        (5, "/echo", True, (200, BODY)),
        (5, "/echo", False, (503, b"Nothing was changed")),
        (len(BODY), "/echo?hang=1", False, (504, b"outcome unknown")),
    ],
)
def test_a_node_that_drains_answers_what_has_begun(
    sent: int, target: str, rest: bool, expected: tuple[int, bytes]
) -> None:
    async def scenario() -> None:
        began = asyncio.Event()
        async with _node(began) as (runner, site, port):
            client = await Connection.to(port)
            client.begin(target, sent)
            await asyncio.wait_for(began.wait(), WAIT_S)
            await site.stop()
            assert runner.app is not None
            finish = asyncio.create_task(runner.app[DRAIN].finish(WAIT_S if rest else 0.1))
            await _refused(port)
            if rest:
                client.writer.write(BODY[sent:])
            status, body, ends = await client.answer()
            await finish
            assert (status, ends) == (expected[0], True)
            assert expected[1] in body

    asyncio.run(scenario())
