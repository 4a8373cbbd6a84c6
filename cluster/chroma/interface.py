"""What a node needs of its Chroma: plain values and one protocol.

`cluster.chroma.embedded` implements it over Chroma's bindings, and `cluster.chroma.isolated` over a child
process that does, which is how a node runs it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from cluster.errors import Refusal
    from cluster.state.catalog import Change
    from cluster.state.commands import Metadata
    from cluster.state.work import Call, Resolve

#: Query vectors, one a row.
Vectors: TypeAlias = "NDArray[np.float32] | Sequence[NDArray[np.float32]] | Sequence[Sequence[float]]"


@dataclass(frozen=True, slots=True)
class Get:
    """Which records to read; without ids and filters all of them.

    `where` and `where_document` are JSON texts; `include` names the fields of `Records` to fill in.
    """

    ids: Sequence[str] | None = None
    where: str | None = None
    where_document: str | None = None
    limit: int | None = None
    offset: int = 0
    include: Sequence[str] = ("metadatas", "documents")


@dataclass(frozen=True, slots=True, eq=False)
class Query:
    """Which neighbours to look for: the `n_results` nearest of each row, among `ids` and what the filters
    let through. Filters and `include` as in `Get`. Not comparable, for arrays are not."""

    embeddings: Vectors
    n_results: int = 10
    ids: Sequence[str] | None = None
    where: str | None = None
    where_document: str | None = None
    include: Sequence[str] = ("metadatas", "documents", "distances")


@dataclass(frozen=True, slots=True)
class Records:
    """Answer to `get`; a field is None if it was not asked for."""

    ids: list[str]
    embeddings: list[list[float]] | None
    documents: list[str | None] | None
    uris: list[str | None] | None
    metadatas: list[dict[str, Any] | None] | None


@dataclass(frozen=True, slots=True)
class Neighbours:
    """Answer to `query`, one list for each query vector; a field is None if not asked for."""

    ids: list[list[str]]
    embeddings: list[list[list[float] | None]] | None
    documents: list[list[str | None]] | None
    uris: list[list[str | None]] | None
    metadatas: list[list[dict[str, Any] | None]] | None
    distances: list[list[float | None]] | None


@dataclass(frozen=True, slots=True)
class RecordDigest:
    """Digests of one record (`cluster.chroma.digesting`): `whole` (16 bytes) covers the id and all parts,
    `parts` are those of vector, document, metadata and uri, 8 bytes each, in one string."""

    id: str
    whole: bytes
    parts: bytes


#: What `get` reads if it is not told.
EVERY_RECORD: Final = Get()


class Engine(Protocol):
    """One node's Chroma under the cluster's collection ids.

    `apply` and `resolve` belong to the applier's thread, reads come from any. A read fails with a
    `ClusterError`: Chroma's refusal (404 for a collection that is not here), Chroma's failure in its
    own words as a 500, `EngineDied` if Chroma's process ended over it, `EngineUnavailable` while that is
    being started again, `Unavailable` once the engine is closed, or a `Fault`.
    """

    def apply(self, call: Call) -> tuple[Change, ...]:
        """Make one call; the changes of the id map that belong in the same transaction as the marker.

        A call repeated right after itself, completed before or stopped half-way, changes nothing more.

        Raises:
            Refusal: Chroma refuses it, on every node alike; nothing was changed.
            EngineDied: Chroma's process died or hung during this call, and is being started again; the
                call may be done, half done or not begun, and may be repeated.
            EngineUnavailable: Chroma's process is being started again, or ended for a reason that is not
                this call's; try again, for as long as it takes.
            Fault: this node's Chroma failed; the call may be done, half done or not begun.
            Unavailable: the engine is closed; the call was not begun.
        """
        ...

    def resolve(self, work: Resolve) -> tuple[str, ...]:
        """The ids that a delete by filter removes, the same and in the same order on every node.

        Raises:
            Refusal: Chroma refuses the filter.
            EngineDied, EngineUnavailable: as of `apply`.
            Fault: this node's Chroma failed.
        """
        ...

    def reopen(self) -> None:
        """Let go of Chroma and open it anew; calls under way fail. What was wrong in its memory is gone.

        Raises:
            EngineUnavailable: it is not open again yet.
        """
        ...

    def get(self, collection_id: str, wanted: Get = EVERY_RECORD) -> Records:
        """Records by id or filter, as Chroma's `get`."""
        ...

    def query(self, collection_id: str, wanted: Query) -> Neighbours:
        """Nearest neighbours of each row, as Chroma's `query`."""
        ...

    def count(self, collection_id: str) -> int:
        """Number of records in the collection."""
        ...

    def collection(self, collection_id: str) -> dict[str, Any]:
        """The collection as `chroma run` renders it in JSON, under the cluster's id."""
        ...

    def collections(self, tenant: str, database: str) -> list[dict[str, Any]]:
        """All collections of a database, rendered like `collection`, ordered by the cluster's id."""
        ...

    def collection_ids(self) -> list[str]:
        """Cluster ids of all collections that this Chroma holds, sorted."""
        ...

    def documents(self, leave_out: Sequence[str] = ()) -> int:
        """Records in all collections but those left out; counts are kept, so only changed ones are asked."""
        ...


