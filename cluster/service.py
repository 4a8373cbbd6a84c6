"""One node as its HTTP handlers see it: writes through the log, reads with a guarantee, vectors, status."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Final, TypeVar

from cluster.errors import ClusterError, Fault, NotLeader, OutcomeUnknown, Overloaded, Unavailable
from cluster.leader_watch import LeaderChanged, unless_leader_changes
from cluster.reads import Guarantee, behind, check_freshness, needs_read_index, wanted_index
from cluster.state.catalog import Outcome
from cluster.state.commands import Proposal, WriteRecords, encode_proposal

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Sequence
    from concurrent.futures import Future

    from cluster.api.interface import Ack
    from cluster.apply.applier import Applier, Decided
    from cluster.chroma.interface import Engine
    from cluster.chroma.oracle import Oracle
    from cluster.chroma.scratch import Scratch
    from cluster.config import NodeSettings
    from cluster.embedding.embedder import Embedder
    from cluster.peers import Peers
    from cluster.propose.proposer import Proposer, Ticket
    from cluster.raft.interface import Raft, RaftStatus
    from cluster.reads import Level
    from cluster.state.catalog import Catalog
    from cluster.state.commands import Command

T = TypeVar("T")

log = logging.getLogger(__name__)

_WARM_CHECK_S: Final = 1.0


class NodeService:
    """Implements `cluster.api.interface.Service`; lives on the node's event loop.

    Invariants:
      * a write is answered 2xx only after its entry is committed (fsynced on a majority), and with
        `ack=applied` after this node's Chroma has it;
      * a read's token covers everything that the read may have seen, also work that was under way;
      * after a fault nothing is served but the status.
    """

    def __init__(
        self,
        settings: NodeSettings,
        *,
        raft: Raft,
        applier: Applier,
        engine: Engine,
        scratch: Scratch,
        oracle: Oracle,
        embedder: Embedder,
        peers: Peers,
        proposer: Proposer,
    ) -> None:
        self._settings = settings
        self._raft = raft
        self._applier = applier
        self._engine = engine
        self._embedder = embedder
        self._peers = peers
        self._proposer = proposer
        self.scratch = scratch
        self.oracle = oracle
        self._readers = ThreadPoolExecutor(settings.read_threads, thread_name_prefix="read")
        # Models are slow and use all cores by themselves: one text batch at a time.
        self._embedding = ThreadPoolExecutor(1, thread_name_prefix="embed")
        self._fault: Fault | None = None
        self._stopping = False
        self._seen_index = 0
        self._started_at = time.time()
        self._documents = 0
        self._documents_at = 0.0

    # What the handlers ask about this node

    @property
    def node_id(self) -> str:
        return self._settings.node_id

    @property
    def allow_reset(self) -> bool:
        return self._settings.allow_reset

    @property
    def max_request_bytes(self) -> int:
        return self._settings.max_request_bytes

    @property
    def catalog(self) -> Catalog:
        return self._applier.catalog

    def is_leader(self) -> bool:
        return self._raft.status().role == "leader"

    def leader_id(self) -> str | None:
        return self._raft.status().leader

    def leader_url(self) -> str | None:
        return self.url_of(self.leader_id())

    def url_of(self, node_id: str | None) -> str | None:
        """Base URL of a member's HTTP API."""
        if node_id is None:
            return None
        if node_id == self.node_id:
            return self._settings.advertise_http or f"http://{self._settings.http}"
        peer = self._settings.peers.get(node_id)
        return peer.http if peer else None

    def observe(self, index: int) -> None:
        """An answer with this log index was passed on to a client here: later session reads include it."""
        self._seen_index = max(self._seen_index, index)

    # Writes

    async def write(
        self, command: Command, *, key: str | None, digest: bytes, ack: Ack
    ) -> tuple[Outcome, int]:
        self._require_serving()
        if not self.is_leader():
            raise NotLeader(self.leader_id())
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
            async with asyncio.timeout(self._settings.write_timeout_ms / 1000):
                return await self._applied(ticket, decided, has_key=key is not None)
        except TimeoutError:
            self._give_up(request_id, ticket, decided)
            if ticket.withdrawn:
                raise Overloaded(
                    f"The log took no writes for {self._settings.write_timeout_ms} ms. This write was "
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
            async with asyncio.timeout(self._settings.write_timeout_ms / 1000):
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
            f"Outcome unknown: no answer from the log within {self._settings.write_timeout_ms} ms. The write "
            "may or may not take effect; send it again with the same Idempotency-Key to find out."
        )

    # Reads

    async def read(
        self,
        level: Level,
        min_index: int | None,
        max_staleness_ms: float | None,
        collection_id: str | None,
        fn: Callable[[Engine], T],
    ) -> tuple[T, int]:
        self._require_serving()
        # A client that talks to this node without a token has the session that this node remembers.
        floor = self._seen_index if min_index is None else min_index
        await self._wait_until(Guarantee(level, floor, max_staleness_ms))
        loop = asyncio.get_running_loop()
        result = await loop.run_in_executor(self._readers, fn, self._engine)
        return result, self._applier.started_index(collection_id)

    async def read_back(self, index: int, fn: Callable[[Engine], T]) -> T:
        """What the answer to a write that was applied at `index` needs; also while this node is stopping.

        Raises:
            Fault: this node is broken.
            Unavailable: it has not applied the index in time.
        """
        self._require_no_fault()
        await self._wait_applied(index)
        return await asyncio.get_running_loop().run_in_executor(self._readers, fn, self._engine)

    async def read_index(self) -> int:
        """The leader's read index, proven by a quorum round that starts after this call."""
        self._require_serving()
        index: int = await self._within_read_timeout(
            asyncio.wrap_future(self._raft.read_index()), "a majority to confirm the leader"
        )
        return index

    async def _wait_until(self, guarantee: Guarantee) -> None:
        status = self._raft.status()
        check_freshness(
            guarantee, status.quorum_contact_ms, self.node_id, self._settings.election_timeout_max_ms
        )
        read_index = await self._linearizable_index() if needs_read_index(guarantee) else None
        await self._wait_applied(wanted_index(guarantee, read_index, status.commit_index))

    async def _linearizable_index(self) -> int:
        asking = self._of_leader(self.read_index, self._peers.read_index)
        return await self._within_read_timeout(asking, "the leader's read index")

    async def _of_leader(
        self, here: Callable[[], Awaitable[T]], there: Callable[[str], Coroutine[Any, Any, T]]
    ) -> T:
        """What the leader says, asked `here` or `there` (at its URL); of its successor if it hangs."""
        while not self.is_leader():
            leader = self.leader_id()
            url = self.url_of(leader)
            if leader is None or url is None:
                raise Unavailable("No leader is known at the moment. Nothing was read or changed; try again.")
            with contextlib.suppress(LeaderChanged):
                return await unless_leader_changes(
                    there(url), leader, self.leader_id, leaderless_s=self._settings.read_timeout_ms / 1000
                )
        return await here()

    async def _within_read_timeout(self, waiting: Awaitable[T], what: str) -> T:
        try:
            async with asyncio.timeout(self._settings.read_timeout_ms / 1000):
                return await waiting
        except TimeoutError:
            raise Unavailable(
                f"Waited {self._settings.read_timeout_ms} ms for {what}. Nothing was read; try again."
            ) from None

    async def _wait_applied(self, index: int) -> None:
        if self._applier.applied_index >= index:
            return
        loop = asyncio.get_running_loop()
        reached: asyncio.Future[None] = loop.create_future()

        def listener(applied: int) -> None:
            if applied >= index:
                loop.call_soon_threadsafe(_set_done, reached)

        self._applier.add_listener(listener)
        try:
            if self._applier.applied_index < index:
                async with asyncio.timeout(self._settings.read_timeout_ms / 1000):
                    await reached
        except TimeoutError:
            raise behind(index, self._applier.applied_index, self.node_id) from None
        finally:
            self._applier.remove_listener(listener)

    # Vectors

    async def embed(
        self, collection_id: str, texts: Sequence[str], *, query: bool = False
    ) -> tuple[list[bytes], str, int]:
        self._require_serving()
        return await self._of_leader(
            lambda: self.embed_here(collection_id, texts, query=query),
            lambda url: self._peers.embed(url, collection_id, texts, query=query),
        )

    async def embed_here(
        self, collection_id: str, texts: Sequence[str], *, query: bool
    ) -> tuple[list[bytes], str, int]:
        """Vectors by the collection's function; only the leader answers, so that one model decides.

        Raises:
            NotLeader: this node has not confirmed within a round that it leads.
            Refusal: no such collection, or its function is not one that this server builds.
        """
        if not self.is_leader():
            raise NotLeader(self.leader_id())
        # A leader that was just elected may not have applied the collection's creation yet.
        await self._wait_applied(await self.read_index())
        loop = asyncio.get_running_loop()
        collection = await loop.run_in_executor(self._readers, self._engine.collection, collection_id)
        function = self._embedder.function_for(collection["configuration_json"])
        pinned = self._applier.model_of(collection_id)
        made = await loop.run_in_executor(
            self._embedding,
            lambda: self._embedder.embed(function, texts, pinned=pinned, query=query),
        )
        return made.vectors, made.fingerprint, made.dimension

    async def keep_warm(self) -> None:
        """Load the default model as soon as any collection has text embedded by this cluster.

        Not only at the leader: whoever leads next must not make writes of text wait for it.
        """
        loop = asyncio.get_running_loop()
        while True:
            if self._applier.catalog.embeds():
                try:
                    return await loop.run_in_executor(self._embedding, self._embedder.warm)
                except ClusterError as error:
                    log.warning("the default embedding model cannot be loaded: %s", error.message)
                    return None
            await asyncio.sleep(_WARM_CHECK_S)

    # Health

    def fail(self, fault: Fault) -> None:
        """A local fault: stop serving, say why, hand leadership over. May be called from any thread."""
        if self._fault is None:
            self._fault = fault
            self._raft.fail(fault.message)

    @property
    def reason(self) -> str | None:
        """Why this node does not serve, or None."""
        if self._fault is not None:
            return self._fault.message
        return "The node is stopping." if self._stopping else None

    def _require_no_fault(self) -> None:
        if self._fault is not None:
            raise Fault(
                f"Node {self.node_id} has stopped serving: {self._fault.message} "
                "Nothing was read or changed; ask another node."
            )

    def _require_serving(self) -> None:
        self._require_no_fault()
        if self._stopping:
            raise Unavailable(
                f"Node {self.node_id} is stopping. Nothing was read or changed; ask another node."
            )

    async def count_documents(self) -> int:
        """All documents in this node's Chroma, counted at most once a second."""
        if time.monotonic() - self._documents_at > 1.0 and self._fault is None:
            self._documents_at = time.monotonic()
            loop = asyncio.get_running_loop()
            self._documents = await loop.run_in_executor(self._readers, self._engine.documents)
        return self._documents

    def status(self) -> dict[str, Any]:
        """What `GET /cluster/status` answers, but for the count of documents."""
        raft = self._raft.status()
        applied = self._applier.applied_index
        return {
            "id": self.node_id,
            "cluster": self._settings.cluster_id,
            "pid": os.getpid(),
            "role": raft.role,
            "term": raft.term,
            "leader": raft.leader,
            "leader_url": self.url_of(raft.leader),
            "url": self.url_of(self.node_id),
            "raft_address": self._settings.raft,
            "first_index": raft.first_index,
            "last_index": raft.last_index,
            "commit_index": raft.commit_index,
            "applied_index": applied,
            "lag": max(0, raft.commit_index - applied),
            "quorum_contact_ms": round(raft.quorum_contact_ms, 1),
            "match_index": raft.match_index,
            "connected": list(raft.connected),
            "healthy": self._healthy(raft),
            "reason": self.reason,
            "started_at": self._started_at,
            "chroma_path": str(self._settings.data_dir / "chroma"),
        }

    def _healthy(self, raft: RaftStatus) -> bool:
        in_touch = (
            raft.leader is not None and raft.quorum_contact_ms <= self._settings.election_timeout_max_ms
        )
        return self.reason is None and in_touch

    def stop_serving(self) -> None:
        """New requests are answered 503 from here on; those under way finish."""
        self._stopping = True

    def close(self) -> None:
        """Wait for reads under way and stop the worker threads."""
        self._readers.shutdown(wait=True)
        self._embedding.shutdown(wait=True)


def _set_done(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
