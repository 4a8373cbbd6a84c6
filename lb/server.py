"""Composes the balancer and runs it until SIGTERM or SIGINT."""

from __future__ import annotations

import asyncio
import logging
import os
import resource
import signal
import socket
import sys
import time
from typing import TYPE_CHECKING, Any, Final

import uvloop
from aiohttp import web

from lb.floor import Floor
from lb.guarantees import Guarantees
from lb.paths import is_reserved
from lb.proxy import Proxy, error_response, json_response
from lb.upstream import Upstream
from lb.view import for_anybody, row
from lb.watch import Watch
from wire.addresses import split_address
from wire.connections import bounded
from wire.door import Door
from wire.drain import Drain
from wire.malformed import shorten_complaints
from wire.proof import CHALLENGE, HEADER
from wire.prover import Prover

if TYPE_CHECKING:
    from lb.config import BalancerSettings

log = logging.getLogger("lb")

_NOT_PROVEN: Final = (
    f"Only who knows the cluster's secret may ask this: {HEADER} does not prove it. Nothing was changed. "
    "Without that header the answer is what everybody may see; `chroma-cluster status` shows all."
)

_HANGUP: Final = "SIGHUP: settings are read at the start only, nothing to reload; the balancer goes on"

#: Files for what is no client: status streams, logs, the listener.
_RESERVE: Final = 64
_MOST_CONNECTIONS: Final = 32_768

#: For connections to close once every request has its answer.
_CLOSE_S: Final = 0.5


