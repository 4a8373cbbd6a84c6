"""Reads of one embedded Chroma, from any number of threads, beside the one that writes."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final, TypeVar

from cluster.chroma.errors import read_failure
from cluster.chroma.interface import Get, Neighbours, Query, Records
from cluster.errors import ClusterError, Refusal

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import chromadb_rust_bindings as rust

    from cluster.chroma.local_ids import LocalIds, Place

T = TypeVar("T")

#: How often a read is repeated that met a write half-way (index and metadata are two stores).
_READ_ATTEMPTS: Final = 4


class Reader:
    """The reads of `cluster.chroma.interface.Engine`; `opened` gives the bindings or raises."""

    def __init__(self, opened: Callable[[], rust.Bindings], local_ids: LocalIds) -> None:
        self._opened = opened
        self._local_ids = local_ids

    def get(self, collection_id: str, wanted: Get) -> Records:
        def read(bindings: rust.Bindings, place: Place) -> Records:
            found = bindings.get(
                place.id,
                wanted.ids,
                wanted.where,
                wanted.limit,
                wanted.offset,
                wanted.where_document,
                wanted.include,
                place.tenant,
                place.database,
            )
            return Records(found.ids, found.embeddings, found.documents, found.uris, found.metadatas)

        return self._read(collection_id, read)

    def query(self, collection_id: str, wanted: Query) -> Neighbours:
        def read(bindings: rust.Bindings, place: Place) -> Neighbours:
            found = bindings.query(
                place.id,
                wanted.ids,
                wanted.embeddings,
                wanted.n_results,
                wanted.where,
                wanted.where_document,
                wanted.include,
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
        def read(bindings: rust.Bindings, place: Place) -> int:
            return bindings.count(place.id, place.tenant, place.database)

        return self._read(collection_id, read)

    def collection(self, collection_id: str) -> dict[str, Any]:
        def read(bindings: rust.Bindings, place: Place) -> dict[str, Any]:
            found = bindings.get_collection_by_id(place.id, place.tenant, place.database)
            return _render(collection_id, found)

        return self._read(collection_id, read)

    def collections(self, tenant: str, database: str) -> list[dict[str, Any]]:
        try:
            found = self._opened().list_collections(None, None, tenant, database)
        except BaseException as error:
            if isinstance(error, (KeyboardInterrupt, SystemExit, ClusterError)):
                raise
            raise read_failure(error) from None
        rendered = [
            _render(cluster_id, collection)
            for collection in found
            if (cluster_id := self._local_ids.cluster_id(str(collection.id))) is not None
        ]
        return sorted(rendered, key=lambda item: item["id"])

    def found_by_vector(self, collection_id: str, ids: Sequence[str], n_results: int) -> tuple[int, int]:
        """As `cluster.chroma.interface.Inspected.found_by_vector`."""
        wanted = self.get(collection_id, Get(ids=ids, include=("embeddings",)))
        rows = [(name, row) for name, row in zip(wanted.ids, wanted.embeddings or (), strict=False)]
        if not rows:
            return 0, 0
        query = Query([row for _, row in rows], n_results, include=("distances",))
        answer = self.query(collection_id, query)
        near = zip(rows, answer.ids, answer.distances or (), strict=False)
        return len(rows), sum(_is_found(name, ids, distances) for (name, _), ids, distances in near)

    def strangers(self, databases: Sequence[tuple[str, str]]) -> list[str]:
        """As `cluster.chroma.interface.Inspected.strangers`."""
        try:
            return sorted(
                f"{tenant}/{database}/{found.name}"
                for tenant, database in databases
                for found in self._opened().list_collections(None, None, tenant, database)
                if self._local_ids.cluster_id(str(found.id)) is None
            )
        except BaseException as error:
            if isinstance(error, (KeyboardInterrupt, SystemExit, ClusterError)):
                raise
            raise read_failure(error) from None

    def _read(self, collection_id: str, read: Callable[[rust.Bindings, Place], T]) -> T:
        for attempt in range(_READ_ATTEMPTS):
            place = self._local_ids.place(collection_id)
            if place is None:
                raise _unknown(collection_id)
            try:
                return read(self._opened(), place)
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


def _is_found(record_id: str, ids: Sequence[str], distances: Sequence[float | None]) -> bool:
    """Whether the record is among its neighbours, or crowded out by others with the very same vector."""
    crowded = len(distances) > 1 and distances[0] == distances[-1]
    return record_id in ids or crowded


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
