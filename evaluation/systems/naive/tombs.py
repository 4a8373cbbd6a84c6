"""What a member remembers of things that are gone: deleted documents, dropped and created collections."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson

if TYPE_CHECKING:
    from pathlib import Path


class Tombs:
    """An append-only file of JSON lines beside Chroma's data, and its content in memory.

    Not fsynced: a killed process loses nothing, and no home-made system of this kind goes further.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._documents: dict[str, dict[str, Any]] = {}
        self._collections: dict[str, dict[str, Any]] = {}
        if path.exists():
            for line in path.read_bytes().splitlines():
                self._take(orjson.loads(line))
        self._file = path.open("ab")

    def document(self, collection: str, id: str) -> Any | None:
        """The state of a deleted document; it may have been written again since."""
        return self._documents.get(collection, {}).get(id)

    def documents(self, collection: str) -> dict[str, Any]:
        return self._documents.get(collection, {})

    def collections(self) -> dict[str, dict[str, Any]]:
        """name -> {"created": stamp or null, "dropped": stamp or null}."""
        return self._collections

    def bury(self, collection: str, states: dict[str, Any]) -> None:
        for id, state in states.items():
            self._write({"collection": collection, "id": id, "state": state})

    def note(self, collection: str, event: str, stamp: list[Any]) -> None:
        """`event`: created or dropped."""
        self._write({"collection": collection, event: stamp})

    def _write(self, line: dict[str, Any]) -> None:
        self._file.write(orjson.dumps(line) + b"\n")
        self._file.flush()
        self._take(line)

    def _take(self, line: dict[str, Any]) -> None:
        collection = line["collection"]
        if "id" in line:
            self._documents.setdefault(collection, {})[line["id"]] = line["state"]
            return
        known = self._collections.setdefault(collection, {"created": None, "dropped": None})
        for event in ("created", "dropped"):
            if event in line:
                known[event] = max(known[event] or [0, 0, ""], line[event])
        if "dropped" in line:
            self._documents.pop(collection, None)
