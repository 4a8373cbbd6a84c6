"""What the HTTP handlers need of a node: protocols, implemented by `cluster.service`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from cluster.acks import Ack
    from cluster.apply.containment import Progress, Question
    from cluster.chroma.interface import Engine, Judge
    from cluster.chroma.oracle import Oracle
    from cluster.errors import EngineDied
    from cluster.reads import Level
    from cluster.snapshot.manifest import Manifest
    from cluster.state.catalog import Catalog, Outcome
    from cluster.state.commands import Command
    from wire.door import Door
    from wire.prover import Prover

T = TypeVar("T")


class Guarding(Protocol):
    """Refuses for a while what was in a Chroma process when that died (`cluster.quarantine`)."""

    @property
    def is_alert(self) -> bool:
        """Whether any request is suspected: only then are requests to be recognised."""
        ...

    def admit(self, digest: bytes) -> None:
        """Raises:
        Quarantined: this request is refused for a while.
        """
        ...

    async def died(self, digest: bytes, death: EngineDied) -> None:
        """Refuse this request from here on, on the other nodes too as far as they hear of it."""
        ...

    def answered(self, digest: bytes) -> None:
        """A suspect was answered by an engine that lives."""
        ...

    def heard(self, digest: bytes, cause: str, for_s: float) -> None:
        """Another node refuses this request for so many seconds."""
        ...


class Service(Protocol):
    """One node as its HTTP handlers see it. All methods raise `cluster.errors.ClusterError`s.

    Everything runs on the node's event loop; nothing here blocks it.
    """

    @property
    def node_id(self) -> str:
        """Goes out as `X-Chroma-Node`."""
        ...

    @property
    def allow_reset(self) -> bool:
        """Whether `POST /api/v2/reset` may forget everything."""
        ...

    @property
    def max_request_bytes(self) -> int:
        """Bodies above this are refused with 413, as Chroma's server does above 40 MiB."""
        ...

    @property
    def admits_strangers(self) -> bool:
        """Whether Chroma's routes are for everybody, also for who does not prove the cluster's secret."""
        ...

    @property
    def door(self) -> Door:
        """Tells members and balancers from strangers."""
        ...

    @property
    def prover(self) -> Prover:
        """Proves to other nodes that this one is a member."""
        ...

    @property
    def scratch(self) -> Judge:
        """An empty Chroma that judges catalogue requests before they are proposed."""
        ...

    @property
    def oracle(self) -> Oracle:
        """A real `chroma run` that words the refusal of requests the decoder cannot read."""
        ...

    @property
    def guard(self) -> Guarding:
        """Keeps requests that end Chroma's process from ending it again."""
        ...

    @property
    def catalog(self) -> Catalog:
        """Tenants, databases and collections as applied here; to look at, never to change."""
        ...

    @property
    def reason(self) -> str | None:
        """Why this node does not serve, or None."""
        ...

    def is_leader(self) -> bool:
        """Whether this node takes writes itself at the moment."""
        ...

    def leader_id(self) -> str | None:
        """Id of the leader as this node knows it; goes out as `X-Chroma-Leader`."""
        ...

    def leader_url(self) -> str | None:
        """Base URL of the leader's HTTP API (`http://host:port`), or None if unknown."""
        ...

    def leader_trouble(self) -> str | None:
        """Why the leader cannot be reached over HTTP from here, if it has been so for some seconds."""
        ...

    def observe(self, index: int) -> None:
        """An answer with this log index was passed on to a client here."""
        ...

    async def write(
        self, command: Command, *, key: str | None, digest: bytes, ack: Ack
    ) -> tuple[Outcome, int]:
        """Replicate `command`; its outcome and the log index it was decided at.

        `key` is the client's Idempotency-Key in its scope, `digest` the hash of its request.
        """
        ...

    async def read(
        self,
        level: Level,
        min_index: int | None,
        max_staleness_ms: float | None,
        collection_id: str | None,
        fn: Callable[[Engine], T],
    ) -> tuple[T, int]:
        """Wait for the guarantee, then run `fn` on the engine in a worker thread.

        Returns its result and the session token: the index of the newest write it may have seen
        (of `collection_id`; None stands for the catalogue).
        """
        ...

    async def look_up(
        self,
        level: Level,
        min_index: int | None,
        max_staleness_ms: float | None,
        collection_id: str | None,
        fn: Callable[[Catalog], T],
    ) -> tuple[T, int]:
        """As `read`, of the catalogue, which is at hand: `fn` is called on the event loop."""
        ...

    async def read_back(self, index: int, fn: Callable[[Engine], T]) -> T:
        """What the answer to a write that was applied at `index` needs; also while this node is stopping."""
        ...

    async def embed(
        self, collection_id: str, texts: Sequence[str], *, query: bool = False
    ) -> tuple[list[bytes], str, int]:
        """Vectors (float32 bytes), model fingerprint and dimension for `texts`, made at the leader.

        `query` for texts that are searched with.
        """
        ...


