"""Tenants, databases and collections as rows; a collection's own table holds its records.

How a collection looks (name rules, configuration, schema) is Chroma's business: `api.judge` asks an empty
Chroma in memory, and what that answers is stored.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import asyncpg
import orjson

from cluster.errors import Refusal
from evaluation.systems.postgres.connection import CLIENT_USER
from evaluation.systems.postgres.records import create_table, fix_dimension, table

if TYPE_CHECKING:
    from collections.abc import Mapping

    from evaluation.systems.postgres.connection import Connection

TENANT: Final = "default_tenant"
DATABASE: Final = "default_database"

#: What a new installation runs once; it is replicated like all else.
SCHEMA: Final = f"""
CREATE EXTENSION IF NOT EXISTS vector;
CREATE TABLE tenants (name text PRIMARY KEY);
CREATE TABLE databases (id uuid PRIMARY KEY, tenant text NOT NULL, name text NOT NULL, UNIQUE (tenant, name));
CREATE TABLE collections (
    id uuid PRIMARY KEY, tenant text NOT NULL, database text NOT NULL, name text NOT NULL, dimension integer,
    space text NOT NULL, metadata text NOT NULL, configuration text NOT NULL, schema text NOT NULL,
    UNIQUE (tenant, database, name));
INSERT INTO tenants VALUES ('{TENANT}');
INSERT INTO databases VALUES ('00000000-0000-0000-0000-000000000000', '{TENANT}', '{DATABASE}');
CREATE ROLE {CLIENT_USER} LOGIN;
GRANT ALL ON SCHEMA public TO {CLIENT_USER};
ALTER TABLE tenants OWNER TO {CLIENT_USER};
ALTER TABLE databases OWNER TO {CLIENT_USER};
ALTER TABLE collections OWNER TO {CLIENT_USER};
"""

_COLUMNS: Final = "id, tenant, database, name, dimension, space, metadata, configuration, schema"


@dataclass(frozen=True, slots=True)
class Collection:
    """A collection's row. `metadata`, `configuration` and `schema` are JSON texts."""

    id: str
    tenant: str
    database: str
    name: str
    dimension: int | None
    space: str
    metadata: str
    configuration: str
    schema: str

    def rendered(self) -> dict[str, Any]:
        """As Chroma's server shows it."""
        return {
            "id": self.id,
            "name": self.name,
            "configuration_json": orjson.Fragment(self.configuration),
            "schema": orjson.Fragment(self.schema),
            "metadata": orjson.Fragment(self.metadata),
            "dimension": self.dimension,
            "tenant": self.tenant,
            "database": self.database,
            "log_position": 0,
            "version": 0,
        }


@dataclass(frozen=True, slots=True)
class Look:
    """What Chroma makes of a collection's metadata, configuration and schema."""

    space: str
    metadata: str
    configuration: str
    schema: str


# ------------------------------------------------------------------------------------- reading


async def find_by_id(connection: Connection, collection_id: str) -> Collection | None:
    return _one(
        await connection.row(f"SELECT {_COLUMNS} FROM collections WHERE id = $1::text::uuid", collection_id)
    )


async def find_by_name(connection: Connection, tenant: str, database: str, name: str) -> Collection | None:
    return _one(
        await connection.row(
            f"SELECT {_COLUMNS} FROM collections WHERE tenant = $1 AND database = $2 AND name = $3",
            tenant,
            database,
            name,
        )
    )


async def list_collections(
    connection: Connection, tenant: str, database: str, limit: int | None, offset: int
) -> list[Collection]:
    """In Chroma's order, by id."""
    cut = ("" if limit is None else f" LIMIT {limit}") + (f" OFFSET {offset}" if offset else "")
    rows = await connection.fetch(
        f"SELECT {_COLUMNS} FROM collections WHERE tenant = $1 AND database = $2 ORDER BY id{cut}",
        tenant,
        database,
    )
    return [_collection(row) for row in rows]


async def count_collections(connection: Connection, tenant: str, database: str) -> int:
    query = "SELECT count(*) FROM collections WHERE tenant = $1 AND database = $2"
    return int(await connection.value(query, tenant, database))


async def has_tenant(connection: Connection, name: str) -> bool:
    return await connection.value("SELECT 1 FROM tenants WHERE name = $1", name) is not None


async def list_databases(
    connection: Connection, tenant: str, limit: int | None, offset: int
) -> list[dict[str, str]]:
    cut = ("" if limit is None else f" LIMIT {limit}") + (f" OFFSET {offset}" if offset else "")
    query = f"SELECT id, name, tenant FROM databases WHERE tenant = $1 ORDER BY name{cut}"
    return [_database(row) for row in await connection.fetch(query, tenant)]


async def find_database(connection: Connection, tenant: str, name: str) -> dict[str, str] | None:
    row = await connection.row(
        "SELECT id, name, tenant FROM databases WHERE tenant = $1 AND name = $2", tenant, name
    )
    return None if row is None else _database(row)


# ------------------------------------------------------------------------------------- writing


