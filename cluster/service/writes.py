"""Writes: proposed once, answered with what the log decided, or with honest words for not knowing it."""

from __future__ import annotations

import asyncio
import uuid
from typing import TYPE_CHECKING

from cluster.errors import ClusterError, NotLeader, OutcomeUnknown, Overloaded
from cluster.state.catalog import Outcome
from cluster.state.commands import Proposal, WriteRecords, encode_proposal

if TYPE_CHECKING:
    from concurrent.futures import Future

    from cluster.acks import Ack
    from cluster.apply.applier import Applier, Decided
    from cluster.propose.proposer import Proposer, Ticket
    from cluster.service.health import Health
    from cluster.service.leader import Leader
    from cluster.state.commands import Command


class Writes:
    """Invariant: a write is answered 2xx only after its entry is committed (fsynced on a majority),
    and with `ack=applied` after this node's Chroma has it.
    """

    def __init__(
        self, applier: Applier, proposer: Proposer, leader: Leader, health: Health, timeout_ms: int
    ) -> None:
        self._applier = applier
        self._proposer = proposer
        self._leader = leader
        self._health = health
        self._timeout_ms = timeout_ms

    async def write(
        self, command: Command, *, key: str | None, digest: bytes, ack: Ack
    ) -> tuple[Outcome, int]:
        """As `cluster.api.interface.Service.write`."""
        self._health.require_serving()
        if not self._leader.is_here():
            raise NotLeader(self._leader.id())
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
        if ack == "committed" and isinstance(command, WriteRecords):
            return await self._committed(command, request_id, ticket, decided)
        try:
            async with asyncio.timeout(self._timeout_ms / 1000):
                return await self._applied(ticket, decided, has_key=key is not None)
        except TimeoutError:
            self._give_up(request_id, ticket, decided)
            if ticket.withdrawn:
                raise Overloaded(
                    f"The log took no writes for {self._timeout_ms} ms. This write was "
                    "withdrawn and changed nothing; try again later."
                ) from None
            raise self._unknown() from None
        finally:
            self._give_up(request_id, ticket, decided)

    async def _applied(self, ticket: Ticket, decided: Future[Decided], *, has_key: bool) -> Decided:
        try:
            await asyncio.shield(ticket.position)
        except OutcomeUnknown:
            if has_key:
                raise  # a retry with the key finds out at the new leader, and at once
            # The entry may still be committed by the next leader: then the outcome comes from here.
        return await asyncio.wrap_future(decided)

    async def _committed(
        self, command: WriteRecords, request_id: str, ticket: Ticket, decided: Future[Decided]
    ) -> Decided:
        # The line counts these bytes until they are applied: a slow engine slows the writers down.
        loop = asyncio.get_running_loop()
        decided.add_done_callback(
            lambda _: loop.call_soon_threadsafe(self._give_up, request_id, ticket, decided)
        )
        try:
            async with asyncio.timeout(self._timeout_ms / 1000):
                position = await asyncio.shield(ticket.position)
        except TimeoutError:
            self._give_up(request_id, ticket, decided)
            raise self._unknown() from None
        except ClusterError:
            self._give_up(request_id, ticket, decided)
            raise
        return Outcome(201 if command.kind == "add" else 200, {}), position.index

    def _give_up(self, request_id: str, ticket: Ticket, decided: Future[Decided]) -> None:
        if not ticket.finished:
            self._applier.forget(request_id, decided)
            self._proposer.finish(ticket)

    def _unknown(self) -> OutcomeUnknown:
        return OutcomeUnknown(
            f"Outcome unknown: no answer from the log within {self._timeout_ms} ms. The write "
            "may or may not take effect; send it again with the same Idempotency-Key to find out."
        )
