"""A stuck node deliberates with the others, round by round, until the write is applied or refused."""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from cluster.apply.containment import Progress
from cluster.apply.deliberation import Deliberation

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from concurrent.futures import Future

    from cluster.apply.applier import Applier
    from cluster.apply.containment import Question
    from cluster.config import NodeSettings
    from cluster.peers import Peers
    from cluster.raft.interface import Position, Raft
    from cluster.state.commands import RefuseEntry

log = logging.getLogger(__name__)

#: Between two rounds; also how often it is looked whether this node is stuck.
_ROUND_S: Final = 0.25
#: A member that takes longer to answer counts as silent in this round.
_ANSWER_S: Final = 1.0


class Containing:
    """The I/O around `Deliberation`; lives on the event loop."""

    def __init__(
        self,
        settings: NodeSettings,
        raft: Raft,
        applier: Applier,
        peers: Peers,
        urls: Mapping[str, str],
        propose: Callable[[RefuseEntry], Future[Position]],
    ) -> None:
        self._raft = raft
        self._applier = applier
        self._peers = peers
        self._urls = urls
        self._deliberation = Deliberation(
            raft,
            applier.impasse,
            urls,
            propose,
            applier.give_up_waiting,
            time.monotonic,
            settings.poison_wait_ms,
        )

    def progress(self, question: Question) -> Progress:
        """As `cluster.api.interface.PeerService.progress`."""
        answer = self._applier.impasse.answer(question, self._applier.place)
        is_idle = self._raft.status().lacks is not None or self._applier.fault is not None
        return replace(answer, is_idle=is_idle)

    async def run(self) -> None:
        """Until it is cancelled."""
        while True:
            await asyncio.sleep(_ROUND_S)
            try:
                await self._round()
            except Exception:
                log.exception("a round of deliberation failed; there will be another")

    async def _round(self) -> None:
        question = self._deliberation.question()
        if question is None:
            return
        urls = dict(self._urls)
        asked = [self._ask(url, question) for url in urls.values()]
        answers = dict(zip(urls, await asyncio.gather(*asked), strict=True))
        self._deliberation.conclude(question, answers)

    async def _ask(self, url: str, question: Question) -> Progress | None:
        try:
            async with asyncio.timeout(_ANSWER_S):
                answer = await self._peers.progress(url, question.encode())
            return None if answer is None else Progress.decode(answer)
        except (TimeoutError, ValueError, TypeError, KeyError):
            return None