async def create_tenant(connection: Connection, name: str) -> None:
    if not await connection.execute("INSERT INTO tenants VALUES ($1) ON CONFLICT DO NOTHING", name):
        raise Refusal(409, "ChromaError", f"Tenant [{name}] already exists")


async def create_database(connection: Connection, tenant: str, name: str) -> None:
    made = await connection.execute(
        "INSERT INTO databases VALUES ($1::text::uuid, $2, $3) ON CONFLICT DO NOTHING",
        str(uuid.uuid4()),
        tenant,
        name,
    )
    if not made:
        raise Refusal(409, "ChromaError", f"Database [{name}] already exists")


async def delete_database(connection: Connection, tenant: str, name: str) -> None:
    async with connection.transaction():
        gone = await connection.execute("DELETE FROM databases WHERE tenant = $1 AND name = $2", tenant, name)
        if not gone:
            raise Refusal(404, "NotFoundError", f"Database [{name}] not found")
        for row in await connection.fetch(
            "DELETE FROM collections WHERE tenant = $1 AND database = $2 RETURNING id", tenant, name
        ):
            await connection.execute(f"DROP TABLE {table(str(row['id']))}")


async def create_collection(
    connection: Connection, tenant: str, database: str, name: str, look: Look, *, get_or_create: bool
) -> Collection:
    """Raises:
    Refusal: its name is taken, or its database does not exist.
    """
    if get_or_create:
        found = await find_by_name(connection, tenant, database, name)
        if found is not None:
            return found
    made = Collection(
        str(uuid.uuid4()),
        tenant,
        database,
        name,
        None,
        look.space,
        look.metadata,
        look.configuration,
        look.schema,
    )
    async with connection.transaction():
        if await find_database(connection, tenant, database) is None:
            raise Refusal(400, "InvalidArgumentError", f"Database [{database}] does not exist")
        inserted = await connection.execute(
            f"INSERT INTO collections ({_COLUMNS}) VALUES ($1::text::uuid, $2, $3, $4, $5, $6, $7, $8, $9) "
            "ON CONFLICT (tenant, database, name) DO NOTHING",
            made.id,
            tenant,
            database,
            name,
            None,
            look.space,
            look.metadata,
            look.configuration,
            look.schema,
        )
        if inserted:
            for statement in create_table(made.id).split("; "):
                await connection.execute(statement)
            return made
    # Taken in the meantime; it may be gone again by now.
    found = await find_by_name(connection, tenant, database, name) if get_or_create else None
    if found is None:
        raise Refusal(409, "ChromaError", f"Collection [{name}] already exists")
    return found


async def change_collection(connection: Connection, current: Collection, name: str, look: Look) -> None:
    """Raises:
    Refusal: the new name is taken.
    """
    try:
        await connection.execute(
            "UPDATE collections SET name = $2, space = $3, metadata = $4, configuration = $5, schema = $6 "
            "WHERE id = $1::text::uuid",
            current.id,
            name,
            look.space,
            look.metadata,
            look.configuration,
            look.schema,
        )
    except asyncpg.PostgresError as error:
        if error.sqlstate != "23505":
            raise
        # Not friendly, but it is what Chroma answers, status 500 included.
        raise Refusal(
            500,
            "InternalError",
            "Database error: error returned from database: (code: 2067) UNIQUE constraint failed:"
            " collections.name, collections.database_id",
        ) from None


async def delete_collection(connection: Connection, tenant: str, database: str, name: str) -> str:
    """Its id."""
    async with connection.transaction():
        row = await connection.row(
            "DELETE FROM collections WHERE tenant = $1 AND database = $2 AND name = $3 RETURNING id",
            tenant,
            database,
            name,
        )
        if row is None:
            raise Refusal(404, "NotFoundError", f"Collection [{name}] does not exist")
        await connection.execute(f"DROP TABLE {table(str(row['id']))}")
        return str(row["id"])


async def settle_dimension(connection: Connection, collection: Collection, dimension: int) -> int | None:
    """The collection's dimension, which is this one if it had none; None: the collection is gone."""
    async with connection.transaction():
        row = await connection.row(
            "SELECT dimension FROM collections WHERE id = $1::text::uuid FOR UPDATE", collection.id
        )
        if row is None:
            return None
        if row["dimension"] is not None:
            return int(row["dimension"])
        for statement in fix_dimension(collection.id, dimension, collection.space).split("; "):
            await connection.execute(statement)
        await connection.execute(
            "UPDATE collections SET dimension = $2 WHERE id = $1::text::uuid", collection.id, dimension
        )
        return dimension


def _one(row: asyncpg.Record | None) -> Collection | None:
    return None if row is None else _collection(row)


def _collection(row: asyncpg.Record) -> Collection:
    collection_id, *others = tuple(row)
    return Collection(str(collection_id), *others)


def _database(row: Mapping[str, Any] | asyncpg.Record) -> dict[str, str]:
    return {"id": str(row["id"]), "name": row["name"], "tenant": row["tenant"]}
