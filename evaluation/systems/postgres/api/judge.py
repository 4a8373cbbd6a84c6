"""What Chroma would say to a new or changed collection, a filter or a tenant's name."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, cast

import orjson

from cluster.chroma.bindings import open_bindings
from cluster.chroma.errors import refusal_of
from cluster.chroma.scratch import Scratch
from cluster.errors import Refusal
from evaluation.systems.postgres.catalogue import DATABASE, TENANT, Look

if TYPE_CHECKING:
    from cluster.state.commands import Metadata
    from evaluation.systems.postgres.catalogue import Collection


class Judge:
    """An empty Chroma in memory, opened when it is first asked. Its methods block; any thread may call."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._scratch: Scratch | None = None
        self._known: dict[bytes, Look] = {}

    def create(
        self, name: str, metadata: Metadata | None, configuration: str | None, schema: str | None
    ) -> Look:
        """Raises:
        Refusal: Chroma would not create it, were its name free.
        """
        key = orjson.dumps([metadata, configuration, schema])
        with self._lock:
            scratch = self._open()
            refusal = scratch.judge_create_collection(name, metadata, configuration, schema)
            if refusal is not None:
                raise refusal
            if key not in self._known:
                self._known[key] = _shown(metadata, configuration, schema, None)
            return self._known[key]

    def change(self, current: Collection, name: str | None, metadata: Any, configuration: str | None) -> Look:
        """Raises:
        Refusal: Chroma would not change it, were the new name free.
        """
        with self._lock:
            shown: dict[str, Any] = {"schema": orjson.loads(current.schema)}
            refusal = self._open().judge_update_collection(shown, name, metadata, configuration)
            if refusal is not None:
                raise refusal
            old: Any = orjson.loads(current.metadata)
            return _shown(old, None, current.schema, (metadata, configuration))

    def filter(self, where: str | None, where_document: str | None) -> Refusal | None:
        """How Chroma would refuse this filter, if it would."""
        with self._lock:
            return self._open().judge_where(where, where_document)

    def tenant(self, name: str) -> Refusal | None:
        with self._lock:
            return self._open().judge_create_tenant(name)

    def _open(self) -> Scratch:
        if self._scratch is None:
            self._scratch = Scratch()
        return self._scratch


def _shown(
    metadata: Metadata | None,
    configuration: str | None,
    schema: str | None,
    change: tuple[Any, str | None] | None,
) -> Look:
    name = "looked-at"
    bindings = open_bindings(None)
    try:
        made = bindings.create_collection(name, configuration, schema, metadata, False, TENANT, DATABASE)
        if change is not None:
            bindings.update_collection(str(made.id), None, *change)
            made = bindings.get_collection(name, TENANT, DATABASE)
    except Exception as error:
        raise refusal_of(error) or Refusal(500, "InternalError", str(error)) from None
    shape = cast("dict[str, dict[str, Any] | None]", made.configuration)
    space = str((shape.get("hnsw") or {}).get("space") or "l2")
    return Look(
        space,
        *(orjson.dumps(part).decode() for part in (made.metadata, made.configuration, made.schema)),
    )
