"""Upstream servers for the balancer's tests: they speak the node's status protocol and misbehave on demand.

Run as a process (`python -m tests.integration.lb_nodes ID ROLE`), one prints its URL and serves until killed.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

import aiohttp
import orjson
from aiohttp import web

from lb.config import BalancerSettings
from lb.server import Balancer
from wire.calls import proven
from wire.door import Door
from wire.proof import CHALLENGE, HEADER, WATCH, digest_of

if TYPE_CHECKING:
    from multidict import CIMultiDictProxy

    from wire.prover import Prover

DATABASE = "/api/v2/tenants/default_tenant/databases/default_database"
COLLECTION_ID = "0f8fad5b-d9cb-469f-a165-70867728950e"
OTHER_ID = "11111111-d9cb-469f-a165-70867728950e"
COLLECTION = f"{DATABASE}/collections/{COLLECTION_ID}"
OTHER = f"{DATABASE}/collections/{OTHER_ID}"
WAIT_S = 20.0
SECRET = "the bench's secret"


@dataclass(frozen=True)
class Received:
    """One request as a node got it."""

    node_id: str
    method: str
    target: str
    headers: CIMultiDictProxy[str]
    body: bytes


Behaviour: TypeAlias = Callable[["Node", web.BaseRequest], Awaitable[web.StreamResponse]]


@dataclass
class Node:
    """A node as the balancer sees one. `behaviour` answers everything outside /cluster."""

    node_id: str
    behaviour: Behaviour
    role: str = "follower"
    term: int = 1
    applied_index: int = 0
    healthy: bool = True
    cluster: str = "test"
    read_index: int | None = 0
    port: int = 0
    received: list[Received] = field(default_factory=list[Received])
    cluster_of: list[Node] = field(default_factory=list["Node"])
    """All nodes: who of them claims to lead with the highest term is followed by those that do not."""
    door: Door = field(default_factory=lambda: Door(SECRET.encode(), lambda: os.urandom(16).hex()))
    outside: tuple[str, int] | None = None
    """The leader and its term when none of them claims to lead: a node that is not among them."""
    _changed: asyncio.Event = field(default_factory=asyncio.Event)
    _server: web.Server | None = None
    _listener: asyncio.Server | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def start(self) -> None:
        """Listen, on the same port as before if there was one; a process begun anew has a new challenge."""
        self.door = Door(SECRET.encode(), lambda: os.urandom(16).hex())
        self._server = web.Server(self._handle, access_log=None, auto_decompress=False)
        self._listener = await asyncio.get_running_loop().create_server(
            self._server, "127.0.0.1", self.port, reuse_address=True
        )
        self.port = self._listener.sockets[0].getsockname()[1]

    async def kill(self) -> None:
        """Break all connections and refuse new ones, as a process does that is killed."""
        if self._listener is None or self._server is None:
            return
        self._listener.close()
        for connection in self._server.connections:
            if connection.transport is not None:
                connection.transport.abort()
        await self._server.shutdown(0.01)
        await asyncio.sleep(0)  # a transport closes its socket in the loop's next turn
        self._listener = None

    def become(self, **changes: Any) -> None:
        """Change what the status says; the stream tells at once."""
        for name, value in changes.items():
            setattr(self, name, value)
        self._changed.set()
        self._changed = asyncio.Event()

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        claim = self.door.enter(request.method, request.raw_path, request.headers.get(HEADER, ""))
        if claim is None:
            refusal = error(403, "ForbiddenError")
            refusal.headers[CHALLENGE] = self.door.challenge
            return refusal
        if request.raw_path == WATCH:
            return await self._stream(request)
        if request.raw_path == "/cluster/read-index":
            if self.read_index is None or self.role != "leader":
                return error(503, "NotLeaderError")
            return web.json_response({"index": self.read_index})
        chunks = [chunk async for chunk in request.content.iter_any()]
        body = b"".join(chunks)
        assert claim.digest == digest_of(body)
        self.received.append(Received(self.node_id, request.method, request.raw_path, request.headers, body))
        return await self.behaviour(self, request)

    def _follows(self) -> tuple[str | None, int]:
        """Whom this node names as the leader, and of which term."""
        if self.role == "leader":
            return self.node_id, self.term
        leaders = [node for node in self.cluster_of if node.role == "leader"]
        leader = max(leaders, key=lambda node: node.term, default=None)
        if leader is None:
            return self.outside or (None, self.term)
        return leader.node_id, leader.term

    async def _stream(self, request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
        await response.prepare(request)
        with contextlib.suppress(ConnectionError):
            while True:
                leader, term = self._follows()
                line = {
                    "id": self.node_id,
                    "cluster": self.cluster,
                    "role": self.role,
                    "term": term,
                    "leader": leader,
                    "applied_index": self.applied_index,
                    "healthy": self.healthy,
                    "state": "ready" if self.healthy else "failed",
                    "reason": None if self.healthy else "the test says so",
                }
                changed = self._changed
                await response.write(orjson.dumps(line) + b"\n")
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(0.1):
                        await changed.wait()
        return response


# Behaviours


async def answers(node: Node, request: web.BaseRequest) -> web.StreamResponse:
    """200, which node it was and up to where it has applied."""
    del request
    return answer(node, {"node": node.node_id})


async def dies_in_the_middle_of_its_answer(node: Node, request: web.BaseRequest) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Length": "1000", "Content-Type": "application/json"})
    await response.prepare(request)
    await response.write(b'{"node":"' + node.node_id.encode())
    break_off(request)
    return response


async def breaks_off(node: Node, request: web.BaseRequest) -> web.StreamResponse:
    """Takes the whole request and breaks the connection without a word."""
    break_off(request)
    return await answers(node, request)


async def hangs(node: Node, request: web.BaseRequest) -> web.StreamResponse:
    await asyncio.Event().wait()
    return await answers(node, request)


def fails(status: int, name: str) -> Behaviour:
    async def behaviour(node: Node, request: web.BaseRequest) -> web.StreamResponse:
        del node, request
        return error(status, name)

    return behaviour


def answer(node: Node, body: Any, *, status: int = 200) -> web.Response:
    headers = {"X-Chroma-Node": node.node_id, "X-Chroma-Log-Index": str(node.applied_index)}
    return web.json_response(body, status=status, headers=headers)


def error(status: int, name: str) -> web.Response:
    return web.json_response({"error": name, "message": f"the test's {name}"}, status=status)


def break_off(request: web.BaseRequest) -> None:
    assert request.transport is not None
    request.transport.abort()


# A balancer over them


@dataclass
class Bench:
    """Three nodes, the first leads in term 1, and a balancer in front of them, all in this process."""

    nodes: list[Node]
    balancer: Balancer
    session: aiohttp.ClientSession

    def request(self, method: str, target: str, **options: Any) -> Any:
        return self.session.request(method, self.balancer.url + target, **options)

    async def get(self, target: str = f"{COLLECTION}/count", **headers: str) -> tuple[int, Any]:
        async with self.request("GET", target, headers=_names(headers)) as response:
            return response.status, await response.json()

    async def whole_status(self, prover: Prover) -> dict[str, Any]:
        """What the balancer tells who proves the secret."""
        url = self.balancer.url
        async with proven(self.session, prover, "GET", url, "/cluster/status") as response:
            assert response.status == 200, await response.text()
            return await response.json()

    async def post(self, target: str = f"{COLLECTION}/add", **headers: str) -> tuple[int, Any]:
        async with self.request("POST", target, json={"ids": ["1"]}, headers=_names(headers)) as response:
            return response.status, await response.json()

    async def until(self, condition: Callable[[], bool], what: str) -> None:
        """Wait until `condition()` holds; fail with `what` and the balancer's view after a deadline."""
        try:
            async with asyncio.timeout(WAIT_S):
                while not condition():  # noqa: ASYNC110 (a condition on many objects has no event)
                    await asyncio.sleep(0.005)
        except TimeoutError:
            raise AssertionError(f"not within {WAIT_S} s: {what}; {self.balancer.status()}") from None

    def usable(self) -> set[str]:
        """Ids of the nodes that the balancer uses."""
        return {node["id"] for node in self.balancer.status()["nodes"] if node["healthy"]}

    async def ready(self) -> None:
        await self.until(
            lambda: (
                self.balancer.status()["floor_known"]
                and self.usable() == {node.node_id for node in self.nodes if node.healthy}
            ),
            "all nodes in rotation and the floor known",
        )