class Donating(Protocol):
    """Gives snapshots of this node to others (`cluster.snapshot.donating`)."""

    async def offer(self, above: int) -> Manifest:
        """A snapshot of an index not below `above`; raises Unavailable if this node cannot give one now."""
        ...

    async def manifest(self, snapshot_id: str) -> Manifest:
        """The manifest of a snapshot that is kept; raises Refusal (404) if it is not."""
        ...

    async def part(self, snapshot_id: str, number: int, offset: int) -> bytes:
        """Bytes of a file, from `offset` on; raises Refusal (404) for what there is not."""
        ...


class PeerService(Protocol):
    """One node as the others, and those who watch it, see it: what `/cluster/*` answers."""

    @property
    def guard(self) -> Guarding:
        """As `Service.guard`."""
        ...

    def status(self) -> dict[str, Any]:
        """What `GET /cluster/status` answers, but for the count of documents."""
        ...

    async def count_documents(self) -> int:
        """All documents in this node's Chroma, as last counted: an engine that hangs holds nobody up."""
        ...

    @property
    def door(self) -> Door:
        """As `Service.door`."""
        ...

    async def check_collection(self, collection_id: str) -> dict[str, Any]:
        """Open Chroma anew and read this collection; a read failed here that did not fail elsewhere."""
        ...

    async def read_index(self) -> int:
        """The leader's read index, proven by a quorum round that starts after this call."""
        ...

    def members(self) -> dict[str, Any]:
        """What `GET /cluster/members` answers."""
        ...

    async def change_members(self, words: Mapping[str, Any]) -> dict[str, Any]:
        """Make a change of the members at the leader; see `cluster.service.membership`."""
        ...

    def progress(self, question: Question) -> Progress:
        """How far this node is, where it is stuck, and whether it holds there as it is asked to."""
        ...

    async def verify(self, *, start: bool) -> dict[str, Any]:
        """Begin a verification of all nodes unless one is under way, at the leader; how far it is, and what
        the last one found."""
        ...

    async def repair(self, donor: str | None, reason: str) -> dict[str, Any]:
        """Begin to fill this node with a copy of `donor`'s data, or of a node that is well; who that is."""
        ...

    async def trust(self) -> dict[str, Any]:
        """The operator says that this node's copy is right, whatever a verification found."""
        ...

    def digests(self, question: dict[str, Any]) -> dict[str, Any]:
        """What this node digested for a round of verification."""
        ...

    async def take_verdict(self, told: dict[str, Any]) -> dict[str, Any]:
        """A verification found which of this node's copies differ, and which are equal to the others'."""
        ...

    @property
    def donor(self) -> Donating:
        """Who gives snapshots of this node."""
        ...

    def hold_log(self, who: str, index: int, seconds: float) -> None:
        """Keep the log after `index` for so long: `who` is being filled with a snapshot of that index."""
        ...

    async def embed_here(
        self, collection_id: str, texts: Sequence[str], *, query: bool
    ) -> tuple[list[bytes], str, int]:
        """As `Service.embed`, made by this node; only the leader answers, so that one model decides."""
        ...
