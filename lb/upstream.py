"""One attempt at one node: send a buffered request, bring back its answer, or say how it failed.

An answer of up to `SMALL_ANSWER_BYTES` is read whole, so that a node that dies in the middle of it
can still be replaced by another. A bigger one is handed over open, to be streamed.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import aiohttp
import orjson
from aiohttp.payload import Payload
from multidict import CIMultiDict
from yarl import URL

from wire.calls import digest_in_time, proven
from wire.hops import strip_hop_by_hop
from wire.proof import CHALLENGE, HEADER

if TYPE_CHECKING:
    from aiohttp.abc import AbstractStreamWriter

    from lb.ring import Member, Ring
    from lb.routes import RouteKind
    from wire.prover import Prover

log = logging.getLogger("lb.upstream")

SMALL_ANSWER_BYTES: Final = 1024 * 1024

#: For a node to open its Chroma anew and read.
_TELL_S: Final = 30.0

#: Above this aiohttp warns that writing bytes in one go holds up the event loop.
_ONE_WRITE_BYTES: Final = 256 * 1024


class NeverSent(Exception):
    """No byte of the request reached the node."""


class Interrupted(Exception):
    """The request was, perhaps partly, sent; no whole answer came."""


@dataclass(slots=True)
class NodeAnswer:
    """What a node answered. `rest` is the open response if `body` is only its beginning."""

    status: int
    reason: str | None
    headers: CIMultiDict[str]
    body: bytes
    rest: aiohttp.ClientResponse | None


class Upstream:
    """Pooled keep-alive connections to the nodes, and the attempts under way on them."""

    def __init__(self, connect_timeout_s: float, prover: Prover) -> None:
        """`prover` knows the cluster's secret: nodes listen to nobody else."""
        self._prover = prover
        self._telling: set[asyncio.Task[None]] = set()
        self._connect_timeout_s = connect_timeout_s
        self._session: aiohttp.ClientSession | None = None
        self._flights: dict[tuple[str, RouteKind], set[asyncio.Timeout]] = {}

    async def start(self) -> None:
        """Make the connection pool; it connects on demand."""
        self._session = aiohttp.ClientSession(
            # The bound is on requests (`max_in_flight`); a second queue here would only hide it.
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=30, ttl_dns_cache=5),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=self._connect_timeout_s),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding", "Content-Type"),
            max_line_size=65536,
            max_field_size=65536,
        )
        # aiohttp would send a PUT or DELETE a second time by itself when a kept connection breaks, and if
        # that one is refused, tell of the refusal alone: a write that was sent would count as never sent.
        self._session._retry_connection = False  # pyright: ignore[reportPrivateUsage]

    async def stop(self) -> None:
        """Close all connections."""
        for task in self._telling:
            task.cancel()
        if self._session is not None:
            await self._session.close()

    async def attempt(
        self,
        member: Member,
        kind: RouteKind,
        method: str,
        target: str,
        headers: CIMultiDict[str],
        body: bytes,
        timeout_s: float,
    ) -> NodeAnswer:
        """Send the request to `member` and return its answer.

        Raises:
            NeverSent: surely no byte was sent, or the node let nothing in.
            Interrupted: anything else, `timeout_s` and ejection of the node included.
        """
        assert self._session is not None
        flights = self._flights.setdefault((member.node_id, kind), set())
        scope = asyncio.timeout(timeout_s)
        response: aiohttp.ClientResponse | None = None
        try:
            async with scope:
                flights.add(scope)
                response = await self._ask(self._session, member.url, method, target, headers, body)
                content, whole = await _beginning(response)
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            raise NeverSent from error
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            if response is not None:
                response.close()
            raise Interrupted from error
        finally:
            flights.discard(scope)
        passed = CIMultiDict(response.headers)
        strip_hop_by_hop(passed)
        return NodeAnswer(response.status, response.reason, passed, content, None if whole else response)

    async def _ask(
        self,
        session: aiohttp.ClientSession,
        node: str,
        method: str,
        target: str,
        headers: CIMultiDict[str],
        body: bytes,
    ) -> aiohttp.ClientResponse:
        url = URL(node + target, encoded=True)
        digest = await digest_in_time(body)
        headers = headers.copy()
        again = True
        while True:
            # A client's own proof is none.
            headers.popall(HEADER, None)
            headers.update(self._prover.headers(node, method, url.raw_path_qs, digest))
            response = await session.request(
                method, url, data=_payload(body) if body else None, headers=headers, allow_redirects=False
            )
            if CHALLENGE not in response.headers:
                return response
            response.release()
            if not (self._prover.learn(node, response.status, response.headers) and again):
                raise NeverSent
            again = False

    def tell_doubt(self, url: str, collection: int) -> None:
        """Tell a node, in the background, to check a collection: it failed a read that another did not."""
        task = asyncio.create_task(self._tell_doubt(url, collection))
        self._telling.add(task)
        task.add_done_callback(self._telling.discard)

    async def _tell_doubt(self, url: str, collection: int) -> None:
        assert self._session is not None
        body = orjson.dumps({"collection_id": str(uuid.UUID(int=collection))})
        headers = {"Content-Type": "application/json"}
        try:
            async with asyncio.timeout(_TELL_S):
                async with proven(
                    self._session, self._prover, "POST", url, "/cluster/check", body=body, headers=headers
                ) as answer:
                    log.info("told %s to check collection %x: %d", url, collection, answer.status)
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            log.warning("could not tell %s to check itself: %r", url, error)

    def interrupt(self, node_id: str, kind: RouteKind) -> None:
        """End all attempts of that kind that wait for `node_id`: they fail as `Interrupted`."""
        now = asyncio.get_running_loop().time()
        for scope in self._flights.get((node_id, kind), ()):
            if not scope.expired():
                scope.reschedule(now)

    def on_change(self, before: Ring, after: Ring) -> None:
        """Interrupt what waits in vain after a change of the ring.

        Reads: at a node that was ejected, or that others can replace, but not at one whose Chroma died
        or hangs: it answers by itself, and only it knows whether the read may be tried elsewhere.
        Writes: at a node that was ejected, or that another has replaced as the leader; sent again under
        the same key, they are applied once, wherever the first attempt got to.
        """
        leader = after.leader()
        others = bool(after.healthy())
        for was, member in zip(before.members, after.members, strict=True):
            lost = was.status is not None and member.status is None
            unwell = was.healthy and not member.healthy and not member.tends_engine
            if lost or (unwell and others):
                self.interrupt(member.node_id, "read")
            deposed = leader is not None and leader.node_id != member.node_id
            if lost or deposed:
                self.interrupt(member.node_id, "write")


