"""What the tests of moving have in common: a directory full of awkward things, and all that a client sees.

Run as a program it makes or shows a directory in a process of its own: `python -m tests.integration.moving
make|show DIR`.
"""

from __future__ import annotations

import json
import math
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import chromadb
import numpy as np

if TYPE_CHECKING:
    from pathlib import Path

    from chromadb.api import ClientAPI

PLACES = [("default_tenant", "default_database"), ("acme", "default"), ("acme", "archive")]
AWKWARD: list[dict[str, Any] | None] = [
    None,
    {"int": 1, "float": 1.0, "bool": True, "no": False, "text": "1"},
    {"large": 2**63 - 1, "small": -(2**63), "tiny": 5e-324, "huge": 1.7976931348623157e308},
    {
        "zero": 0.0,
        "minus": -0.0,
        "third": 1 / 3,
        "seventh": 632 / 7,
        "e22": 1.1e22,
        "e-9": 1.2345678901234567e-9,
    },
    {"ints": [1, 2], "floats": [1.0, 0.1, 632 / 7], "bools": [True, False], "texts": ["", "ä", "\0"]},
    {"ключ": "значение", "a/b": '\n\t"\\', "emoji": "\U0001f40d\u200b"},
    {"chroma:uri": 5, "hnsw:space": "not a setting here"},
]


def make(path: Path, *, bulk: int = 0, lists: bool = True) -> None:
    """Fill a directory; call it in a process of its own.

    Args:
        lists: whether metadata has lists. Chroma leaves those of a deleted collection behind, and a later
            record shows them as its own: only a server that never deleted any can be a target for them.
    """
    client = chromadb.PersistentClient(str(path))
    admin = client._admin_client  # type: ignore[attr-defined]
    admin.create_tenant("acme")
    admin.create_database("default", "acme")
    admin.create_database("archive", "acme")
    notes = client.create_collection(
        "notes",
        metadata={"third": 1 / 3, "seventh": 632 / 7, "one": 1, "yes": True, "name": "ä"},
        configuration={"hnsw": {"space": "cosine", "max_neighbors": 20, "ef_search": 77}},
        embedding_function=None,
    )
    # In an order that is none of their names', with some changed and some gone.
    for number in (3, 1, 2, 0, 5, 4, 6):
        fields: dict[str, Any] = {"documents": [f"document {number} ä"]} if number % 2 else {}
        fields |= {"uris": [f"file:///{number}"]} if number % 3 == 0 else {}
        if AWKWARD[number] is not None and (lists or number != 4):
            fields["metadatas"] = [AWKWARD[number]]
        notes.add(ids=[f"n{number}\n"], embeddings=[[0.1 * number + 0.7, -0.0, math.pi]], **fields)
    notes.delete(ids=["n2\n"])
    notes.upsert(ids=["n2\n"], embeddings=[[3.0, 1.0, 0.1]], metadatas=[AWKWARD[2]])
    client.create_collection("empty", metadata={"why": "nothing yet"}, embedding_function=None)
    bare = client.create_collection(
        "bare", metadata={"hnsw:space": "ip", "hnsw:M": 24}, embedding_function=None
    )
    bare.add(ids=[f"{number}" for number in range(3)], embeddings=[[1e-39], [3.4e38], [0.1]])
    emptied = client.create_collection("emptied", embedding_function=None)
    emptied.add(ids=["gone"], embeddings=[[1.0, 2.0]])
    emptied.delete(ids=["gone"])
    client.create_collection("named")  # with the configuration of the default embedding function
    other = chromadb.PersistentClient(str(path), tenant="acme", database="archive")
    old = other.create_collection("notes", embedding_function=None)
    old.add(ids=["a", "b"], embeddings=[[1.0, 2.0], [2.0, 1.0]], documents=["", "text"])
    for start in range(0, bulk, 500):
        many = client.get_or_create_collection("many", embedding_function=None)
        ids = range(start, min(bulk, start + 500))
        many.add(
            ids=[f"{number}" for number in ids],
            embeddings=[[math.sin(number * width) for width in range(1, 17)] for number in ids],
            documents=[f"document {number} " * 20 for number in ids],
            metadatas=[{"number": number, "half": number / 2} for number in ids],
        )


def shown(client: ClientAPI) -> dict[str, Any]:
    """Everything of one database that a client sees, but ids of collections."""
    found: dict[str, Any] = {}
    for collection in client.list_collections():
        everything = collection.get(include=["embeddings", "documents", "metadatas", "uris"])
        vectors = everything["embeddings"]
        found[collection.name] = {
            "metadata": collection.metadata,
            "configuration": collection._model.configuration_json,
            "records": [
                everything["ids"],
                []
                if vectors is None
                else [[float(np.float32(value)).hex() for value in vector] for vector in vectors],
                everything["documents"],
                everything["uris"],
                everything["metadatas"],
            ],
        }
    return dict(sorted(found.items()))


def everything(client_of: Any) -> Any:
    """All databases, as JSON: 1 and 1.0 differ there."""
    return json.dumps([shown(client_of(tenant, database)) for tenant, database in PLACES], sort_keys=True)


def in_process(verb: str, path: Path, *flags: str) -> str:
    """Run this module on a directory, in a process of its own, and have what it prints."""
    command = [sys.executable, "-m", "tests.integration.moving", verb, str(path), *flags]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def _main() -> None:
    from pathlib import Path

    verb, path = sys.argv[1], Path(sys.argv[2])
    if verb == "make":
        make(path, bulk=int(sys.argv[3]), lists="no-lists" not in sys.argv)
        return
    print(
        everything(
            lambda tenant, database: chromadb.PersistentClient(str(path), tenant=tenant, database=database)
        ),
        end="",
    )


if __name__ == "__main__":
    _main()
