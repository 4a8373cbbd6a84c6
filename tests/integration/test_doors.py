"""Who may ask what: the control surface of a node and the balancer before it, by every spelling."""

from __future__ import annotations

import asyncio
import contextlib
from functools import partial
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from aiohttp import web

from cluster.api.app import SERVER_OPTIONS, create_app
from cluster.api.cluster_routes import StatusFeed, cluster_routes
from tests.integration.lb_nodes import COLLECTION, bench
from tests.spellings import spellings
from wire.proof import HEADER, WATCH, is_proof, prove

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

SECRET = b"secret"
GETS = ["/cluster/status", WATCH]
POSTS = [f"/cluster/{name}" for name in ("read-index", "embed", "suspect", "check")]
NOBODY: dict[str, str] = {}
BODY = b'{"collection_id":"c","texts":["a"],"query":false,"digest":"00","cause":"x","for_s":1}'


class Service:
    """As much of a node as its doors need; `asked` is what got through."""

    node_id = "node-1"
    max_request_bytes = 1000

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.guard = SimpleNamespace(is_alert=False, heard=self.hear)
        self.is_from_member = partial(is_proof, SECRET)

    def hear(self, *_: object) -> None:
        self.asked.append("suspect")

    def leader_id(self) -> str | None:
        return None

    def status(self) -> dict[str, Any]:
        self.asked.append("status")
        return {"id": self.node_id}

    async def count_documents(self) -> int:
        return 0

    async def read_index(self) -> int:
        self.asked.append("read-index")
        return 7

    async def check_collection(self, collection_id: str) -> dict[str, Any]:
        self.asked.append("check")
        return {"id": collection_id}

    async def embed_here(self, *_: Any, query: bool) -> tuple[list[bytes], str, int]:
        del query
        self.asked.append("embed")
        return [b""], "m", 0


@contextlib.asynccontextmanager
async def node() -> AsyncGenerator[tuple[Service, int]]:
    service: Any = Service()
    feed = StatusFeed(asyncio.get_running_loop())
    feed.close()  # a watcher sees one status and is let go
    runner = web.AppRunner(create_app(service, cluster_routes(service, feed)), **SERVER_OPTIONS)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield service, runner.addresses[0][1]
    finally:
        await runner.cleanup()


async def ask(
    port: int, method: str, target: str, body: bytes = b"", headers: dict[str, str] = NOBODY
) -> int:
    """The status of the answer to a request whose target goes out as it is."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    lines = [f"{method} {target} HTTP/1.1", "Host: x", "Connection: close", f"Content-Length: {len(body)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    writer.write("\r\n".join([*lines, "", ""]).encode() + body)
    async with asyncio.timeout(20):
        answer = await reader.read()
    writer.close()
    return int(answer.split()[1])


def proven(path: str, body: bytes = b"") -> dict[str, str]:
    return {HEADER.replace("-", "_"): prove(SECRET, path, body)}


def test_a_node_answers_its_own_routes_by_their_very_spelling_and_to_members_only() -> None:
    async def scenario() -> None:
        async with node() as (service, port):
            for path in POSTS:
                for words in (NOBODY, proven("/cluster/other", BODY), proven(path, b"other"), {"X_Y": "z"}):
                    assert await ask(port, "POST", path, BODY, words) == 403
                assert not service.asked
                assert await ask(port, "POST", path, BODY, proven(path, BODY)) == 200
                assert service.asked == [path.rpartition("/")[2]]
                service.asked.clear()
                assert await ask(port, "GET", path, b"", proven(path)) == 405
            for spelling in ("watch=1", "w%61tch=1", "watch=%31", "a=b&watch=1"):
                assert await ask(port, "GET", f"/cluster/status?{spelling}") == 403
            assert await ask(port, "GET", WATCH, b"", proven("/cluster/status")) == 403
            assert not service.asked
            assert await ask(port, "GET", WATCH, b"", proven(WATCH)) == 200
            assert await ask(port, "GET", "/cluster/status") == 200
            assert await ask(port, "HEAD", "/cluster/status") == 200
            assert await ask(port, "POST", "/cluster/status") == 405

    asyncio.run(scenario())


@pytest.mark.parametrize("path", [*GETS, *POSTS])
def test_another_spelling_leads_nowhere_at_a_node(path: str) -> None:
    async def scenario() -> None:
        async with node() as (service, port):
            method, body = ("GET", b"") if path in GETS else ("POST", BODY)
            bare, question, query = path.partition("?")
            for target in spellings(bare):
                # The proof of a member, which a balancer without care might add.
                status = await ask(port, method, target + question + query, body, proven(path, body))
                assert status == 404, target
            assert not service.asked

    asyncio.run(scenario())


@pytest.mark.parametrize("path", [*GETS, *POSTS])
def test_no_spelling_of_a_nodes_own_routes_passes_the_balancer(path: str) -> None:
    async def scenario() -> None:
        async with bench() as b:
            port = int(b.balancer.url.rpartition(":")[2])
            bare, question, query = path.partition("?")
            for target in spellings(bare):
                for method in ("GET", "POST"):
                    assert await ask(port, method, target + question + query) == 404, target
            assert await ask(port, "POST", f"http://x{path}") == 400
            assert not any(one.received for one in b.nodes)
            assert await ask(port, "GET", f"{COLLECTION}/count") == 200

    asyncio.run(scenario())


def test_a_balancer_with_another_secret_says_what_is_wrong() -> None:
    async def scenario() -> None:
        async with bench(wait=False, secret="another", hold_ms=100) as b:
            await b.until(
                lambda: all("secret" in (view["reason"] or "") for view in b.balancer.status()["nodes"]),
                "each node's refusal to be named",
            )
            assert (await b.get())[0] == 503

    asyncio.run(scenario())