async def _beginning(response: aiohttp.ClientResponse) -> tuple[bytes, bool]:
    """The answer's body if it is small (and True), or as much of it as that (and False)."""
    length = response.content_length
    if length is not None and length <= SMALL_ANSWER_BYTES:
        return await response.read(), True
    parts: list[bytes] = []
    size = 0
    while size <= SMALL_ANSWER_BYTES:
        part = await response.content.readany()
        if not part:
            response.release()
            return b"".join(parts), True
        parts.append(part)
        size += len(part)
    return b"".join(parts), False


def _payload(body: bytes) -> Any:
    return body if len(body) <= _ONE_WRITE_BYTES else _LargeBody(body)


class _LargeBody(Payload):
    """Bytes written in pieces, so that other requests get their turn in between. May be written again."""

    def __init__(self, body: bytes) -> None:
        super().__init__(body, content_type="application/octet-stream")
        self._size = len(body)
        self._bytes = body

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        return self._bytes.decode(encoding, errors)

    async def as_bytes(self, encoding: str = "utf-8", errors: str = "strict") -> bytes:
        del encoding, errors
        return self._bytes

    async def write(self, writer: AbstractStreamWriter) -> None:
        view = memoryview(self._bytes)
        for start in range(0, len(view), _ONE_WRITE_BYTES):
            await writer.write(view[start : start + _ONE_WRITE_BYTES])

    async def write_with_length(self, writer: AbstractStreamWriter, content_length: int | None) -> None:
        del content_length  # always our own
        await self.write(writer)
