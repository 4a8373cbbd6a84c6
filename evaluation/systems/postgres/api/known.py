"""Collections as this API server has seen them: what it need not ask for before each request."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeVar

import asyncpg

from cluster.api.names import no_collection
from cluster.errors import Refusal
from evaluation.systems.postgres import catalogue, writing

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from evaluation.systems.postgres.api.access import Access
    from evaluation.systems.postgres.api.exchange import Request
    from evaluation.systems.postgres.catalogue import Collection
    from evaluation.systems.postgres.connection import Connection

T = TypeVar("T")

_UNREADABLE_REGEX: Final = "2201B"


class KnownCollections:
    """By id. What others have deleted since is found out when its table is missing."""

    def __init__(self, access: Access) -> None:
        self._access = access
        self._seen: dict[str, Collection] = {}

    def __contains__(self, collection_id: str) -> bool:
        return collection_id in self._seen

    def forget(self, collection_id: str) -> None:
        self._seen.pop(collection_id, None)

    def forget_all(self) -> None:
        self._seen.clear()

    async def find(self, request: Request, collection_id: str) -> Collection:
        """For a write: as it was seen, else as the primary knows it.

        Raises:
            Refusal: there is none.
        """
        collection = self._seen.get(collection_id)
        if collection is None:
            collection = await self._access.prepare(
                request, lambda connection: catalogue.find_by_id(connection, collection_id)
            )
            if collection is None:
                raise no_collection(collection_id)
            self._seen[collection_id] = collection
        return collection

    async def read(
        self,
        request: Request,
        collection_id: str,
        work: Callable[[Connection, Collection], Awaitable[T]],
        *,
        settled: bool = False,
    ) -> T:
        """Read from a collection as one server knows it; `settled`: its dimension matters."""

        async def read(connection: Connection) -> T:
            collection = self._seen.get(collection_id)
            if collection is None or (settled and collection.dimension is None):
                collection = await catalogue.find_by_id(connection, collection_id)
                if collection is None:
                    raise no_collection(collection_id)
                self._seen[collection_id] = collection
            return await work(connection, collection)

        try:
            return await self._access.read(request, read)
        except asyncpg.PostgresError as error:
            raise self.refusal(error, collection_id) from None

    def refusal(self, error: BaseException, collection_id: str) -> Exception:
        """What a client is told of a statement on the collection that Postgres has refused."""
        sqlstate = getattr(error, "sqlstate", None)
        if sqlstate == writing.UNDEFINED_TABLE:
            self.forget(collection_id)
            return no_collection(collection_id)
        if sqlstate == _UNREADABLE_REGEX:
            return Refusal(501, "ChromaError", f"Postgres does not read this regular expression: {error}")
        return Refusal(500, "InternalError", f"Postgres refuses this: {error}")
