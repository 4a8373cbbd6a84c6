"""Writes: proposed once, answered with what the log decided, or with honest words for not knowing it."""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from typing import TYPE_CHECKING

from cluster.errors import ClusterError, NotLeader, OutcomeUnknown, Overloaded
from cluster.service.foresight import Foresight
from cluster.state.catalog import Outcome
from cluster.state.commands import DeleteRecords, Proposal, WriteRecords, encode_proposal
from wire.patience import write_bound_s

if TYPE_CHECKING:
    from concurrent.futures import Future

    from cluster.acks import Ack
    from cluster.apply.applier import Applier, Decided
    from cluster.propose.proposer import Proposer, Ticket
    from cluster.raft.interface import Position
    from cluster.service.health import Health
    from cluster.service.leader import Leader
    from cluster.service.leveling import Leveling
    from cluster.service.room import Room
    from cluster.state.commands import Command


class Writes:
    """Invariant: a write is answered 2xx only after its entry is committed (fsynced on a majority),
    and with `ack=applied` after this node's Chroma has it. With `ack=committed` it is answered earlier if
    the log surely accepts it.
    """

    def __init__(
        self,
        applier: Applier,
        proposer: Proposer,
        leader: Leader,
        health: Health,
        room: Room,
        leveling: Leveling,
        timeout_ms: int,
    ) -> None:
        self._applier = applier
        self._proposer = proposer
        self._leader = leader
        self._health = health
        self._room = room
        self._leveling = leveling
        self._timeout_ms = timeout_ms
        self._foresight = Foresight()

    async def write(
        self, command: Command, *, key: str | None, digest: bytes, ack: Ack
    ) -> tuple[Outcome, int]:
        """As `cluster.api.interface.Service.write`."""
        self._health.require_serving()
        if not self._leader.is_here():
            raise NotLeader(self._leader.id())
        self._leveling.require(command)
        self._room.require(command)
        # Clients' keys and our own random ids cannot collide: each has a prefix of its own.
        request_id = f"k:{key}" if key is not None else f"r:{uuid.uuid4().hex}"
        encoded = encode_proposal(Proposal(request_id, digest, command))
        # Before the proposal, or the outcome could be there before anybody waits for it.
        decided = self._applier.expect(request_id)
        try:
            ticket = self._proposer.join(encoded)
        except ClusterError:
            self._applier.forget(request_id, decided)
            raise
        self._foresight.watch(command, ticket.position)
        ids = command.ids if isinstance(command, WriteRecords | DeleteRecords) else ()
        bound_s = write_bound_s(self._timeout_ms / 1000, len(encoded), len(ids or ()))
        if ack == "committed" and isinstance(command, WriteRecords):
            return await self._committed(command, request_id, ticket, decided, bound_s)
        try:
            async with asyncio.timeout(bound_s):
                return await self._applied(ticket, decided, has_key=key is not None)
        except TimeoutError:
            if self._proposer.withdraw(ticket):
                raise Overloaded(
                    f"The log took no writes for {bound_s:.3g} s. This write was "
                    "withdrawn and changed nothing; try again later."
                ) from None
            raise _unknown(bound_s) from None
        finally:
            self._leave(request_id, ticket, decided)

    async def _applied(self, ticket: Ticket, decided: Future[Decided], *, has_key: bool) -> Decided:
        try:
            await asyncio.shield(ticket.position)
        except OutcomeUnknown:
            if has_key:
                raise  # a retry with the key finds out at the new leader, and at once
            # The entry may still be committed by the next leader: then the outcome comes from here.
        return await asyncio.shield(asyncio.wrap_future(decided))

    async def _committed(
        self,
        command: WriteRecords,
        request_id: str,
        ticket: Ticket,
        decided: Future[Decided],
        bound_s: float,
    ) -> Decided:
        try:
            async with asyncio.timeout(bound_s):
                position = await asyncio.shield(ticket.position)
                if not self._is_accepted(command, request_id):
                    return await asyncio.shield(asyncio.wrap_future(decided))
        except TimeoutError:
            raise _unknown(bound_s) from None
        finally:
            self._leave(request_id, ticket, decided)
        return Outcome(201 if command.kind == "add" else 200, {}), position.index

    def _is_accepted(self, command: WriteRecords, request_id: str) -> bool:
        if not self._applier.is_alone(request_id):
            return False
        if self._applier.trouble(command.collection_id) is not None:
            return False  # set aside, or about to be
        applied_index = self._applier.applied_index
        return self._foresight.is_accepted(command, self._applier.catalog, applied_index)

    def _leave(self, request_id: str, ticket: Ticket, decided: Future[Decided]) -> None:
        """Nobody waits for this write any more: answered, given up, or its client is gone.

        What is not in the log is dropped. What may be there counts in the line until its fate is known: a
        slow engine slows the writers down, and it does not help a writer to give up.
        """
        if ticket.finished or decided.done() or self._proposer.withdraw(ticket):
            self._give_up(request_id, ticket, decided)
            return
        loop = asyncio.get_running_loop()

        def over(_: object) -> None:
            with contextlib.suppress(RuntimeError):  # the loop has ended, and the line with it
                loop.call_soon_threadsafe(self._give_up, request_id, ticket, decided)

        def landed(position: asyncio.Future[Position]) -> None:
            if position.cancelled() or position.exception() is not None:
                self._give_up(request_id, ticket, decided)
            else:
                decided.add_done_callback(over)

        ticket.position.add_done_callback(landed)

    def _give_up(self, request_id: str, ticket: Ticket, decided: Future[Decided]) -> None:
        self._applier.forget(request_id, decided)
        if not ticket.finished:
            self._proposer.finish(ticket)


def _unknown(bound_s: float) -> OutcomeUnknown:
    return OutcomeUnknown(
        f"Outcome unknown: no answer from the log within {bound_s:.3g} s. The write "
        "may or may not take effect; send it again with the same Idempotency-Key to find out."
    )
