"""The leader's waiting writes leave as log entries, grouped, as soon as the log has room for them."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from cluster.failpoint import failpoint
from cluster.propose.grouping import WaitingLine
from cluster.state.commands import encode_group

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable
    from concurrent.futures import Future

    from cluster.propose.grouping import GroupLimits
    from cluster.raft.interface import Position, Raft


class Ticket:
    """One write on its way into the log; `position` is done when its entry is committed."""

    def __init__(self, encoded: bytes, position: asyncio.Future[Position]) -> None:
        self.encoded = encoded
        self.position = position
        self.withdrawn = False
        self.finished = False


class Proposer:
    """Drives `grouping.WaitingLine` against the log; lives on one event loop."""

    def __init__(
        self,
        raft: Raft,
        limits: GroupLimits,
        clock_ms: Callable[[], int],
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self._raft = raft
        self._clock_ms = clock_ms
        self._loop = loop
        self._line: WaitingLine[Ticket] = WaitingLine(limits)

    def join(self, encoded: bytes) -> Ticket:
        """Put one encoded proposal in the line. Call `finish` for it exactly once.

        Raises:
            Overloaded: the line is full; nothing was accepted.
        """
        ticket = Ticket(encoded, self._loop.create_future())
        failpoint("proposer.before_join")
        self._line.join(ticket, len(encoded))
        failpoint("proposer.after_join")
        self._send()
        return ticket

    def finish(self, ticket: Ticket) -> None:
        """Nobody waits for this write any more: it is applied, has failed, or was given up.

        `ticket.withdrawn` says afterwards whether it was still in the line: then it surely
        changes nothing.
        """
        if not self.withdraw(ticket):
            self._line.finish(len(ticket.encoded))
            ticket.finished = True
            ticket.position.cancel()

    def withdraw(self, ticket: Ticket) -> bool:
        """Take it out of the line, if it is still there, and finish it; False if it may be in the log."""
        if not self._line.withdraw(ticket):
            return False
        ticket.withdrawn = ticket.finished = True
        ticket.position.cancel()
        return True

    @property
    def queued_bytes(self) -> int:
        """Bytes of writes that were accepted and are neither applied nor withdrawn."""
        return self._line.queued_bytes

    def _send(self) -> None:
        while tickets := self._line.take():
            payload = encode_group(self._clock_ms(), [ticket.encoded for ticket in tickets])
            failpoint("proposer.before_propose")
            committed = self._raft.propose(payload)
            committed.add_done_callback(partial(self._from_raft_thread, tickets))

    def _from_raft_thread(self, tickets: list[Ticket], committed: Future[Position]) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._landed, tickets, committed)

    def _landed(self, tickets: list[Ticket], committed: Future[Position]) -> None:
        self._line.landed(large=self._line.is_large(len(tickets[0].encoded)))
        error = committed.exception()
        for ticket in tickets:
            if ticket.position.done():
                continue
            if error is None:
                ticket.position.set_result(committed.result())
            else:
                ticket.position.set_exception(error)
        self._send()
