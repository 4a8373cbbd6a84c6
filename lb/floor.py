"""What a balancer asks once, before its first session read: how far may answers before its time have gone?

The leader's read index covers every answer that any earlier balancer can have given. Until it is
known, session reads are held; asked again if the cluster behind the balancer turns out to be another.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Final

import aiohttp
import orjson

from wire.calls import proven

if TYPE_CHECKING:
    from lb.guarantees import Guarantees
    from lb.ring import Ring
    from lb.watch import Watch
    from wire.prover import Prover

log = logging.getLogger("lb.floor")

_PAUSE_S: Final = 0.2
_ANSWER_S: Final = 2.0


class Floor:
    """Raises the guarantees' floor to the leader's read index, once for each cluster."""

    def __init__(self, watch: Watch, guarantees: Guarantees, prover: Prover) -> None:
        """`prover` knows the cluster's secret: nodes give a read index to nobody else."""
        self._prover = prover
        self._watch = watch
        self._guarantees = guarantees
        self._known = asyncio.Event()
        self._asked = ""
        self._task: asyncio.Task[None] | None = None

    @property
    def known(self) -> bool:
        return self._known.is_set()

    async def wait(self, wait_s: float) -> bool:
        """Whether the floor is known, at the latest after `wait_s`."""
        if not self._known.is_set():
            try:
                async with asyncio.timeout(wait_s):
                    await self._known.wait()
            except TimeoutError:
                return False
        return True

    async def start(self) -> None:
        """Ask in the background until a leader has answered."""
        self._watch.listen(self._on_change)
        self._task = asyncio.create_task(self._ask_until_answered())

    async def stop(self) -> None:
        """Stop asking."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def _on_change(self, before: Ring, after: Ring) -> None:
        del before
        leader = after.leader()
        if leader is None or leader.status is None or not self.known:
            return
        if leader.status.cluster != self._asked:
            log.warning("the cluster is now %s (was %s)", leader.status.cluster, self._asked)
            self._known.clear()
            self._guarantees.forget()
            self._task = asyncio.create_task(self._ask_until_answered())

    async def _ask_until_answered(self) -> None:
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=_ANSWER_S)) as session:
            while True:
                leader = self._watch.ring.leader()
                if leader is None or leader.status is None:
                    await self._watch.changed(_PAUSE_S)
                    continue
                try:
                    index = await _read_index(session, leader.url, self._prover)
                except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
                    log.info("%s gives no read index yet: %s", leader.node_id, error or type(error).__name__)
                    await self._watch.changed(_PAUSE_S)
                    continue
                self._asked = leader.status.cluster
                self._guarantees.raise_floor(index)
                self._known.set()
                return


async def _read_index(session: aiohttp.ClientSession, url: str, prover: Prover) -> int:
    async with proven(session, prover, "POST", url, "/cluster/read-index") as response:
        body = await response.read()
        if response.status != 200:
            raise ValueError(f"status {response.status}: {body[:200]!r}")
    answer = orjson.loads(body)
    index = answer.get("index") if isinstance(answer, dict) else None  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
    if not isinstance(index, int):
        raise ValueError(f"no index in {body[:200]!r}")
    return index