def _names(headers: dict[str, str]) -> dict[str, str]:
    return {name.replace("_", "-"): value for name, value in headers.items()}


@contextlib.asynccontextmanager
async def bench(
    count: int = 3, *, wait: bool = True, others: dict[str, str] | None = None, **settings: Any
) -> AsyncGenerator[Bench]:
    """A bench of `count` nodes beside `others` (id -> URL); `settings` go to the balancer."""
    nodes = [Node(f"node-{number}", answers) for number in range(1, count + 1)]
    nodes[0].role = "leader"
    for node in nodes:
        node.cluster_of = nodes
    for node in nodes:
        await node.start()
    balancer = Balancer(
        BalancerSettings.load(
            None,
            listen="127.0.0.1:0",
            nodes={node.node_id: node.url for node in nodes} | (others or {}),
            **({"secret": SECRET} | settings),
        )
    )
    await balancer.start()
    async with aiohttp.ClientSession() as session:
        running = Bench(nodes, balancer, session)
        try:
            if wait:
                await running.ready()
            yield running
        finally:
            await session.close()
            await balancer.stop()
            for node in nodes:
                await node.kill()


async def _serve(node_id: str, role: str) -> None:
    node = Node(node_id, answers, role=role)
    await node.start()
    print(node.url, flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(_serve(sys.argv[1], sys.argv[2]))
