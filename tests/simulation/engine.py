"""A Chroma that is a dictionary: what `chroma.interface.Engine` is to the applier, on a simulated disk.

It does whole calls, merged ones too, in Chroma's way: an add ignores ids that exist, an update those that
do not. A digest of each collection is kept up to date, for comparison with the model.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from typing import TYPE_CHECKING, Any

from cluster.chroma.interface import Get, Records
from cluster.errors import EngineDied, Fault
from cluster.state.commands import (
    CreateCollection,
    DeleteCollection,
    DeleteDatabase,
    DeleteRecords,
    WriteRecords,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from cluster.state.catalog import Change
    from cluster.state.commands import Command
    from cluster.state.work import Call, Resolve
    from tests.simulation.disk import Disk
    from tests.simulation.poison import Way

Record = tuple[bytes | None, str | None, int | None]
"""Vector, document, and the one metadata value that is used here."""


def record_digest(record_id: str, record: Record) -> int:
    """One record's share of its collection's digest; shares are combined by exclusive or."""
    data = f"{record_id}|{record!r}".encode()
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "big")


class FakeEngine:
    """Records by collection. A call that returned is durable; a crash may leave a part of one."""

    def __init__(
        self,
        disk: Disk,
        effect: Callable[[Command], Way | None] = lambda command: None,
        broken: set[tuple[str, str]] | None = None,
    ) -> None:
        self._disk = disk
        self._effect = effect
        self._broken = set[tuple[str, str]]() if broken is None else broken
        self._collections: dict[str, dict[str, Record]] = disk.collections
        self.digests = {
            name: _digest_of(records) for name, records in self._collections.items()
        }  # of existing collections

    def close(self) -> None:
        return None

    def apply(self, call: Call) -> tuple[Change, ...]:
        try:
            self._disk.begin_write("engine")
        except sqlite3.Error as error:
            raise Fault(f"This node's Chroma could not do a call: {error}.") from error
        poison = self._effect(call.command)
        if poison is not None and poison != "dies-after":
            if poison == "breaks" and call.target is not None:
                self._broken.add((self._disk.name, call.target.collection_id))
            raise Fault("poison")
        match call.command:
            case CreateCollection(collection_id=collection_id):
                if collection_id not in self._collections:
                    self._collections[collection_id] = {}
                    self.digests[collection_id] = 0
            case DeleteCollection() | DeleteDatabase():
                for collection_id in call.dropped:
                    self._collections.pop(collection_id, None)
                    self.digests.pop(collection_id, None)
            case WriteRecords() as write:
                self._write(write)
            case DeleteRecords() as delete:
                self._delete(delete)
            case other:
                raise AssertionError(f"the simulation makes no {type(other).__name__}")
        self._disk.end_write("engine")
        if poison is not None:
            raise EngineDied("poison", proven=True)
        return ()

    def reopen(self) -> None:
        return None

    def collection(self, collection_id: str) -> dict[str, Any]:
        return {}

    def count(self, collection_id: str) -> int:
        if (self._disk.name, collection_id) in self._broken:
            raise EngineDied("broken", proven=True)
        return len(self._collections[collection_id])

    def get(self, collection_id: str, wanted: Get) -> Records:
        records = self._collections[collection_id]
        ids = [name for name in wanted.ids or () if name in records]
        vectors = [list(memoryview(records[name][0] or b"").cast("f")) for name in ids]
        documents = [records[name][1] for name in ids]
        return Records(ids, vectors, documents, None, [{"n": records[name][2]} for name in ids])

    def resolve(self, work: Resolve) -> tuple[str, ...]:
        command = work.command
        wanted = json.loads(command.where or "{}")["parity"]
        records = self._collections.get(work.target.collection_id, {})
        found = [
            record_id
            for record_id in sorted(records)
            if (command.ids is None or record_id in command.ids)
            and records[record_id][2] is not None
            and records[record_id][2] % 2 == wanted
        ]
        return tuple(found if command.limit is None else found[: command.limit])

    def read(self, collection_id: str) -> int | None:
        """The digest of a collection's content, None if there is no such collection."""
        return self.digests.get(collection_id)

    def _put(self, collection_id: str, record_id: str, record: Record | None) -> None:
        self._disk.crash_at("engine-part")
        records = self._collections[collection_id]
        old = records.get(record_id)
        if old is not None:
            self.digests[collection_id] ^= record_digest(record_id, old)
        if record is None:
            records.pop(record_id, None)
        else:
            records[record_id] = record
            self.digests[collection_id] ^= record_digest(record_id, record)

    def _write(self, write: WriteRecords) -> None:
        records = self._collections[write.collection_id]
        columns: list[Any] = [write.embeddings, write.documents, write.metadatas]
        for at, record_id in enumerate(write.ids):
            vector, document, metadata = (None if column is None else column[at] for column in columns)
            value = None if metadata is None else metadata["n"]
            old = records.get(record_id)
            if (write.kind == "add" and old is not None) or (write.kind == "update" and old is None):
                continue
            if old is not None:
                vector = old[0] if vector is None else vector
                document = old[1] if document is None else document
                value = old[2] if value is None else value
            self._put(write.collection_id, record_id, (vector, document, value))

    def _delete(self, delete: DeleteRecords) -> None:
        for record_id in delete.ids or ():
            self._put(delete.collection_id, record_id, None)


def _digest_of(records: dict[str, Record]) -> int:
    digest = 0
    for record_id, record in records.items():
        digest ^= record_digest(record_id, record)
    return digest