class Inspected(Protocol):
    """A node's Chroma for who compares it with others. Fails as the reads of `Engine` do.

    Who asks holds back the applier meanwhile, so nothing here waits for a write that is half done.
    """

    def collection(self, collection_id: str) -> dict[str, Any]:
        """As `Engine.collection`."""
        ...

    def ids(self, collection_id: str) -> list[str]:
        """The ids of all its records, in Chroma's order."""
        ...

    def digests(self, collection_id: str, ids: Sequence[str]) -> list[RecordDigest]:
        """Digests of those of these records that are there."""
        ...

    def found_by_vector(self, collection_id: str, ids: Sequence[str], n_results: int) -> tuple[int, int]:
        """Of these records, how many are there, and how many a query for their own vector finds."""
        ...

    def strangers(self, databases: Sequence[tuple[str, str]]) -> list[str]:
        """`tenant/database/name` of collections in these databases that the cluster did not create."""
        ...


@dataclass(frozen=True, slots=True)
class Condition:
    """How a process with Chroma is: `state`, how often it was started again, its process id if there is
    one, how the last one ended (empty: none did), and for how many seconds it has not been serving."""

    state: Literal["serving", "restarting", "hung"]
    restarts: int
    pid: int | None
    last_death: str
    down_s: float


class Tending(Protocol):
    """The process that an engine runs in, for those who look after the node. Thread-safe, never waits."""

    def condition(self) -> Condition:
        """How the process is, without asking it."""
        ...

    def restart(self, why: str) -> None:
        """End the process, so that Chroma is opened anew; does nothing while it is not serving."""
        ...


class Judge(Protocol):
    """An empty Chroma that says yes (None) or how it would refuse; thread-safe, to be asked in a thread.

    Raises `EngineDied` if its process ended over the question, `EngineUnavailable` while that is started.
    """

    def judge_create_collection(
        self, name: str, metadata: Metadata | None, configuration: str | None, schema: str | None
    ) -> Refusal | None:
        """Would Chroma create this collection, were its name free?"""
        ...

    def judge_update_collection(
        self,
        current: Mapping[str, Any],
        new_name: str | None,
        new_metadata: Metadata | None,
        new_configuration: str | None,
    ) -> Refusal | None:
        """Would Chroma make these changes to `current`, a collection as `Engine.collection` gives it?"""
        ...

    def judge_create_tenant(self, name: str) -> Refusal | None:
        """Would Chroma create a tenant of this name, were it free?"""
        ...

    def judge_where(self, where: str | None, where_document: str | None) -> Refusal | None:
        """Would Chroma take these filters (JSON texts)?"""
        ...

    def trial(
        self,
        configuration: str | None,
        schema: str | None,
        metadata: Metadata | None,
        change: str | None = None,
    ) -> Refusal | None:
        """Does a collection with these index settings (and then with the changed configuration) work?"""
        ...
