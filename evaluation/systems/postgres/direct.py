"""The operations of the HTTP API by SQL alone: what the HTTP layer costs is the difference.

One connection, statements cached, no pool and no PgBouncer in between. Tables and statements are the API's
own, so that the same collection can be used by both ways.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import orjson

from cluster.state.commands import WriteRecords
from evaluation.systems.postgres import catalogue, records
from evaluation.systems.postgres.catalogue import DATABASE, TENANT, Look
from evaluation.systems.postgres.connection import CLIENT_USER, connect
from evaluation.systems.postgres.filters import Parameters

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    from cluster.state.commands import Metadata
    from evaluation.systems.postgres.connection import Connection


class Direct:
    """One collection on one server. `records` of a write: vectors one a row, documents and metadata."""

    def __init__(self, connection: Connection, collection_id: str, space: str) -> None:
        self._connection = connection
        self._id = collection_id
        self._space = space

    @staticmethod
    async def open(address: str, name: str, dimension: int, space: str = "l2") -> Direct:
        """The collection of this name on the server at host:port; made if it is not there."""
        connection = await connect(address, user=CLIENT_USER, cached_statements=100)
        configuration = orjson.dumps({"hnsw": {"space": space}}).decode()
        look = Look(space, "null", configuration, "null")
        found = await catalogue.create_collection(
            connection, TENANT, DATABASE, name, look, get_or_create=True
        )
        await catalogue.settle_dimension(connection, found, dimension)
        return Direct(connection, found.id, found.space)

    async def close(self) -> None:
        await self._connection.close()

    async def add(
        self,
        ids: Sequence[str],
        vectors: NDArray[np.float32],
        documents: Sequence[str | None] | None = None,
        metadatas: Sequence[Metadata | None] | None = None,
    ) -> None:
        """One statement, one transaction, however many records."""
        rows = tuple(row.astype("<f4").tobytes() for row in vectors)
        await records.write_records(
            self._connection,
            WriteRecords(
                "upsert",
                self._id,
                tuple(ids),
                int(vectors.shape[1]),
                rows,
                None if metadatas is None else tuple(metadatas),
                None if documents is None else tuple(documents),
                None,
            ),
        )

    async def get(self, ids: Sequence[str]) -> Sequence[str]:
        """Documents and metadata are read too; the ids found are returned."""
        parameters = Parameters()
        found = await records.get_records(
            self._connection,
            self._id,
            where=records.with_ids("true", parameters, ids),
            parameters=parameters,
            limit=None,
            offset=0,
            include=("documents", "metadatas"),
        )
        return found.ids

    async def query(self, vector: NDArray[np.float32], n_results: int = 10) -> Sequence[str]:
        """The nearest neighbours with documents, metadata and distances; their ids are returned."""
        found = await records.find_neighbours(
            self._connection,
            self._id,
            [vector],
            space=self._space,
            n_results=n_results,
            where="true",
            parameters=Parameters(None),
            include=("documents", "metadatas", "distances"),
        )
        return found.ids[0]

    async def count(self) -> int:
        return await records.count_records(self._connection, self._id)
