"""Chroma's own judgement of a request before it is proposed, from an empty Chroma in memory.

A leader asks here whether Chroma would take a name, metadata, configuration, schema or filter, so
that what enters the log succeeds on every node and what is refused is refused in Chroma's words.
Whether a name is taken or a collection exists is the catalogue's business, not judged here.

Thread-safe; each judgement takes a few milliseconds and leaves nothing behind.
"""

from __future__ import annotations

import contextlib
import json
import threading
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from cluster.chroma.bindings import open_bindings
from cluster.chroma.errors import is_panic, refusal_of
from cluster.errors import Refusal

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import chromadb_rust_bindings as rust

    from cluster.state.commands import Metadata

_TENANT: Final = "default_tenant"
_DATABASE: Final = "default_database"
_FILTERED: Final = "chroma-cluster.scratch.filtered"
_UPDATED: Final = "chroma-cluster.scratch.updated"
_TRIED: Final = "chroma-cluster.scratch.tried"
_SHORTEST_TENANT: Final = 3
#: Chroma keeps the index of a deleted collection in memory, so it is left for a new one now and then.
_TRIALS_PER_CHROMA: Final = 32
#: Records of a write in a trial, and their dimension.
_RECORDS: Final = 4
_REMEMBERED: Final = 256


class Scratch:
    """An in-memory Chroma that says yes (None) or how it would refuse."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        #: Settings that worked, as text.
        self._tried: dict[str, None] = {}
        self._trials = 0
        self._open()

    def judge_create_collection(
        self,
        name: str,
        metadata: Metadata | None,
        configuration: str | None,
        schema: str | None,
    ) -> Refusal | None:
        """Would Chroma create this collection, were its name free?"""
        if refusal := _judge_metadata(metadata):
            return refusal

        def create(bindings: rust.Bindings) -> None:
            created = bindings.create_collection(
                name, configuration, schema, metadata, True, _TENANT, _DATABASE
            )
            if name != _FILTERED:
                bindings.delete_collection(created.name, _TENANT, _DATABASE)

        return self._judge(create)

    def judge_update_collection(
        self,
        current: Mapping[str, Any],
        new_name: str | None,
        new_metadata: Metadata | None,
        new_configuration: str | None,
    ) -> Refusal | None:
        """Would Chroma make these changes to `current`, a collection as `Engine.collection` gives it?"""
        if refusal := _judge_metadata(new_metadata):
            return refusal
        schema = None if current["schema"] is None else json.dumps(current["schema"])

        def update(bindings: rust.Bindings) -> None:
            made = bindings.create_collection(_UPDATED, None, schema, None, True, _TENANT, _DATABASE)
            name = _UPDATED
            try:
                # The fixed collection of the filters may bear the wanted name.
                rename = None if new_name == _FILTERED else new_name
                bindings.update_collection(str(made.id), rename, new_metadata, new_configuration)
                name = rename or name
            finally:
                bindings.delete_collection(name, _TENANT, _DATABASE)

        return self._judge(update)

    def judge_create_tenant(self, name: str) -> Refusal | None:
        """Would Chroma create a tenant of this name, were it free?"""
        if len(name) >= _SHORTEST_TENANT:
            return None  # Chroma's only rule; tenants cannot be deleted, so none is made to find out
        return self._judge(lambda bindings: bindings.create_tenant(name))

    def judge_where(self, where: str | None, where_document: str | None) -> Refusal | None:
        """Would Chroma take these filters (JSON texts)?"""

        def read(bindings: rust.Bindings) -> None:
            bindings.get(self._filtered, [], where, 0, 0, where_document, [], _TENANT, _DATABASE)

        return self._judge(read)

    def trial(
        self,
        configuration: str | None,
        schema: str | None,
        metadata: Metadata | None,
        change: str | None = None,
    ) -> Refusal | None:
        """Does a collection with these index settings (and then with the changed configuration) work?

        Chroma takes settings with which it fails at the first records only. So a collection gets a few here.
        """
        told = json.dumps([configuration, schema, metadata, change], sort_keys=True)
        if told in self._tried:
            return None

        def attempt(bindings: rust.Bindings) -> None:
            made = bindings.create_collection(
                _TRIED, configuration, schema, metadata, True, _TENANT, _DATABASE
            )
            try:
                if change is not None:
                    bindings.update_collection(str(made.id), None, None, change)
                _use(bindings, str(made.id))
            finally:
                bindings.delete_collection(_TRIED, _TENANT, _DATABASE)

        refusal = self._judge(attempt)
        if refusal is None:
            self._remember(told)
            return None
        return Refusal(
            refusal.status,
            refusal.error,
            f"A collection with these settings was tried, and Chroma failed: {refusal.message}. Nothing was "
            "changed. Leave the settings of the index out, or use others.",
        )

    def _remember(self, told: str) -> None:
        with self._lock:
            self._trials += 1
            if self._trials % _TRIALS_PER_CHROMA == 0:
                self._open()
            self._tried[told] = None
            if len(self._tried) > _REMEMBERED:
                del self._tried[next(iter(self._tried))]

    def close(self) -> None:
        """Free the memory; nothing can be judged afterwards."""
        with self._lock:
            del self._bindings

    def _open(self) -> None:
        self._bindings = open_bindings(None)
        made = self._bindings.create_collection(_FILTERED, None, None, None, True, _TENANT, _DATABASE)
        self._filtered = str(made.id)

    def _judge(self, attempt: Callable[[rust.Bindings], object]) -> Refusal | None:
        with self._lock:
            try:
                attempt(self._bindings)
            except BaseException as error:
                if isinstance(error, (KeyboardInterrupt, SystemExit)):
                    raise
                known = refusal_of(error)
                if known is None or is_panic(error):
                    # An unforeseen failure may have left something half-made.
                    with contextlib.suppress(Exception):
                        self._open()
                return known or Refusal(500, "InternalError", str(error))
        return None


def _use(bindings: rust.Bindings, collection_id: str) -> None:
    """A little of what every collection meets: two writes, a read, a query, a deletion.

    One record is not enough: an index without neighbours fails at the second.
    """
    home = (_TENANT, _DATABASE)
    for start in (0, _RECORDS):
        ids = [str(at) for at in range(start, start + _RECORDS)]
        vectors = np.eye(_RECORDS, dtype=np.float32) + np.float32(start)
        bindings.add(ids, collection_id, vectors, None, None, None, *home)
    wanted = np.ones((1, _RECORDS), dtype=np.float32)
    bindings.query(collection_id, None, wanted, 2, None, None, [], *home)
    bindings.get(collection_id, None, None, None, 0, None, [], *home)
    bindings.delete(collection_id, ["0"], None, None, None, *home)


def _judge_metadata(metadata: Metadata | None) -> Refusal | None:
    """Metadata at which `chroma run` hangs up instead of answering: a panic in its storage."""
    for key, value in (metadata or {}).items():
        if isinstance(value, (list, dict)):
            kind = "Lists" if isinstance(value, list) else "Sparse vectors"
            text = f"{kind} are not supported in collection metadata by a local Chroma: {key}"
            return Refusal(400, "InvalidArgumentError", text)
    return None
