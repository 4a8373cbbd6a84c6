"""One Chroma, embedded, over a plain persistent Chroma directory; ids here are the cluster's.

`apply` makes the calls that committed entries ask for, from one thread, in log order. Reads come
from any number of threads at the same time. What `apply` hands back is the durable form of the map
from the cluster's collection ids to Chroma's own (see `cluster.chroma.local_ids`).

Invariants
- Each call is idempotent right after itself, whether it was completed before or stopped half-way.
- A refused call has changed nothing: what Chroma would refuse half-way is checked before it begins.
- The directory stays one that `chromadb.PersistentClient` opens.
"""

from __future__ import annotations

import contextlib
import threading
import time
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from cluster.chroma.batches import check_records, vectors
from cluster.chroma.bindings import import_exceptions, open_bindings
from cluster.chroma.digesting import digest_records
from cluster.chroma.errors import fault_of, is_busy, is_missing, is_present, refusal_of
from cluster.chroma.interface import EVERY_RECORD, Get, Neighbours, Query, Records
from cluster.chroma.local_ids import LocalIds, Place
from cluster.chroma.reading import Reader
from cluster.durable import sync_tree
from cluster.errors import FILLED_BY_OTHERS, Fault, Refusal, Unavailable
from cluster.state.commands import (
    CreateCollection,
    CreateDatabase,
    CreateTenant,
    DeleteCollection,
    DeleteDatabase,
    DeleteRecords,
    RaiseLevel,
    RefuseEntry,
    Reset,
    UpdateCollection,
    UpdateTenant,
    Verify,
    WriteRecords,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Sequence
    from pathlib import Path

    import chromadb_rust_bindings as rust

    from cluster.chroma.interface import RecordDigest
    from cluster.state.catalog import Change
    from cluster.state.work import Call, Resolve

_ALL: Final = ("embeddings", "documents", "metadatas", "uris")

#: How long a call is made again while SQLite is locked, and how often.
_LOCKED_S: Final = 15.0
_LOCKED_PAUSE_S: Final = 0.1


class EmbeddedEngine:
    """`cluster.chroma.interface.Engine` over a Chroma in this process."""

    def __init__(self, directory: Path, local: Iterable[tuple[str, bytes]] = ()) -> None:
        """Open or create the Chroma in `directory`; `local` are the store's pairs under `l/`.

        Raises:
            Fault: the directory cannot be opened.
        """
        self._directory = directory
        self._local_ids = LocalIds(local)
        self._reader = Reader(self._open, self._local_ids)
        self._counts: dict[str, int] = {}
        self._counts_lock = threading.Lock()
        threading.Thread(target=import_exceptions, name="import-chromadb", daemon=True).start()
        try:
            directory.mkdir(parents=True, exist_ok=True)
            # A repeated call may find its records there and write nothing: then nothing else syncs them.
            sync_tree(directory)
            self._bindings: rust.Bindings | None = open_bindings(directory)
        except BaseException as error:
            if isinstance(error, (KeyboardInterrupt, SystemExit)):
                raise
            raise fault_of(f"open {directory}", error) from None

    def close(self) -> None:
        """Let go of Chroma; calls under way finish, later ones are refused as unavailable."""
        self._bindings = None

    def reopen(self) -> None:
        self._open()
        self._bindings = None
        self._bindings = open_bindings(self._directory)

    # ---------------------------------------------------------------- writes (applier's thread)

    def apply(self, call: Call) -> tuple[Change, ...]:
        bindings = self._open()
        try:
            return self._unlocked(lambda: self._apply(bindings, call))
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

    def _unlocked(self, attempt: Callable[[], tuple[Change, ...]]) -> tuple[Change, ...]:
        """A busy machine can let Chroma's own threads hold SQLite's lock for longer than Chroma waits for it.

        A call may be made again right after itself, so it is.
        """
        until = time.monotonic() + _LOCKED_S
        while True:
            try:
                return attempt()
            except Exception as error:
                if not is_busy(error) or time.monotonic() >= until:
                    raise
            time.sleep(_LOCKED_PAUSE_S)

    def _apply(self, bindings: rust.Bindings, call: Call) -> tuple[Change, ...]:
        command = call.command
        match command:
            case CreateTenant():
                with _already_done(is_present):
                    bindings.create_tenant(command.name)
            case UpdateTenant():
                pass  # a local Chroma keeps no resource name, and neither does the cluster
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
                named = (call.target.collection_id,) if call.target else ()
                return self._local_ids.drop(call.dropped or named)
            case WriteRecords():
                self._write(bindings, command)
            case DeleteRecords():
                self._delete_records(bindings, command)
            case Reset():
                bindings.reset()
                return self._local_ids.drop(self._local_ids.cluster_ids())
            case RefuseEntry() | Verify() | RaiseLevel():
                pass  # carried out in the replicated state alone
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
        place = Place(str(created.id), command.tenant, command.database)
        return self._local_ids.put(command.collection_id, place)

    def _delete_database(
        self, bindings: rust.Bindings, command: DeleteDatabase, dropped: tuple[str, ...]
    ) -> tuple[Change, ...]:
        # One by one first: Chroma's own delete of a database leaves the segments of its collections.
        with _already_done(is_missing):
            for collection in bindings.list_collections(None, None, command.tenant, command.name):
                bindings.delete_collection(collection.name, command.tenant, command.name)
                time.sleep(0)
            bindings.delete_database(command.name, command.tenant)
        return self._local_ids.drop(dropped)

    def _write(self, bindings: rust.Bindings, command: WriteRecords) -> None:
        place = self._place(command.collection_id)
        check_records(command)
        rows = vectors(command)
        # One call, however large: Chroma takes it into its log, and so into the collection, as a whole.
        columns = (command.metadatas, command.documents, command.uris, place.tenant, place.database)
        if command.kind == "update":
            bindings.update(place.id, command.ids, rows, *columns)
        elif not isinstance(rows, np.ndarray):
            raise Refusal(400, "InvalidArgumentError", "Embeddings are required for add and upsert")
        elif command.kind == "add":
            bindings.add(command.ids, place.id, rows, *columns)
        else:
            bindings.upsert(place.id, command.ids, rows, *columns)

    def _delete_records(self, bindings: rust.Bindings, command: DeleteRecords) -> None:
        place = self._place(command.collection_id)
        bindings.delete(place.id, command.ids or (), None, None, None, place.tenant, place.database)

    def resolve(self, work: Resolve) -> tuple[str, ...]:
        # Chroma orders by the rowid of a record's insertion, so the order (and with it what a limit
        # cuts off) follows from the log alone, however the writes were merged or sliced.
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

    def get(self, collection_id: str, wanted: Get = EVERY_RECORD) -> Records:
        return self._reader.get(collection_id, wanted)

    def query(self, collection_id: str, wanted: Query) -> Neighbours:
        return self._reader.query(collection_id, wanted)

    def count(self, collection_id: str) -> int:
        return self._reader.count(collection_id)

    def collection(self, collection_id: str) -> dict[str, Any]:
        return self._reader.collection(collection_id)

    def collections(self, tenant: str, database: str) -> list[dict[str, Any]]:
        return self._reader.collections(tenant, database)

    def collection_ids(self) -> list[str]:
        return self._local_ids.cluster_ids()

    def documents(self, leave_out: Sequence[str] = ()) -> int:
        total = 0
        for collection_id in self.collection_ids():
            if collection_id in leave_out:
                continue
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

    def ids(self, collection_id: str) -> list[str]:
        """As `cluster.chroma.interface.Inspected.ids`."""
        return self._reader.get(collection_id, Get(include=())).ids

    def digests(self, collection_id: str, ids: Sequence[str]) -> list[RecordDigest]:
        """As `cluster.chroma.interface.Inspected.digests`."""
        return digest_records(self._reader.get(collection_id, Get(ids=ids, include=_ALL)))

    def found_by_vector(self, collection_id: str, ids: Sequence[str], n_results: int) -> tuple[int, int]:
        """As `cluster.chroma.interface.Inspected.found_by_vector`."""
        return self._reader.found_by_vector(collection_id, ids, n_results)

    def strangers(self, databases: Sequence[tuple[str, str]]) -> list[str]:
        """As `cluster.chroma.interface.Inspected.strangers`."""
        return self._reader.strangers(databases)

    def _open(self) -> rust.Bindings:
        if self._bindings is None:
            raise Unavailable("This node is stopping; nothing was changed. Ask another node.")
        return self._bindings

    def _place(self, collection_id: str) -> Place:
        place = self._local_ids.place(collection_id)
        if place is None:
            raise Fault(
                f"Collection {collection_id} of the cluster is not in this node's Chroma in "
                f"{self._directory}: its id map is incomplete. Nothing was applied. {FILLED_BY_OTHERS}"
            )
        return place

    def _forget_count(self, call: Call) -> None:
        touched = call.dropped + ((call.target.collection_id,) if call.target else ())
        with self._counts_lock:
            for collection_id in touched:
                self._counts.pop(collection_id, None)


@contextlib.contextmanager
def _already_done(says_so: Callable[[BaseException], bool]) -> Generator[None]:
    """Take the engine's "already there" (or "not there") as done: the call is a repetition."""
    try:
        yield
    except Exception as error:
        if not says_so(error):
            raise