class Balancer:
    """One balancer: `start`, use `url`, `stop`. Belongs to the running event loop."""

    def __init__(self, settings: BalancerSettings) -> None:
        self._settings = settings
        secret = settings.secret_bytes
        prover = Prover(secret)
        self._door = Door(secret, lambda: os.urandom(16).hex())
        self._watch = Watch(
            settings.nodes,
            cluster_id=settings.cluster_id,
            silence_s=settings.silence_ms / 1000,
            prover=prover,
        )
        self._guarantees = Guarantees(settings.max_collections)
        self._floor = Floor(self._watch, self._guarantees, prover)
        self._upstream = Upstream(settings.connect_timeout_ms / 1000, prover)
        self._drain = Drain()
        self._proxy = Proxy(settings, self._watch, self._guarantees, self._floor, self._upstream, self._drain)
        self._server: web.Server | None = None
        self._listener: asyncio.Server | None = None
        self._started_at = time.time()
        self.url = ""

    async def start(self) -> None:
        """Listen. Requests are held until the nodes are heard.

        Raises:
            OSError: the address cannot be listened on.
        """
        host, port = split_address(self._settings.listen)
        loop = asyncio.get_running_loop()
        self._server = web.Server(
            self._handle,
            request_factory=self._request,
            access_log=None,
            # What nobody waits for any more gives back its memory here and its place at the leader.
            handler_cancellation=True,
            auto_decompress=False,
            # Also for a connection on which nothing is asked, or half of a request's head.
            keepalive_timeout=75.0,
            max_line_size=65536,
            max_field_size=65536,
        )
        self._listener = await loop.create_server(
            bounded(self._server, _most_connections()), host, port, backlog=1024
        )
        name = self._listener.sockets[0].getsockname()
        shown = f"[{name[0]}]" if self._listener.sockets[0].family == socket.AF_INET6 else name[0]
        self.url = f"http://{shown}:{name[1]}"
        self._watch.listen(self._upstream.on_change)
        await self._upstream.start()
        await self._watch.start()
        await self._floor.start()

    async def stop(self) -> None:
        """Stop listening, let requests under way end for up to `drain_ms`, close everything."""
        if self._listener is not None:
            self._listener.close()
        # Before aiohttp hears of it: from then on it throws away what arrives, also of bodies half received.
        await self._drain.finish(self._settings.drain_ms / 1000)
        if self._server is not None:
            self._server.pre_shutdown()
            # To aiohttp, a timeout of zero means none.
            await self._server.shutdown(_CLOSE_S)
        await self._floor.stop()
        await self._watch.stop()
        await self._upstream.stop()

    def _request(self, message: Any, payload: Any, protocol: Any, writer: Any, task: Any) -> web.BaseRequest:
        # No size limit here: the proxy counts bytes itself, with Chroma's words for too many.
        return web.BaseRequest(
            message, payload, protocol, writer, task, asyncio.get_running_loop(), client_max_size=0
        )

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        with self._drain.under_way():
            response = await self._answer(request)
            if self._drain.draining and not response.prepared:
                response.force_close()
            return response

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        path = request.raw_path
        try:
            bare = path.partition("?")[0]
            if is_reserved(bare):
                return self._own(request, bare)
            return await self._proxy.handle(request)
        except ConnectionError:
            raise  # the client is gone
        except Exception:
            log.exception("%s %s failed in the balancer", request.method, path)
            return error_response(
                500,
                "InternalError",
                "The balancer failed while it handled this request; a write may or may not have taken "
                "effect: outcome unknown. Its log has the cause.",
            )

    def _own(self, request: web.BaseRequest, path: str) -> web.Response:
        """The balancer's own endpoints. What nodes offer below /cluster is not for clients."""
        if path not in ("/cluster/status", "/cluster/healthz"):
            return error_response(404, "NotFoundError", f"The balancer has no {path}.")
        if request.method not in ("GET", "HEAD"):
            return error_response(405, "MethodNotAllowedError", f"{path} is for GET.")
        status = self.status()
        if path == "/cluster/healthz":
            healthy = status["healthy"]
            return json_response({"healthy": healthy}, status=200 if healthy else 503)
        proof = request.headers.get(HEADER)
        if proof is None:
            answer = json_response(for_anybody(status))
        elif self._door.enter(request.method, request.raw_path, proof) is None:
            answer = error_response(403, "ForbiddenError", _NOT_PROVEN)
        else:
            answer = json_response(status)
        # By which whoever knows the secret asks for the rest.
        answer.headers[CHALLENGE] = self._door.challenge
        return answer

    def status(self) -> dict[str, Any]:
        """The balancer's view. `healthy`: a leader is known, so that writes are taken."""
        ring = self._watch.ring
        leader = ring.leader()
        now = asyncio.get_running_loop().time()
        counters = self._proxy.counters
        return {
            "url": self.url,
            "pid": os.getpid(),
            "healthy": leader is not None,
            "leader": leader.node_id if leader else None,
            "term": leader.status.term if leader and leader.status else None,
            "started_at": self._started_at,
            "consistency": self._settings.consistency,
            "hold_ms": self._settings.hold_ms,
            "floor_known": self._floor.known,
            "highest_index": self._guarantees.highest,
            "collections_remembered": len(self._guarantees),
            "in_flight": self._proxy.in_flight,
            "buffered_bytes": self._proxy.budget.used,
            "requests": counters.requests,
            "retries": counters.retries,
            "held": counters.held,
            "gave_up": counters.gave_up,
            "refused": counters.refused,
            "nodes": [row(member, now) for member in ring.members],
        }


def _most_connections() -> int:
    """Half of the files that may be open: each request needs a connection to a node too."""
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return _MOST_CONNECTIONS if limit == resource.RLIM_INFINITY else max((limit - _RESERVE) // 2, 8)


def run_balancer(settings: BalancerSettings) -> int:
    """Run a balancer until SIGTERM or SIGINT; the exit code of the process."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_run(settings))


async def _run(settings: BalancerSettings) -> int:
    shorten_complaints()
    loop = asyncio.get_running_loop()
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    loop.add_signal_handler(signal.SIGHUP, log.info, _HANGUP)
    try:
        balancer = Balancer(settings)
    except (OSError, ValueError) as error:
        print(f"chroma-cluster lb: cannot read the cluster secret: {error}", file=sys.stderr)
        return 1
    try:
        await balancer.start()
    except OSError as error:
        print(
            f"chroma-cluster lb: cannot listen on {settings.listen}: {error.strerror or error}. "
            "Is another balancer running? Choose another address with `listen`.",
            file=sys.stderr,
        )
        return 1
    log.info("balancer at %s for %s", balancer.url, ", ".join(settings.nodes))
    await stopped.wait()
    log.info("stopping: requests under way may take %d ms to end", settings.drain_ms)
    await balancer.stop()
    return 0
