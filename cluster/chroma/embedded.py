"""One Chroma, embedded, over a plain persistent Chroma directory; ids here are the cluster's.

`apply` makes the calls that committed entries ask for, from one thread, in log order. Reads come
from any number of threads at the same time. Chroma makes up its own collection ids, so the engine
keeps a map from the cluster's id to the local one; its durable form are the changes `l/<id>` that
`apply` hands back, to be written in the same transaction as the applied marker.

Invariants
- Each call is idempotent right after itself, whether it was completed before or stopped half-way.
- A refused call has changed nothing: what Chroma would refuse half-way is checked before it begins.
- The directory stays one that `chromadb.PersistentClient` opens.

Chroma's writing calls hold Python's global lock from begin to end (reads release it), so a big write
is cut into slices of about 30 ms: raft's thread and the HTTP loop run in between.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import resource
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeAlias, TypeVar, cast

import chromadb_rust_bindings as rust
import numpy as np

from cluster.chroma.errors import fault_of, is_missing, is_present, read_failure, refusal_of
from cluster.errors import ClusterError, Fault, Refusal, Unavailable
from cluster.failpoint import failpoint
from cluster.state.catalog import Change
from cluster.state.commands import (
    CreateCollection,
    CreateDatabase,
    CreateTenant,
    DeleteCollection,
    DeleteDatabase,
    DeleteRecords,
    Reset,
    UpdateCollection,
    UpdateTenant,
    WriteRecords,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from cluster.state.commands import MetadataValue
    from cluster.state.work import Call, Resolve

T = TypeVar("T")

#: Query vectors, one a row.
Vectors: TypeAlias = "NDArray[np.float32] | Sequence[NDArray[np.float32]] | Sequence[Sequence[float]]"

#: Key prefix of the id map in the node's store; not part of the replicated state.
LOCAL_PREFIX: Final = "l/"

#: Estimated bytes handed to Chroma in one call; keeps the global lock for about 30 ms.
_SLICE_BYTES: Final = 128 * 1024
_RECORD_OVERHEAD_BYTES: Final = 512
_DELETES_PER_CALL: Final = 256

#: How often a read is repeated that met a write half-way (index and metadata are two stores).
_READ_ATTEMPTS: Final = 4


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
class _Local:
    """Where this Chroma keeps a collection of the cluster."""

    id: str
    tenant: str
    database: str

    def encode(self) -> bytes:
        return json.dumps([self.id, self.tenant, self.database]).encode()

    @staticmethod
    def decode(value: bytes) -> _Local:
        return _Local(*json.loads(value))


def _import_exceptions() -> None:
    """The bindings import their exception classes when they first raise one: 1.8 s in the middle of
    serving, holding Python's global lock. Better now, beside the rest of the start."""
    importlib.import_module("chromadb.errors")


