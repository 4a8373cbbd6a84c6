"""The client side against a server that answers, hangs, hangs up, or is not there."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import orjson
from aiohttp import web

from evaluation.history import Action, Fate
from evaluation.processes import free_port
from evaluation.systems.interface import Entry
from evaluation.traffic.decision import Decision, Session
from evaluation.traffic.driver import Driver
from evaluation.traffic.recorder import Completion

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

UPSERT = Decision("register", Action.UPSERT, "r-0", "v1")
GET = Decision("register", Action.GET, "r-0")


class Server:
    """Knows every collection; other requests are answered by `answer`."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, str, dict[str, str], Any]] = []
        self.answer: Callable[[web.Request], Awaitable[web.StreamResponse]] = self.fine
        self.over = asyncio.Event()

    async def handle(self, request: web.Request) -> web.StreamResponse:
        raw = await request.read()
        verb = request.path.rpartition("/")[2]
        if request.method == "GET" and not request.path.endswith(("count", "gone")):
            return web.json_response({"id": f"id-of-{verb}"})
        headers = {name.lower(): value for name, value in request.headers.items()}
        self.requests.append((request.method, verb, headers, orjson.loads(raw) if raw else None))
        return await self.answer(request)

    async def fine(self, request: web.Request) -> web.StreamResponse:
        found = {"ids": ["r-0"], "metadatas": [{"key": "r-0", "value": "v1"}], "documents": ["v1"]}
        body = found if request.path.endswith("get") else {}
        return web.json_response(body, headers={"X-Chroma-Log-Index": "9", "X-Chroma-Node": "node-2"})

    async def hang_up(self, request: web.Request) -> web.StreamResponse:
        assert request.transport is not None
        request.transport.abort()
        return web.Response()

    async def hang(self, request: web.Request) -> web.StreamResponse:
        await self.over.wait()
        return web.Response()


def play(
    steps: Callable[[Driver, Server], Awaitable[None]],
    *,
    member: str | None = "node-1",
    timeout_s: float = 5.0,
) -> None:
    async def body() -> None:
        server = Server()
        application = web.Application()
        application.router.add_route("*", "/{path:.*}", server.handle)
        runner = web.AppRunner(application, shutdown_timeout=0)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        driver = Driver(Entry("node-1", url, member), levels=True, timeout_s=timeout_s, prefix="x1-")
        try:
            await driver.resolve(["register", "append"], 10)
            await steps(driver, server)
        finally:
            await driver.close()
            server.over.set()  # else the server would wait for those that hang
            await runner.cleanup()

    asyncio.run(body())


def session(level: str = "session") -> Session:
    return Session("s0", 0, "node-1", level, "committed")


def test_an_answer_is_taken_down_with_its_node_and_index() -> None:
    async def steps(driver: Driver, server: Server) -> None:
        assert await driver.do(session(), UPSERT, "key-1") == Completion(
            Fate.OK, None, True, 200, "", "node-2", 9
        )
        assert (await driver.do(session(), GET, None)).value == "v1"
        (_, _, wrote, body), (_, _, read, _) = server.requests
        assert (wrote["idempotency-key"], wrote["x-chroma-ack"]) == ("key-1", "committed")
        assert body["ids"] == ["r-0"]
        # Who reads at a node directly brings along what the session has seen.
        assert (read["x-chroma-consistency"], read["x-chroma-min-index"]) == ("session", "9")

    play(steps)


def test_the_balancer_keeps_a_sessions_token_itself() -> None:
    async def steps(driver: Driver, server: Server) -> None:
        await driver.do(session(), UPSERT, "key-1")
        await driver.do(session(), GET, None)
        assert "x-chroma-min-index" not in server.requests[1][2]

    play(steps, member=None)


def test_a_broken_connection_proves_nothing_and_is_tried_once() -> None:
    async def steps(driver: Driver, server: Server) -> None:
        server.answer = server.hang_up
        for decision in (UPSERT, Decision("catalogue", Action.DROP, "gone")):
            answer = await driver.do(session(), decision, "key-1")
            assert (answer.outcome, answer.returned) == (Fate.UNKNOWN, False)
        assert [(method, verb) for method, verb, _, _ in server.requests] == [
            ("POST", "upsert"),
            ("DELETE", "x1-gone"),
        ]

    play(steps)


def test_no_answer_in_time_proves_nothing() -> None:
    async def steps(driver: Driver, server: Server) -> None:
        server.answer = server.hang
        answer = await driver.do(session(), UPSERT, "key-1")
        assert (answer.outcome, answer.returned) == (Fate.UNKNOWN, False)

    play(steps, timeout_s=0.3)


def test_a_list_that_cannot_be_read_is_not_written() -> None:
    async def steps(driver: Driver, server: Server) -> None:
        server.answer = server.hang
        append = Decision("append", Action.APPEND, "a-0", "a-0.1")
        answer = await driver.do(session(), append, "key-1")
        assert answer.outcome is Fate.REFUSED
        assert [verb for _, verb, _, _ in server.requests] == ["get"]

    play(steps, timeout_s=0.6)


def test_a_list_is_read_and_written_back_longer() -> None:
    async def steps(driver: Driver, server: Server) -> None:
        async def one(request: web.Request) -> web.StreamResponse:
            rows = {"ids": ["a-0"], "metadatas": [{"list": '["a-0.1"]'}], "documents": ["a-0"]}
            return web.json_response(rows if request.path.endswith("get") else {})

        server.answer = one
        append = Decision("append", Action.APPEND, "a-0", "a-0.2")
        assert (await driver.do(session("eventual"), append, "key-1")).outcome is Fate.OK
        (_, _, read, _), (_, _, _, body) = server.requests
        # What a writer reads to write it back must not be older than its own writes.
        assert read["x-chroma-consistency"] == "session"
        assert body["metadatas"] == [{"list": '["a-0.1","a-0.2"]'}]

    play(steps)


def test_an_answer_that_is_not_the_apis_is_no_answer() -> None:
    async def steps(driver: Driver, server: Server) -> None:
        async def odd(_: web.Request) -> web.StreamResponse:
            return web.json_response({"nothing": 1})

        server.answer = odd
        assert (await driver.do(session(), GET, None)).outcome is Fate.UNKNOWN

    play(steps)


def test_nobody_there_and_a_collection_that_is_not_known_are_refusals() -> None:
    async def body() -> None:
        driver = Driver(Entry("lb", f"http://127.0.0.1:{free_port()}"), levels=False, timeout_s=5)
        try:
            dropped = await driver.do(session(), Decision("catalogue", Action.DROP, "cat-0"), "key-1")
            assert (dropped.outcome, dropped.status) == (Fate.REFUSED, None)
            assert (await driver.do(session(), UPSERT, "key-1")).outcome is Fate.REFUSED
        finally:
            await driver.close()

    asyncio.run(body())


def test_the_last_reads_ask_for_many_documents_at_once() -> None:
    async def steps(driver: Driver, server: Server) -> None:
        missing = Decision("register", Action.GET, "r-1")
        found = await driver.read_all(session("linearizable"), [missing, GET])
        assert [answer.value for answer in found] == [None, "v1"]
        assert len(server.requests) == 1
        assert server.requests[0][3]["ids"] == ["r-1", "r-0"]

    play(steps)
