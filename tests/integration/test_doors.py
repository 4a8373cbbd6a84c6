"""Who may ask what: the control surface of a node and the balancer before it, by every spelling."""

from __future__ import annotations

import asyncio
import contextlib
import os
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
from aiohttp import web

from cluster.api.app import SERVER_OPTIONS, create_app
from cluster.api.cluster_routes import FOR_ANYBODY, StatusFeed, cluster_routes
from cluster.errors import Unavailable
from tests.integration.lb_nodes import COLLECTION, bench
from tests.spellings import spellings
from wire import calls
from wire.door import Door
from wire.proof import CHALLENGE, HEADER, WATCH, digest_of
from wire.prover import Prover

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
        self.door = Door(SECRET, lambda: os.urandom(16).hex())
        self.prover = Prover(SECRET)
        self.admits_strangers = False

    def hear(self, *_: object) -> None:
        self.asked.append("suspect")

    def leader_id(self) -> str | None:
        return None

    def is_leader(self) -> bool:
        raise Unavailable("the door is open")

    async def look_up(self, *_: object) -> Any:
        raise Unavailable("the door is open")

    read = look_up

    @property
    def allow_reset(self) -> bool:
        return False

    @property
    def reason(self) -> str | None:
        return None

    def status(self) -> dict[str, Any]:
        self.asked.append("status")
        return dict.fromkeys((*FOR_ANYBODY, "pid", "url"), "x")

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
    lines += [f"{name}: {value}" for name, value in headers.items()]
    writer.write("\r\n".join([*lines, "", ""]).encode() + body)
    async with asyncio.timeout(20):
        answer = await reader.read()
    writer.close()
    return int(answer.split()[1])


def proven(
    service: Service, path: str, body: bytes = b"", method: str = "POST", secret: bytes = SECRET
) -> dict[str, str]:
    """The proof of another sender each time."""
    prover = Prover(secret)
    prover.learn("it", 200, {CHALLENGE: service.door.challenge})
    return prover.headers("it", method, path, digest_of(body))


def test_a_node_answers_its_own_routes_by_their_very_spelling_and_to_members_only() -> None:
    async def scenario() -> None:
        async with node() as (service, port):
            for path in POSTS:
                for words in (
                    NOBODY,
                    proven(service, "/cluster/other", BODY),
                    proven(service, path, b"other"),
                    proven(service, path, BODY, "PUT"),
                    proven(service, path, BODY, secret=b"another"),
                    {HEADER: "x"},
                ):
                    assert await ask(port, "POST", path, BODY, words) == 403
                assert not service.asked
                good = proven(service, path, BODY)
                assert await ask(port, "POST", path, BODY, good) == 200
                assert service.asked == [path.rpartition("/")[2]]
                service.asked.clear()
                assert await ask(port, "POST", path, BODY, good) == 403, "the same words once more"
                assert not service.asked
                assert await ask(port, "GET", path, b"", proven(service, path, method="GET")) == 405
            for spelling in ("watch=1", "w%61tch=1", "watch=%31", "a=b&watch=1"):
                assert await ask(port, "GET", f"/cluster/status?{spelling}") == 403
            other = proven(service, "/cluster/status", method="GET")
            assert await ask(port, "GET", WATCH, b"", other) == 403
            assert not service.asked
            assert await ask(port, "GET", WATCH, b"", proven(service, WATCH, method="GET")) == 200
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
                words = proven(service, target + question + query, body, method)
                status = await ask(port, method, target + question + query, body, words)
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


TENANT = "/api/v2/tenants/default_tenant"
ADD = f"{COLLECTION}/add"
CHROMAS = [
    ("GET", TENANT),
    ("GET", "/api/v2/version"),
    ("GET", "/api/v2/auth/identity"),
    ("GET", "/openapi.json"),
    ("GET", f"{COLLECTION}/count"),
    ("POST", f"{COLLECTION}/get"),
    ("POST", ADD),
    ("DELETE", COLLECTION),
    ("POST", "/api/v2/reset"),
]


@pytest.mark.parametrize(("method", "path"), CHROMAS)
def test_a_node_takes_chromas_requests_from_members_only(method: str, path: str) -> None:
    async def scenario() -> None:
        async with node() as (service, port), aiohttp.ClientSession() as session:
            url = f"http://127.0.0.1:{port}{path}"
            for words in ({}, {HEADER: "x"}, proven(service, path, b"{}", method, b"another")):
                async with session.request(method, url, data=b"{}", headers=words) as answer:
                    told = await answer.json()
                    assert (answer.status, told["error"]) == (403, "AuthError")
                    assert answer.headers["X-Chroma-Outcome"] == "unchanged"
                    assert "balancer" in told["message"]
                    assert "allow_direct_clients" in told["message"]
            other = proven(service, path, b"[]", method) | {"Content-Type": "application/json"}
            async with session.request(method, url, data=b"{}", headers=other) as answer:
                # What has no body is not refused for one that nobody reads.
                assert answer.status == 403 or path not in (ADD, f"{COLLECTION}/get")
            async with calls.proven(session, Prover(SECRET), method, url[: -len(path)], path) as answer:
                assert answer.status != 403 or path == "/api/v2/reset"
            service.admits_strangers = True
            async with session.request(method, url) as answer:
                assert answer.status != 403 or path == "/api/v2/reset"

    asyncio.run(scenario())


def test_everybody_may_ask_a_node_whether_it_lives_and_learns_no_address() -> None:
    async def scenario() -> None:
        async with node() as (service, port), aiohttp.ClientSession() as session:
            base = f"http://127.0.0.1:{port}"
            for path in ("/api/v2", "/api/v2/heartbeat", "/api/v2/healthcheck"):
                async with session.get(base + path) as answer:
                    assert answer.status != 403
            async with session.get(f"{base}/cluster/status") as answer:
                assert set(await answer.json()) == set(FOR_ANYBODY)
            # Also with a challenge that is not known, or of a process that has ended.
            prover = Prover(SECRET)
            for _ in range(2):
                async with calls.proven(session, prover, "GET", base, "/cluster/status") as answer:
                    assert {"pid", "url", "documents"} <= set(await answer.json())
                service.door = Door(SECRET, lambda: "f" * 32)
            async with session.get(f"{base}/cluster/status", headers={HEADER: "x"}) as answer:
                assert answer.status == 403

    asyncio.run(scenario())
