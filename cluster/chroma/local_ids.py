"""Where this node's Chroma keeps the collections of the cluster, for Chroma makes up ids of its own.

The map's durable form are changes of keys `l/<cluster id>`; it is no part of the replicated state.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from cluster.state.catalog import Change

if TYPE_CHECKING:
    from collections.abc import Iterable

#: Key prefix of the map in the node's store.
LOCAL_PREFIX: Final = "l/"


@dataclass(frozen=True, slots=True)
class Place:
    """Chroma's own id of a collection, and the tenant and database that it is called with."""

    id: str
    tenant: str
    database: str

    def encode(self) -> bytes:
        return json.dumps([self.id, self.tenant, self.database]).encode()

    @staticmethod
    def decode(value: bytes) -> Place:
        return Place(*json.loads(value))


class LocalIds:
    """Places by the cluster's id, and back; changed by one thread, looked into from any."""

    def __init__(self, pairs: Iterable[tuple[str, bytes]] = ()) -> None:
        """`pairs` are the store's under `LOCAL_PREFIX`."""
        self._places = {key.removeprefix(LOCAL_PREFIX): Place.decode(value) for key, value in pairs}
        self._cluster_ids = {place.id: cluster_id for cluster_id, place in self._places.items()}

    def place(self, cluster_id: str) -> Place | None:
        return self._places.get(cluster_id)

    def cluster_id(self, local_id: str) -> str | None:
        return self._cluster_ids.get(local_id)

    def cluster_ids(self) -> list[str]:
        """All of them, sorted."""
        return sorted(self._places.copy())

    def put(self, cluster_id: str, place: Place) -> tuple[Change, ...]:
        """Remember a collection that was created; the changes to make durable."""
        self._places[cluster_id] = place
        self._cluster_ids[place.id] = cluster_id
        return (Change(LOCAL_PREFIX + cluster_id, place.encode()),)

    def drop(self, cluster_ids: Iterable[str]) -> tuple[Change, ...]:
        """Forget collections that are gone, known or not; the changes to make durable."""
        gone = tuple(cluster_ids)
        for cluster_id in gone:
            place = self._places.pop(cluster_id, None)
            if place is not None:
                self._cluster_ids.pop(place.id, None)
        return tuple(Change(LOCAL_PREFIX + cluster_id, None) for cluster_id in gone)
