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
_SHORTEST_TENANT: Final = 3


class Scratch:
    """An in-memory Chroma that says yes (None) or how it would refuse."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
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


def _judge_metadata(metadata: Metadata | None) -> Refusal | None:
    """Metadata at which `chroma run` hangs up instead of answering: a panic in its storage."""
    for key, value in (metadata or {}).items():
        if isinstance(value, (list, dict)):
            kind = "Lists" if isinstance(value, list) else "Sparse vectors"
            text = f"{kind} are not supported in collection metadata by a local Chroma: {key}"
            return Refusal(400, "InvalidArgumentError", text)
    return None
