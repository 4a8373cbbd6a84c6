"""One status stream per node, kept open for ever: the ring's eyes.

A node that says nothing for `silence_s`, whose stream breaks or cannot be opened, is ejected from
the ring; the next line on a new stream takes it back.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING, Final

import aiohttp
import orjson

from lb.ring import Ring, Status
from wire.calls import proven
from wire.proof import WATCH

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from wire.prover import Prover

log = logging.getLogger("lb.watch")

_RECONNECT_S: Final = (0.1, 0.2, 0.3)
_LONGEST_LINE_BYTES: Final = 1024 * 1024


class Watch:
    """Keeps `ring` up to date and tells when who leads or who is healthy has changed."""

    def __init__(
        self, nodes: Mapping[str, str], *, cluster_id: str = "", silence_s: float = 1.0, prover: Prover
    ) -> None:
        """`prover` knows the cluster's secret: nodes show their status as a stream to nobody else."""
        self.ring = Ring.of(nodes, cluster_id)
        self._prover = prover
        self._silence_s = silence_s
        self._tick_s = silence_s / 10
        self._tasks: list[asyncio.Task[None]] = []
        self._streams: dict[tuple[str, str], asyncio.Task[None]] = {}
        """By node id and URL."""
        self._scopes: dict[str, asyncio.Timeout] = {}
        self._listeners: list[Callable[[Ring, Ring], None]] = []
        self._wake: asyncio.Future[None] | None = None
        self._session: aiohttp.ClientSession | None = None

    def listen(self, listener: Callable[[Ring, Ring], None]) -> None:
        """Call `listener(before, after)` at every change of who leads or who is healthy."""
        self._listeners.append(listener)

    async def start(self) -> None:
        """Open a stream to every node, in the background."""
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, force_close=True, ttl_dns_cache=5),
            timeout=aiohttp.ClientTimeout(total=None),
        )
        self._follow_members()
        self._tasks.append(asyncio.create_task(self._sweep()))

    def _follow_members(self) -> None:
        """A stream to every member, and to nobody else."""
        if self._session is None:
            return
        wanted = {(member.node_id, member.url) for member in self.ring.members}
        for key in self._streams.keys() - wanted:
            self._streams.pop(key).cancel()
            log.info("%s at %s is no member any more", *key)
        for key in sorted(wanted - self._streams.keys()):
            self._streams[key] = asyncio.create_task(self._follow(self._session, *key))

    async def stop(self) -> None:
        """Close all streams."""
        tasks = [*self._tasks, *self._streams.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._session is not None:
            await self._session.close()

    async def changed(self, wait_s: float) -> None:
        """Return at the next change of who leads or who is healthy, or after `wait_s`."""
        if self._wake is None:
            self._wake = asyncio.get_running_loop().create_future()
        await asyncio.wait((self._wake,), timeout=wait_s)

    def shun(self, node_id: str, for_s: float) -> None:
        """A request to `node_id` failed on the way: prefer others for a moment."""
        self.ring = self.ring.shunned(node_id, asyncio.get_running_loop().time() + for_s)

    async def _follow(self, session: aiohttp.ClientSession, node_id: str, url: str) -> None:
        failures = 0
        while True:
            reason = "its status stream ended"
            try:
                async with asyncio.timeout(self._silence_s) as scope:
                    self._scopes[node_id] = scope
                    await self._read(session, node_id, url, scope)
            except TimeoutError:
                reason = f"silent for more than {self._silence_s:g} s"
            except aiohttp.ClientConnectorError as error:
                reason = f"cannot connect to {url}: {error.strerror or error}"
            except (aiohttp.ClientError, OSError) as error:
                reason = f"its status stream broke: {error or type(error).__name__}"
            except ValueError as error:
                reason = f"its status stream cannot be read: {error}"
            held = self.ring.find(node_id)
            if held is not None and held.status is not None:
                failures = 0
            self._update(self.ring.lost(node_id, reason))
            await asyncio.sleep(_RECONNECT_S[min(failures, len(_RECONNECT_S) - 1)])
            failures += 1

    async def _read(
        self, session: aiohttp.ClientSession, node_id: str, url: str, scope: asyncio.Timeout
    ) -> None:
        """Follow one stream to its end."""
        loop = asyncio.get_running_loop()
        heard = False
        async with proven(session, self._prover, "GET", url, WATCH) as response:
            if response.status == 403:
                raise ValueError("it does not take this balancer for one of its cluster: is `secret` right?")
            if response.status != 200:
                raise ValueError(f"GET /cluster/status answered {response.status}")
            pending = b""
            while chunk := await response.content.readany():
                *lines, pending = (pending + chunk).split(b"\n")
                if len(pending) > _LONGEST_LINE_BYTES:
                    raise ValueError("a line is longer than 1 MiB")
                if lines:
                    # Only the newest counts: after a pause several may arrive at once.
                    status = Status.of(orjson.loads(lines[-1]))
                    self._update(self.ring.heard(node_id, status, loop.time()))
                    if not heard:
                        heard = True
                        # From the first line on, silence is judged by the sweep.
                        scope.reschedule(None)

    async def _sweep(self) -> None:
        loop = asyncio.get_running_loop()
        before = loop.time()
        while True:
            await asyncio.sleep(self._tick_s)
            now = loop.time()
            lag_s = now - before - self._tick_s
            before = now
            if lag_s > self._silence_s / 4:
                # This process stood still (it was stopped, or the machine was busy): lines may wait
                # unread in the sockets, so nobody is to blame for a silence that nobody listened to.
                self.ring = self.ring.forgiven(lag_s)
                continue
            old = self.ring
            self._update(old.swept(now, self._silence_s))
            before_it = {member.node_id: member for member in old.members}
            for member in self.ring.members:
                was = before_it.get(member.node_id)
                if was is not None and was.status is not None and member.status is None:
                    scope = self._scopes.get(member.node_id)
                    if scope is not None and not scope.expired():
                        with contextlib.suppress(RuntimeError):  # the stream has just ended by itself
                            scope.reschedule(now)

    def _update(self, ring: Ring) -> None:
        old, self.ring = self.ring, ring
        if _outline(old) == _outline(ring):
            return
        if old.configuration != ring.configuration:
            self._follow_members()
        known = {member.node_id: member for member in old.members}
        for member in ring.members:
            was_healthy = member.node_id in known and known[member.node_id].healthy
            if was_healthy and not member.healthy:
                log.warning("%s ejected: %s", member.node_id, member.reason or "not healthy")
            elif member.healthy and not was_healthy:
                log.info("%s in rotation", member.node_id)
        leader = ring.leader()
        was_leader = old.leader()
        if (leader and leader.node_id) != (was_leader and was_leader.node_id):
            log.info("leader: %s", leader.node_id if leader else "none known")
        wake, self._wake = self._wake, None
        if wake is not None:
            wake.set_result(None)
        for listener in self._listeners:
            listener(old, ring)


def _outline(ring: Ring) -> tuple[object, ...]:
    """What others wait for: who leads which cluster in which term, and who can be used for what."""
    leader = ring.leader()
    return (
        (leader.node_id, leader.status.term, leader.status.cluster) if leader and leader.status else None,
        tuple((member.node_id, member.healthy, member.status is not None) for member in ring.members),
        ring.configuration,
    )
