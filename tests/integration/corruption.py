"""Silent changes of one stopped node's Chroma directory, one function each; none goes through the log."""

from __future__ import annotations

import random
import shutil
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Any

import chromadb
from chromadb.config import Settings

if TYPE_CHECKING:
    from pathlib import Path

    from chromadb.api import ClientAPI

#: hnswlib keeps a record of the lowest layer as its links (a count and 2 M of them), its vector, its label.
_LINKS_BYTES = 4 * (1 + 2 * 16)
_LABEL_BYTES = 8


def index_directory(chroma: Path, name: str) -> Path:
    """Where Chroma keeps the vectors of a collection."""
    with closing(sqlite3.connect(chroma / "chroma.sqlite3")) as db:
        [(segment,)] = db.execute(
            "SELECT s.id FROM segments s JOIN collections c ON s.collection = c.id "
            "WHERE c.name = ? AND s.scope = 'VECTOR'",
            (name,),
        ).fetchall()
    return chroma / segment


def flip_vector_byte(chroma: Path, name: str, dimension: int, element: int = 7) -> None:
    """One bit of one number of one vector, in the saved index."""
    path = index_directory(chroma, name) / "data_level0.bin"
    at = element * (_LINKS_BYTES + 4 * dimension + _LABEL_BYTES) + _LINKS_BYTES + 1
    with path.open("r+b") as file:
        file.seek(at)
        [byte] = file.read(1)
        file.seek(at)
        file.write(bytes([byte ^ 0x10]))


def change_metadata_value(chroma: Path, name: str, record_id: str, key: str, value: int) -> None:
    """One value of one record, in Chroma's SQLite file."""
    with closing(sqlite3.connect(chroma / "chroma.sqlite3")) as db, db:
        changed = db.execute(
            "UPDATE embedding_metadata SET int_value = ? WHERE key = ? AND id = "
            "(SELECT e.id FROM embeddings e JOIN segments s ON e.segment_id = s.id "
            "JOIN collections c ON s.collection = c.id WHERE c.name = ? AND e.embedding_id = ?)",
            (value, key, name, record_id),
        ).rowcount
    assert changed == 1


def drop_index(chroma: Path, name: str) -> None:
    """The directory with the vectors of a collection is gone."""
    shutil.rmtree(index_directory(chroma, name))


def plain(chroma: Path) -> ClientAPI:
    """A plain Chroma client of the directory, as the README says that one may open it."""
    return chromadb.PersistentClient(str(chroma), settings=Settings(anonymized_telemetry=False))


def random_changes(collection: Any, ids: list[str], count: int, seed: int) -> None:
    """So many changes of different records: deleted, added, or one part of them changed."""
    draw = random.Random(seed)
    chosen: list[str] = draw.sample(ids, count)
    first: Any = collection.get(ids=chosen[:1], include=["embeddings"])["embeddings"]
    dimension = len(first[0])
    for record_id in chosen:
        vector: Any = [draw.gauss(0, 1) for _ in range(dimension)]
        match draw.randrange(5):
            case 0:
                collection.delete(ids=[record_id])
            case 1:
                collection.add(ids=[f"{record_id}-extra"], embeddings=[vector])
            case 2:
                collection.update(ids=[record_id], embeddings=[vector])
            case 3:
                found: Any = collection.get(ids=[record_id], include=["embeddings"])["embeddings"]
                # With its vector, or the client would embed the text.
                collection.update(ids=[record_id], embeddings=found, documents=[f"changed {draw.random()}"])
            case _:
                collection.update(ids=[record_id], metadatas=[{"i": -1 - draw.randrange(1000)}])
