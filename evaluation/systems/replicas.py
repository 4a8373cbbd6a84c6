"""One record of a stopped member's Chroma changed behind its back, in the file that Chroma keeps."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Final

from evaluation.failure import SystemFailure

if TYPE_CHECKING:
    from pathlib import Path

_FILE: Final = "chroma.sqlite3"
_RECORD: Final = (
    "(SELECT e.id FROM embeddings e JOIN segments s ON e.segment_id = s.id "
    "JOIN collections c ON s.collection = c.id WHERE c.name = ? AND e.embedding_id = ?)"
)


def change_metadata(chroma: Path, collection: str, record: str, key: str) -> str:
    """Add 1000 to a whole number in its metadata; says what was changed.

    Raises:
        SystemFailure: it is not there.
    """
    with closing(sqlite3.connect(chroma / _FILE, timeout=10)) as connection, connection:
        changed = connection.execute(
            f"UPDATE embedding_metadata SET int_value = int_value + 1000 WHERE key = ? AND id = {_RECORD}",
            (key, collection, record),
        ).rowcount
    if changed != 1:
        raise SystemFailure(f"{collection} holds no value {key} of {record} that could be changed")
    return f"the value {key} of record {record}"


def flip_vector_bit(chroma: Path, collection: str, record: str) -> str:
    """Flip a bit of its first number, where a small collection's vectors are kept; says what was changed.

    Raises:
        SystemFailure: it is not there.
    """
    with closing(sqlite3.connect(chroma / _FILE, timeout=10)) as connection, connection:
        (found,) = connection.execute("SELECT id FROM collections WHERE name = ?", (collection,)).fetchone()
        rows = connection.execute(
            "SELECT seq_id, vector FROM embeddings_queue "
            "WHERE id = ? AND topic LIKE ? AND vector IS NOT NULL ORDER BY seq_id",
            (record, f"%{found}"),
        ).fetchall()
        if not rows:
            raise SystemFailure(f"{collection} holds no vector of {record} that could be changed")
        sequence, vector = rows[-1]
        flipped = bytearray(vector)
        flipped[2] ^= 0x10  # of a float32, little endian: far from the least bit, and no infinity
        connection.execute(
            "UPDATE embeddings_queue SET vector = ? WHERE seq_id = ?", (bytes(flipped), sequence)
        )
    return f"a bit in the vector of record {record}"
