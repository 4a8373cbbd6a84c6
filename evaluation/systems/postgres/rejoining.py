"""An agent beside each server: it makes an old primary that was fenced follow the new one, by itself.

What Patroni, repmgr and pg_auto_failover do after a failover. It learns what has become of its server only
from the supervisor, asked through its machine's own link: on a machine that is cut off it does not know, and
does nothing. What it does goes through its machine's replication link, as the server's own following does.

It touches nothing but a running old primary that the supervisor has fenced, or a server that it has stopped
itself. A server that was killed is its operator's (`Postgres.restart`); a paused one is left alone. Whoever
starts, stops or rewrites a server holds its lock, so that these never meet.

The agents are tasks of the harness, not processes. So no fault kills or freezes one; but the programs that it
runs are processes of its member, and a fault that kills the member kills them: then it gives up.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from evaluation.failure import SystemFailure
from evaluation.systems.postgres.connection import FAILURES
from evaluation.systems.postgres.servers import Condition

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from evaluation.systems.interface import Observation
    from evaluation.systems.postgres.servers import Server

_PAUSE_S: Final = 0.3
#: After a failure: the primary may be away itself, or the link to it cut.
_RETRY_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class Word:
    """What the supervisor says: `fenced` are old primaries that are read-only."""

    primary: str | None
    term: int
    fenced: tuple[str, ...]

    @staticmethod
    def read(found: Mapping[str, Any] | None) -> Word | None:
        if found is None:
            return None
        return Word(found["primary"], int(found["term"]), tuple(found["fenced"]))


def may_act(word: Word | None, member: str, taken_down: bool) -> bool:
    """Whether a closer look is worth it: cheap, asked all the time."""
    if word is None or word.primary in (None, member):
        return False
    return taken_down or member in word.fenced


def whom_to_follow(word: Word | None, seen: Observation, condition: Condition) -> str | None:
    """The primary that the server must be made to follow now, or None: leave it as it is.

    `seen`: what the server says of itself. The supervisor and it must agree that it is an old primary.
    """
    if word is None or not may_act(word, seen.member, condition is Condition.TAKEN_DOWN):
        return None
    if condition is Condition.TAKEN_DOWN:
        return word.primary
    old = seen.role == "primary" and seen.term is not None and seen.term < word.term
    return word.primary if condition is Condition.RUNNING and old else None


@dataclass(frozen=True, slots=True)
class Hands:
    """What an agent knows and does by: all but `look` through the links of its machine."""

    hear: Callable[[], Awaitable[Word | None]]
    look: Callable[[], Awaitable[Observation]]
    prepare: Callable[[str], Awaitable[None]]
    """Makes that primary ready to be followed; changes nothing on this machine."""
    fill: Callable[[str], Awaitable[None]]
    """Makes the stopped server one that follows that primary, and starts it."""
    note: Callable[[str], None]


class Agent:
    """For one server."""

    def __init__(self, server: Server, hands: Hands) -> None:
        self._server = server
        self._hands = hands

    async def run(self) -> None:
        """Until cancelled. What fails is noted and tried again."""
        while True:
            pause_s = _PAUSE_S
            try:
                await self.attend()
            except (SystemFailure, *FAILURES) as error:
                self._note(f"cannot be made to follow, to be tried again: {error!r}")
                pause_s = _RETRY_S
            await asyncio.sleep(pause_s)

    async def attend(self) -> None:
        """Once: look whether there is something to do, and do it."""
        server, hands = self._server, self._hands
        word = await hands.hear()
        if word is None or word.primary is None or not may_act(word, server.member, server.taken_down):
            return
        primary = word.primary
        async with server.lock:
            await hands.prepare(primary)
            # The lock and the primary may have been waited for: all is asked again, the processes last.
            word, seen = await hands.hear(), await hands.look()
            condition = server.condition()
            if whom_to_follow(word, seen, condition) != primary:
                return
            self._note(f"is to follow {primary}, it is {condition}")
            if condition is Condition.RUNNING:
                await server.take_down()
            await hands.fill(primary)
            self._note(f"follows {primary}")

    def _note(self, text: str) -> None:
        self._hands.note(f"{self._server.member} {text}")