def open_bindings(directory: Path | None, *, allow_reset: bool = True) -> rust.Bindings:
    """Chroma over `directory`, or in memory if None; arguments as chromadb's own client gives them."""
    config = rust.SqliteDBConfig(
        hash_type=rust.MigrationHash.MD5,
        migration_mode=rust.MigrationMode.Apply,
        url=None if directory is None else str(directory / "chroma.sqlite3"),
    )
    # As many indexes in memory as there are files to open, five for each, like chromadb's own client.
    open_files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return rust.Bindings(
        allow_reset=allow_reset,
        sqlite_db_config=config,
        hnsw_cache_size=max(open_files // 5, 128),
        persist_path=None if directory is None else str(directory),
    )


class Engine:
    """This node's Chroma. `apply` and `resolve` belong to the applier's thread, reads to any."""

    def __init__(self, directory: Path, local: Iterable[tuple[str, bytes]] = ()) -> None:
        """Open or create the Chroma in `directory`; `local` are the store's pairs under `l/`.

        Raises:
            Fault: the directory cannot be opened.
        """
        self._directory = directory
        self._local = {key.removeprefix(LOCAL_PREFIX): _Local.decode(value) for key, value in local}
        self._cluster_ids = {place.id: cluster_id for cluster_id, place in self._local.items()}
        self._counts: dict[str, int] = {}
        self._counts_lock = threading.Lock()
        threading.Thread(target=_import_exceptions, name="import-chromadb", daemon=True).start()
        try:
            directory.mkdir(parents=True, exist_ok=True)
            self._bindings: rust.Bindings | None = open_bindings(directory)
        except BaseException as error:
            if isinstance(error, (KeyboardInterrupt, SystemExit)):
                raise
            raise fault_of(f"open {directory}", error) from None

    def close(self) -> None:
        """Let go of Chroma; calls under way finish, later ones are refused as unavailable."""
        self._bindings = None

    # ---------------------------------------------------------------- writes (applier's thread)

    def apply(self, call: Call) -> tuple[Change, ...]:
        """Make one call; the changes of the id map that belong in the same transaction as the marker.

        Raises:
            Refusal: Chroma refuses it, on every node alike; nothing was changed.
            Fault: this node's Chroma failed; the call may be done, half done or not begun.
        """
        bindings = self._open()
        try:
            return self._apply(bindings, call)
        except BaseException as error:
            if isinstance(error, (KeyboardInterrupt, SystemExit, Fault)):
                raise
            action = f"apply {type(call.command).__name__} of log entry {call.index}"
            # The machine has looked the collection up before: if Chroma has not got it, then this
            # node lost it, and an answer to the client would hide that.
            lost = is_missing(error) and not isinstance(error, Refusal)
            refusal = None if lost else refusal_of(error)
            raise refusal or fault_of(action, error) from None
        finally:
            self._forget_count(call)

    def _apply(self, bindings: rust.Bindings, call: Call) -> tuple[Change, ...]:
        command = call.command
        match command:
            case CreateTenant():
                with _already_done(is_present):
                    bindings.create_tenant(command.name)
            case UpdateTenant():
                pass  # a local Chroma keeps no resource name; the catalog remembers it
            case CreateDatabase():
                with _already_done(is_present):
                    bindings.create_database(command.name, command.tenant)
            case DeleteDatabase():
                return self._delete_database(bindings, command, call.dropped)
            case CreateCollection():
                return self._create_collection(bindings, command)
            case UpdateCollection():
                bindings.update_collection(
                    self._place(command.collection_id).id,
                    command.new_name,
                    command.new_metadata,
                    command.new_configuration,
                )
            case DeleteCollection():
                with _already_done(is_missing):
                    bindings.delete_collection(command.name, command.tenant, command.database)
                return self._drop(call.dropped or ((call.target.collection_id,) if call.target else ()))
            case WriteRecords():
                self._write(bindings, command)
            case DeleteRecords():
                self._delete_records(bindings, command)
            case Reset():
                bindings.reset()
                return self._drop(tuple(self._local))
        return ()

    def _create_collection(self, bindings: rust.Bindings, command: CreateCollection) -> tuple[Change, ...]:
        # get_or_create: the machine knows that the name is free, so a collection that is there was
        # created by this very call before a crash.
        created = bindings.create_collection(
            command.name,
            command.configuration,
            command.schema,
            command.metadata,
            True,
            command.tenant,
            command.database,
        )
        place = _Local(str(created.id), command.tenant, command.database)
        self._local[command.collection_id] = place
        self._cluster_ids[place.id] = command.collection_id
        return (Change(LOCAL_PREFIX + command.collection_id, place.encode()),)

    def _delete_database(
        self, bindings: rust.Bindings, command: DeleteDatabase, dropped: tuple[str, ...]
    ) -> tuple[Change, ...]:
        # One by one first: Chroma's own delete of a database leaves the segments of its collections.
        with _already_done(is_missing):
            for collection in bindings.list_collections(None, None, command.tenant, command.name):
                bindings.delete_collection(collection.name, command.tenant, command.name)
                time.sleep(0)
            bindings.delete_database(command.name, command.tenant)
        return self._drop(dropped)

    def _drop(self, cluster_ids: tuple[str, ...]) -> tuple[Change, ...]:
        for cluster_id in cluster_ids:
            place = self._local.pop(cluster_id, None)
            if place is not None:
                self._cluster_ids.pop(place.id, None)
        return tuple(Change(LOCAL_PREFIX + cluster_id, None) for cluster_id in cluster_ids)

    def _write(self, bindings: rust.Bindings, command: WriteRecords) -> None:
        place = self._place(command.collection_id)
        check_records(command)
        vectors = _vectors(command)
        for part in slices(command):
            ids = command.ids[part]
            metadatas = None if command.metadatas is None else command.metadatas[part]
            documents = None if command.documents is None else command.documents[part]
            uris = None if command.uris is None else command.uris[part]
            home = (place.tenant, place.database)
            if command.kind == "update":
                rows = None if vectors is None else vectors[part]
                bindings.update(place.id, ids, rows, metadatas, documents, uris, *home)
            elif not isinstance(vectors, np.ndarray):
                raise Refusal(400, "InvalidArgumentError", "Embeddings are required for add and upsert")
            elif command.kind == "add":
                bindings.add(ids, place.id, vectors[part], metadatas, documents, uris, *home)
            else:
                bindings.upsert(place.id, ids, vectors[part], metadatas, documents, uris, *home)
            failpoint("engine.after_slice")
            time.sleep(0)  # give the global lock to whoever waits for it

    def _delete_records(self, bindings: rust.Bindings, command: DeleteRecords) -> None:
        place = self._place(command.collection_id)
        ids = command.ids or ()
        for start in range(0, len(ids), _DELETES_PER_CALL):
            part = ids[start : start + _DELETES_PER_CALL]
            bindings.delete(place.id, part, None, None, None, place.tenant, place.database)
            time.sleep(0)

    def resolve(self, work: Resolve) -> tuple[str, ...]:
        """The ids that a delete by filter removes, the same and in the same order on every node.

        Chroma orders by the rowid of a record's insertion, so the order (and with it what a limit
        cuts off) follows from the log alone, however the writes were merged or sliced.

        Raises:
            Refusal: Chroma refuses the filter.
            Fault: this node's Chroma failed.
        """
        command = work.command
        place = self._place(command.collection_id)
        try:
            found = self._open().get(
                place.id,
                command.ids,
                command.where,
                command.limit,
                0,
                command.where_document,
                [],
                place.tenant,
                place.database,
            )
        except BaseException as error:
            if isinstance(error, (KeyboardInterrupt, SystemExit)):
                raise
            lost = is_missing(error)
            refusal = None if lost else refusal_of(error)
            raise refusal or fault_of(f"read for log entry {work.index}", error) from None
        return tuple(found.ids)

    # ------------------------------------------------------------------------- reads (any thread)

    def get(
        self,
        collection_id: str,
        *,
        ids: Sequence[str] | None = None,
        where: str | None = None,
        limit: int | None = None,
        offset: int = 0,
        where_document: str | None = None,
        include: Sequence[str] = ("metadatas", "documents"),
    ) -> Records:
        """Records by id or filter (JSON texts), as Chroma's `get`; a failure is a ClusterError."""

        def read(bindings: rust.Bindings, place: _Local) -> Records:
            found = bindings.get(
                place.id,
                ids,
                where,
                limit,
                offset,
                where_document,
                include,
                place.tenant,
                place.database,
            )
            return Records(found.ids, found.embeddings, found.documents, found.uris, found.metadatas)

        return self._read(collection_id, read)

    def query(
        self,
        collection_id: str,
        embeddings: Vectors,
        *,
        n_results: int = 10,
        ids: Sequence[str] | None = None,
        where: str | None = None,
        where_document: str | None = None,
        include: Sequence[str] = ("metadatas", "documents", "distances"),
    ) -> Neighbours:
        """Nearest neighbours of each row of `embeddings`; a failure is a ClusterError."""

        def read(bindings: rust.Bindings, place: _Local) -> Neighbours:
            found = bindings.query(
                place.id,
                ids,
                embeddings,
                n_results,
                where,
                where_document,
                include,
                place.tenant,
                place.database,
            )
            return Neighbours(
                found.ids,
                found.embeddings,
                found.documents,
                found.uris,
                found.metadatas,
                found.distances,
            )

        return self._read(collection_id, read)

    def count(self, collection_id: str) -> int:
        """Number of records in the collection."""

        def read(bindings: rust.Bindings, place: _Local) -> int:
            return bindings.count(place.id, place.tenant, place.database)

        return self._read(collection_id, read)

    def collection(self, collection_id: str) -> dict[str, Any]:
        """The collection as `chroma run` renders it in JSON, under the cluster's id."""

        def read(bindings: rust.Bindings, place: _Local) -> dict[str, Any]:
            found = bindings.get_collection_by_id(place.id, place.tenant, place.database)
            return _render(collection_id, found)

        return self._read(collection_id, read)

    def collections(self, tenant: str, database: str) -> list[dict[str, Any]]:
        """All collections of a database, rendered like `collection`, ordered by the cluster's id."""
        try:
            found = self._open().list_collections(None, None, tenant, database)
        except BaseException as error:
            if isinstance(error, (KeyboardInterrupt, SystemExit, ClusterError)):
                raise
            raise read_failure(error) from None
        rendered = [
            _render(cluster_id, collection)
            for collection in found
            if (cluster_id := self._cluster_ids.get(str(collection.id))) is not None
        ]
        return sorted(rendered, key=lambda item: item["id"])

    def collection_ids(self) -> list[str]:
        """Cluster ids of all collections that this Chroma holds, sorted."""
        return sorted(self._local.copy())

    def documents(self) -> int:
        """Records in all collections; counts are kept, so only changed collections are asked."""
        total = 0
        for collection_id in self.collection_ids():
            with self._counts_lock:
                known = self._counts.get(collection_id)
            if known is None:
                try:
                    known = self.count(collection_id)
                except Refusal:
                    continue  # dropped in the meantime
                with self._counts_lock:
                    self._counts[collection_id] = known
            total += known
        return total

    def check_where(self, collection_id: str, where: str | None, where_document: str | None) -> None:
        """Let Chroma judge a filter without reading records.

        Raises:
            Refusal: it is not one that Chroma takes.
        """
        self.get(collection_id, ids=[], where=where, limit=0, where_document=where_document, include=())

    def _read(self, collection_id: str, read: Callable[[rust.Bindings, _Local], T]) -> T:
        for attempt in range(_READ_ATTEMPTS):
            place = self._local.get(collection_id)
            if place is None:
                raise _unknown(collection_id)
            try:
                return read(self._open(), place)
            except BaseException as error:
                if isinstance(error, (KeyboardInterrupt, SystemExit, ClusterError)):
                    raise
                if type(error).__name__ == "NotFoundError":
                    raise _unknown(collection_id) from None
                answer = read_failure(error)
                # Index and metadata are two stores that a write changes one after the other.
                passing = answer.status == 500 and attempt + 1 < _READ_ATTEMPTS
                if not passing:
                    raise answer from None
                time.sleep(0.002 * 4**attempt)
        raise AssertionError("unreachable: the last attempt returns or raises")

    def _open(self) -> rust.Bindings:
        if self._bindings is None:
            raise Unavailable("This node is stopping; nothing was changed. Ask another node.")
        return self._bindings

    def _place(self, collection_id: str) -> _Local:
        place = self._local.get(collection_id)
        if place is None:
            raise Fault(
                f"Collection {collection_id} of the cluster is not in this node's Chroma in "
                f"{self._directory}: its id map is incomplete. Nothing was applied; restore this node "
                "from another one."
            )
        return place

    def _forget_count(self, call: Call) -> None:
        touched = call.dropped + ((call.target.collection_id,) if call.target else ())
        with self._counts_lock:
            for collection_id in touched:
                self._counts.pop(collection_id, None)


def slices(command: WriteRecords) -> Iterator[slice]:
    """Cut a write into parts that Chroma takes in about 30 ms each; equal on every node."""
    vector_bytes = 4 * (command.dimension or 0)
    start = size = 0
    for position in range(len(command.ids)):
        document = command.documents[position] if command.documents is not None else None
        cost = _RECORD_OVERHEAD_BYTES + vector_bytes + len(document or "")
        if size and size + cost > _SLICE_BYTES:
            yield slice(start, position)
            start, size = position, 0
        size += cost
    if start < len(command.ids):
        yield slice(start, len(command.ids))


def check_records(command: WriteRecords) -> None:
    """Refuse what Chroma would notice only after it has written a part, or fixed the dimension.

    A request cannot get here like that, its JSON is checked long before: this is the last gate.

    Raises:
        Refusal: sequences of different lengths, or metadata that a local Chroma cannot store.
    """
    columns = (command.embeddings, command.metadatas, command.documents, command.uris)
    if any(column is not None and len(column) != len(command.ids) for column in columns):
        text = "Inconsistent number of IDs, embeddings, documents, URIs and metadatas"
        raise Refusal(400, "InvalidArgumentError", text)
    for metadata in command.metadatas or ():
        for key, value in (metadata or {}).items():
            if isinstance(value, dict):
                text = f"Unimplemented: Sparse vector is not supported for local chroma: {key}"
                raise Refusal(501, "ChromaError", text)
            if not _is_storable(value, removal=command.kind != "add"):
                text = f"Metadata value of {key} is not a string, number, boolean or list of one of them"
                raise Refusal(400, "InvalidArgumentError", text)


def _is_storable(value: MetadataValue, *, removal: bool) -> bool:
    """Whether the bindings convert this value; None removes a key, which an add cannot do."""
    if isinstance(value, list):
        items = cast("list[MetadataValue]", value)
        kinds = (str,) if items and isinstance(items[0], str) else (bool, int, float)
        return bool(items) and all(isinstance(item, kinds) for item in items)
    return isinstance(value, (str, int, float)) or (value is None and removal)


def _vectors(
    command: WriteRecords,
) -> NDArray[np.float32] | list[NDArray[np.float32] | None] | None:
    """The vectors as float32 arrays over the command's own bytes; refuses NaN and infinity."""
    embeddings, dimension = command.embeddings, command.dimension or 0
    if embeddings is None or (all(row is None for row in embeddings) and embeddings):
        return None
    given = [row for row in embeddings if row is not None]
    joined = np.frombuffer(b"".join(given), dtype="<f4").astype(np.float32, copy=False)
    if not bool(np.isfinite(joined).all()):
        text = "Validation error: embeddings: Embeddings must not contain NaN or Infinity values"
        raise Refusal(400, "InvalidArgumentError", text)
    matrix = joined.reshape(len(given), dimension)
    if len(given) == len(embeddings):
        return matrix
    rows = iter(matrix)
    return [None if row is None else next(rows) for row in embeddings]


def _render(cluster_id: str, collection: rust.Collection) -> dict[str, Any]:
    return {
        "id": cluster_id,
        "name": collection.name,
        "configuration_json": collection.configuration,
        "schema": collection.schema,
        "metadata": collection.metadata,
        "dimension": collection.dimension,
        "tenant": collection.tenant,
        "database": collection.database,
        "log_position": 0,
        "version": 0,
    }


def _unknown(collection_id: str) -> Refusal:
    return Refusal(404, "NotFoundError", f"Collection [{collection_id}] does not exist.")


@contextlib.contextmanager
def _already_done(says_so: Callable[[BaseException], bool]) -> Generator[None]:
    """Take the engine's "already there" (or "not there") as done: the call is a repetition."""
    try:
        yield
    except Exception as error:
        if not says_so(error):
            raise
