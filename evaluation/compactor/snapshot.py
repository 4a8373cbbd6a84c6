"""A Chroma directory as one object: unpacked, changed, packed again, read."""

from __future__ import annotations

import io
import shutil
import tarfile
from typing import TYPE_CHECKING, cast

import numpy as np
from chromadb import PersistentClient
from chromadb.config import Settings

from evaluation.compactor.model import COLLECTION

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from chromadb.api.client import Client

    from evaluation.compactor.model import Change


def unpack(body: bytes | None, folder: Path) -> None:
    """`folder` becomes what `body` holds; empty for None."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    if body is not None:
        with tarfile.open(fileobj=io.BytesIO(body), mode="r:gz") as archive:
            archive.extractall(folder, filter="data")


def pack(folder: Path) -> bytes:
    """The folder as a compressed archive. Nobody may have it open."""
    buffer = io.BytesIO()
    # Level 1: vectors hardly shrink, only the empty room in SQLite's pages does.
    with tarfile.open(fileobj=buffer, mode="w:gz", compresslevel=1) as archive:
        archive.add(folder, arcname=".")
    return buffer.getvalue()


def apply(folder: Path, changes: Sequence[Change]) -> None:
    """Upsert all changes into the Chroma in `folder`; closed, thus complete on disk, at the return."""
    client = _open(folder)
    try:
        collection = client.get_or_create_collection(COLLECTION, embedding_function=None)
        for start in range(0, len(changes), 1000):
            part = changes[start : start + 1000]
            collection.upsert(
                ids=[change.id for change in part],
                embeddings=np.stack([np.frombuffer(change.vector, "<f4") for change in part]),
                documents=[change.document for change in part],
            )
    finally:
        client.close()


def ids(folder: Path) -> list[str]:
    """All ids of the Chroma in `folder`, sorted; none if it is empty."""
    client = _open(folder)
    try:
        collection = client.get_or_create_collection(COLLECTION, embedding_function=None)
        return sorted(collection.get(include=[])["ids"])
    finally:
        client.close()


def _open(folder: Path) -> Client:
    settings = Settings(anonymized_telemetry=False)
    return cast("Client", PersistentClient(path=str(folder), settings=settings))
