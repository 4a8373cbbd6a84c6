"""Tenants, databases and collections, and what Chroma answers to a command in their presence.

Pure. `decide` says what one command does from the catalogue alone, in the order in which
Chroma checks and in its words, so every replica comes to the same one. The catalogue's durable
form is pairs of a key and a value (`put`, `items`); memory is only ever changed through them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

import msgpack

from cluster.errors import Refusal
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
    from collections.abc import Iterable

    from cluster.state.commands import Command

DEFAULT_TENANT: Final = "default_tenant"
DEFAULT_DATABASE: Final = "default_database"
#: Chroma gives its default database this id in every installation.
DEFAULT_DATABASE_ID: Final = "00000000-0000-0000-0000-000000000000"


@dataclass(frozen=True, slots=True)
class Change:
    """One key of the durable state: its new value, or None to delete it."""

    key: str
    value: bytes | None


@dataclass(frozen=True, slots=True)
class Outcome:
    """Chroma's answer to a write: HTTP status and JSON-able body.

    Create and get_or_create collection have the body `{"$collection": "<cluster id>"}`, which the
    API renders from the engine; errors have `{"error": name, "message": text}`.
    """

    status: int
    body: Any


@dataclass(frozen=True, slots=True)
class Database:
    database_id: str
    tenant: str
    name: str


@dataclass(frozen=True, slots=True)
class Collection:
    """`dimension` is None until the first vector; `model` until the first text embedded here."""

    collection_id: str
    tenant: str
    database: str
    name: str
    dimension: int | None = None
    model: str | None = None


@dataclass(frozen=True, slots=True)
class Effect:
    """What a command that is not refused does: its outcome, and whether the engine has work.

    `collection` is the one it is about, as it is before the command; `after` is its new value if
    the command changes it. `dropped` names the collections gone afterwards.
    """

    outcome: Outcome
    work: bool
    changes: tuple[Change, ...] = ()
    collection: Collection | None = None
    after: Collection | None = None
    dropped: tuple[str, ...] = ()


class Catalog:
    """The catalogue at one log position.

    Changed by one thread through `put`; the look-ups of one thing by name or id are single
    dictionary reads, and may be made from other threads for a check that `decide` repeats later.
    """

    def __init__(self) -> None:
        self._tenants: set[str] = set()
        self._databases: dict[str, Database] = {}
        self._collections: dict[str, Collection] = {}
        self._database_ids: dict[tuple[str, str], str] = {}
        self._collection_ids: dict[tuple[str, str, str], str] = {}

    def has_tenant(self, name: str) -> bool:
        return name in self._tenants

    def database(self, tenant: str, name: str) -> Database | None:
        return self._databases.get(self._database_ids.get((tenant, name), ""))

    def collection(self, collection_id: str) -> Collection | None:
        return self._collections.get(collection_id)

    def collection_named(self, tenant: str, database: str, name: str) -> Collection | None:
        return self._collections.get(self._collection_ids.get((tenant, database, name), ""))

    def embeds(self) -> bool:
        """Whether text was embedded by this cluster for any collection."""
        return any(collection.model is not None for collection in list(self._collections.values()))

    def databases(self, tenant: str) -> list[Database]:
        """The tenant's databases in Chroma's order, by name."""
        found = [database for database in list(self._databases.values()) if database.tenant == tenant]
        return sorted(found, key=lambda database: database.name)

    def collections(self, tenant: str, database: str) -> list[Collection]:
        """The database's collections in Chroma's order, by id."""
        return sorted(
            (
                collection
                for collection in list(self._collections.values())
                if collection.tenant == tenant and collection.database == database
            ),
            key=lambda collection: collection.collection_id,
        )

    def require(self, collection_id: str) -> Collection:
        """The collection with this id.

        Raises:
            Refusal: there is none; Chroma checks this before it looks at records or filters.
        """
        collection = self._collections.get(collection_id)
        if collection is None:
            raise _not_found(f"Collection [{collection_id}] does not exist.")
        return collection

    def items(self) -> list[tuple[str, bytes]]:
        """The whole catalogue as pairs sorted by key."""
        pairs = [(f"t/{name}", _pack([])) for name in self._tenants]
        pairs += [
            (change.key, change.value or b"") for change in map(_put_database, self._databases.values())
        ]
        pairs += [
            (change.key, change.value or b"") for change in map(_put_collection, self._collections.values())
        ]
        return sorted(pairs)

    def put(self, change: Change) -> None:
        """Make one change part of the catalogue; a key that is not its own is a ValueError."""
        kind, _, name = change.key.partition("/")
        if kind == "t":
            (self._tenants.discard if change.value is None else self._tenants.add)(name)
        elif kind == "d":
            self._put_database(name, change.value)
        elif kind == "c":
            self._put_collection(name, change.value)
        else:
            raise ValueError(f"key {change.key!r} is not the catalogue's")

    def _put_database(self, database_id: str, value: bytes | None) -> None:
        old = self._databases.pop(database_id, None)
        if old is not None:
            self._database_ids.pop((old.tenant, old.name), None)
        if value is not None:
            tenant, name = msgpack.unpackb(value)
            self._databases[database_id] = Database(database_id, tenant, name)
            self._database_ids[tenant, name] = database_id

    def _put_collection(self, collection_id: str, value: bytes | None) -> None:
        old = self._collections.get(collection_id)
        if value is None:
            self._collections.pop(collection_id, None)
        else:
            new = Collection(collection_id, *msgpack.unpackb(value))
            self._collections[collection_id] = new
            self._collection_ids[_path(new)] = collection_id
            if old is not None and _path(old) == _path(new):
                return
        if old is not None:
            del self._collection_ids[_path(old)]


def initial_changes() -> tuple[Change, ...]:
    """The pairs of a new installation."""
    database = Database(DEFAULT_DATABASE_ID, DEFAULT_TENANT, DEFAULT_DATABASE)
    return (Change(f"t/{DEFAULT_TENANT}", _pack([])), _put_database(database))


def check_dimension(collection: Collection, dimension: int | None) -> None:
    """Whether vectors of this dimension (None: no vectors) fit the collection.

    Raises:
        Refusal: they do not. Chroma checks this before lengths and ids of the records.
    """
    if None not in (dimension, collection.dimension) and dimension != collection.dimension:
        raise _invalid(
            f"Collection expecting embedding with dimension of {collection.dimension}, got {dimension}"
        )


def decide(catalog: Catalog, command: Command, pending: Collection | None = None) -> Effect:
    """What `command` does to the catalogue, its outcome, and whether the engine has work.

    `pending` is a collection as the undone step before this command will leave it, in place of
    the catalogue's own value.

    Raises:
        Refusal: Chroma would say no; nothing changes.
    """
    match command:
        case CreateTenant():
            return _create_tenant(catalog, command)
        case UpdateTenant():
            # A single Chroma accepts any tenant, known or not, keeps nothing and answers {}.
            return Effect(Outcome(200, {}), work=False)
        case CreateDatabase():
            return _create_database(catalog, command)
        case DeleteDatabase():
            return _delete_database(catalog, command)
        case CreateCollection():
            return _create_collection(catalog, command)
        case UpdateCollection():
            return _update_collection(catalog, command)
        case DeleteCollection():
            return _delete_collection(catalog, command)
        case WriteRecords():
            return _write_records(_current(catalog, command.collection_id, pending), command)
        case DeleteRecords():
            return _delete_records(_current(catalog, command.collection_id, pending), command)
        case Reset():
            return _reset(catalog)
        case RefuseEntry() | Verify() | RaiseLevel():
            raise ValueError("the machine itself carries out what is about the log, not about Chroma")


def _current(catalog: Catalog, collection_id: str, pending: Collection | None) -> Collection:
    if pending is not None and pending.collection_id == collection_id:
        return pending
    return catalog.require(collection_id)


def _create_tenant(catalog: Catalog, command: CreateTenant) -> Effect:
    if catalog.has_tenant(command.name):
        raise _exists(f"Tenant [{command.name}] already exists")
    return Effect(Outcome(200, {}), work=True, changes=(Change(f"t/{command.name}", _pack([])),))


def _create_database(catalog: Catalog, command: CreateDatabase) -> Effect:
    # A single Chroma does not ask whether the tenant exists, so neither does the cluster.
    if catalog.database(command.tenant, command.name) is not None:
        raise _exists(f"Database [{command.name}] already exists")
    database = Database(command.database_id, command.tenant, command.name)
    return Effect(Outcome(200, {}), work=True, changes=(_put_database(database),))


def _delete_database(catalog: Catalog, command: DeleteDatabase) -> Effect:
    database = catalog.database(command.tenant, command.name)
    if database is None:
        raise _not_found(f"Database [{command.name}] not found")
    dropped = tuple(
        collection.collection_id for collection in catalog.collections(command.tenant, command.name)
    )
    changes = (*_delete_keys("c", dropped), Change(f"d/{database.database_id}", None))
    return Effect(Outcome(200, {}), work=True, changes=changes, dropped=dropped)


def _create_collection(catalog: Catalog, command: CreateCollection) -> Effect:
    existing = catalog.collection_named(command.tenant, command.database, command.name)
    if existing is not None:
        if not command.get_or_create:
            raise _exists(f"Collection [{command.name}] already exists")
        # Metadata and configuration of the request are ignored, as Chroma ignores them.
        return Effect(_collection_body(existing), work=False, collection=existing)
    if catalog.database(command.tenant, command.database) is None:
        raise _invalid(f"Database [{command.database}] does not exist")
    created = Collection(command.collection_id, command.tenant, command.database, command.name)
    return Effect(
        _collection_body(created), work=True, changes=(_put_collection(created),), collection=created
    )


def _update_collection(catalog: Catalog, command: UpdateCollection) -> Effect:
    collection = catalog.require(command.collection_id)
    if command.new_name is None and command.new_metadata is None and command.new_configuration is None:
        return Effect(Outcome(200, {}), work=False, collection=collection)
    changes: tuple[Change, ...] = ()
    if command.new_name is not None and command.new_name != collection.name:
        if catalog.collection_named(collection.tenant, collection.database, command.new_name) is not None:
            # Not friendly, but it is what Chroma answers, status 500 included.
            raise Refusal(
                500,
                "InternalError",
                "Database error: error returned from database: (code: 2067) UNIQUE constraint failed:"
                " collections.name, collections.database_id",
            )
        changes = (_put_collection(replace(collection, name=command.new_name)),)
    return Effect(Outcome(200, {}), work=True, changes=changes, collection=collection)


def _delete_collection(catalog: Catalog, command: DeleteCollection) -> Effect:
    collection = catalog.collection_named(command.tenant, command.database, command.name)
    if collection is None:
        raise _not_found(f"Collection [{command.name}] does not exist")
    dropped = (collection.collection_id,)
    return Effect(
        Outcome(200, {}),
        work=True,
        changes=_delete_keys("c", dropped),
        collection=collection,
        dropped=dropped,
    )


def _write_records(collection: Collection, command: WriteRecords) -> Effect:
    if None not in (command.model, collection.model) and command.model != collection.model:
        raise _invalid(
            f"Collection [{collection.name}] holds vectors of the embedding model {collection.model}, but"
            f" these documents were embedded with {command.model}. Nothing was changed. Run the same"
            " model on all nodes, or send vectors."
        )
    check_dimension(collection, command.dimension)
    if "" in command.ids:
        raise _invalid("Empty ID, ID must have at least one character")
    # Chroma refuses these only after the dimension is set. Refused here, the write changes nothing,
    # also where it is cut into parts.
    for metadata in command.metadatas or ():
        for key, value in (metadata or {}).items():
            if isinstance(value, dict):
                message = f"Unimplemented: Sparse vector is not supported for local chroma: {key}"
                raise Refusal(501, "ChromaError", message)
    after = replace(
        collection,
        dimension=command.dimension if collection.dimension is None else collection.dimension,
        model=command.model if collection.model is None else collection.model,
    )
    changed = bool(command.ids) and after != collection
    return Effect(
        Outcome(201 if command.kind == "add" else 200, {}),
        work=bool(command.ids),
        changes=(_put_collection(after),) if changed else (),
        collection=collection,
        after=after if changed else None,
    )


def _delete_records(collection: Collection, command: DeleteRecords) -> Effect:
    """With a filter, the count in the outcome is not known here: the machine fills it in."""
    # Chroma counts the ids it was given, known or not, repeated or not.
    outcome = Outcome(200, {"deleted": len(command.ids or ())})
    return Effect(outcome, work=bool(command.ids) or has_filter(command), collection=collection)


def has_filter(command: DeleteRecords) -> bool:
    """Whether the ids to delete must be read from the engine."""
    return command.where is not None or command.where_document is not None


def _reset(catalog: Catalog) -> Effect:
    initial = initial_changes()
    kept = {change.key for change in initial}
    keys = [key for key, _ in catalog.items()]
    dropped = tuple(key.removeprefix("c/") for key in keys if key.startswith("c/"))
    changes = tuple(Change(key, None) for key in keys if key not in kept) + initial
    return Effect(Outcome(200, True), work=True, changes=changes, dropped=dropped)


def _path(collection: Collection) -> tuple[str, str, str]:
    return collection.tenant, collection.database, collection.name


def _put_database(database: Database) -> Change:
    return Change(f"d/{database.database_id}", _pack([database.tenant, database.name]))


def _put_collection(collection: Collection) -> Change:
    value = [*_path(collection), collection.dimension, collection.model]
    return Change(f"c/{collection.collection_id}", _pack(value))


def _delete_keys(kind: str, names: Iterable[str]) -> tuple[Change, ...]:
    return tuple(Change(f"{kind}/{name}", None) for name in names)


def _collection_body(collection: Collection) -> Outcome:
    return Outcome(200, {"$collection": collection.collection_id})


def _not_found(message: str) -> Refusal:
    return Refusal(404, "NotFoundError", message)


def _invalid(message: str) -> Refusal:
    return Refusal(400, "InvalidArgumentError", message)


def _exists(message: str) -> Refusal:
    return Refusal(409, "ChromaError", message)


def _pack(value: Any) -> bytes:
    return msgpack.packb(value)
