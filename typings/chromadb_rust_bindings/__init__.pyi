from collections.abc import Sequence
from enum import Enum
from typing import Any
from uuid import UUID

import numpy as np
from numpy.typing import NDArray

class MigrationHash(Enum):
    MD5 = ...
    SHA256 = ...

class MigrationMode(Enum):
    Apply = ...
    Validate = ...

class SqliteDBConfig:
    def __init__(
        self, hash_type: MigrationHash, migration_mode: MigrationMode, url: str | None = None
    ) -> None: ...

class Collection:
    @property
    def id(self) -> UUID: ...
    @property
    def name(self) -> str: ...
    @property
    def configuration(self) -> dict[str, Any]: ...
    @property
    def schema(self) -> dict[str, Any] | None: ...
    @property
    def metadata(self) -> dict[str, Any] | None: ...
    @property
    def dimension(self) -> int | None: ...
    @property
    def tenant(self) -> str: ...
    @property
    def database(self) -> str: ...

class Database:
    id: UUID
    name: str
    tenant: str

class Tenant:
    name: str

class GetResponse:
    ids: list[str]
    embeddings: list[list[float]] | None
    documents: list[str | None] | None
    uris: list[str | None] | None
    metadatas: list[dict[str, Any] | None] | None

class QueryResponse:
    ids: list[list[str]]
    embeddings: list[list[list[float] | None]] | None
    documents: list[list[str | None]] | None
    uris: list[list[str | None]] | None
    metadatas: list[list[dict[str, Any] | None]] | None
    distances: list[list[float | None]] | None

_Rows = NDArray[np.float32] | Sequence[NDArray[np.float32]] | Sequence[Sequence[float]]
_SparseRows = _Rows | Sequence[NDArray[np.float32] | None]
_Metadatas = Sequence[dict[str, Any] | None] | None
_Texts = Sequence[str | None] | None

class Bindings:
    def __init__(
        self,
        allow_reset: bool,
        sqlite_db_config: SqliteDBConfig,
        hnsw_cache_size: int,
        persist_path: str | None = None,
    ) -> None: ...
    def get_max_batch_size(self) -> int: ...
    def create_tenant(self, name: str) -> None: ...
    def get_tenant(self, name: str) -> Tenant: ...
    def create_database(self, name: str, tenant: str) -> None: ...
    def get_database(self, name: str, tenant: str) -> Database: ...
    def delete_database(self, name: str, tenant: str) -> None: ...
    def list_databases(self, limit: int | None, offset: int | None, tenant: str) -> list[Database]: ...
    def count_collections(self, tenant: str, database: str) -> int: ...
    def list_collections(
        self, limit: int | None, offset: int | None, tenant: str, database: str
    ) -> list[Collection]: ...
    def create_collection(
        self,
        name: str,
        configuration_json_str: str | None,
        schema_str: str | None,
        metadata: dict[str, Any] | None,
        get_or_create: bool,
        tenant: str,
        database: str,
    ) -> Collection: ...
    def get_collection(self, name: str, tenant: str, database: str) -> Collection: ...
    def get_collection_by_id(self, collection_id: str, tenant: str, database: str) -> Collection: ...
    def update_collection(
        self,
        collection_id: str,
        new_name: str | None = None,
        new_metadata: dict[str, Any] | None = None,
        new_configuration_json_str: str | None = None,
    ) -> None: ...
    def delete_collection(self, name: str, tenant: str, database: str) -> None: ...
    def add(
        self,
        ids: Sequence[str],
        collection_id: str,
        embeddings: _Rows,
        metadatas: _Metadatas,
        documents: _Texts,
        uris: _Texts,
        tenant: str,
        database: str,
    ) -> bool: ...
    def upsert(
        self,
        collection_id: str,
        ids: Sequence[str],
        embeddings: _Rows,
        metadatas: _Metadatas,
        documents: _Texts,
        uris: _Texts,
        tenant: str,
        database: str,
    ) -> bool: ...
    def update(
        self,
        collection_id: str,
        ids: Sequence[str],
        embeddings: _SparseRows | None,
        metadatas: _Metadatas,
        documents: _Texts,
        uris: _Texts,
        tenant: str,
        database: str,
    ) -> bool: ...
    def delete(
        self,
        collection_id: str,
        ids: Sequence[str] | None,
        where: str | None,
        where_document: str | None,
        limit: int | None,
        tenant: str,
        database: str,
    ) -> int: ...
    def count(self, collection_id: str, tenant: str, database: str) -> int: ...
    def get(
        self,
        collection_id: str,
        ids: Sequence[str] | None,
        where: str | None,
        limit: int | None,
        offset: int,
        where_document: str | None,
        include: Sequence[str],
        tenant: str,
        database: str,
    ) -> GetResponse: ...
    def query(
        self,
        collection_id: str,
        ids: Sequence[str] | None,
        query_embeddings: _Rows,
        n_results: int,
        where: str | None,
        where_document: str | None,
        include: Sequence[str],
        tenant: str,
        database: str,
    ) -> QueryResponse: ...
    def reset(self) -> bool: ...
    def get_version(self) -> str: ...
