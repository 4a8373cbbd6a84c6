"""Keep the data directory of this version: `python -m tests.kept.make tests/kept/format-N-level-M.tar.xz`.

To be run once for each format of the journal's meta record (`cluster/raft/meta.py`) and each command level
(`cluster/levels.py`; archives that name none are from before), with the version that writes it, before a
newer one is released. Content of every kind: tenants, databases, a configuration, records that were changed
and deleted, a collection that is gone, a write with a key, and a node that lacks the end.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import chromadb
import requests

from evaluation.processes import free_port

if TYPE_CHECKING:
    from collections.abc import Sequence

RECORDS: Final = 60
DELETED_FROM: Final = 55
KEY: Final = "kept-key"

_COMMAND: Final = (sys.executable, "-m", "cluster")


def make(archive: Path) -> None:
    """Found a cluster, fill it, stop it, and pack its directory."""
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "data"
        port = free_port()
        _run("up", "--detach", "--data", str(data), "--port", str(port))
        try:
            _fill(data, port)
        finally:
            _run("down", "--data", str(data))
        with tarfile.open(archive, "w:xz") as packed:
            for name in ("cluster.json", "node-1", "node-2", "node-3"):
                packed.add(data / name, name)


def _run(*arguments: str) -> str:
    done = subprocess.run([*_COMMAND, *arguments], check=True, capture_output=True, text=True, timeout=120)
    return done.stdout


def _fill(data: Path, port: int) -> None:
    settings = chromadb.Settings(
        chroma_server_host="127.0.0.1",
        chroma_server_http_port=port,
        chroma_api_impl="chromadb.api.fastapi.FastAPI",
    )
    admin = chromadb.AdminClient(settings)
    admin.create_tenant("kept")
    admin.create_database("shelves", tenant="kept")
    client = chromadb.HttpClient(host="127.0.0.1", port=port)
    kept = client.create_collection(
        "kept",
        metadata={"made": "then"},
        configuration={"hnsw": {"space": "cosine"}},
        embedding_function=None,
    )
    numbers = range(RECORDS)
    kept.add(
        ids=[f"r{number}" for number in numbers],
        embeddings=[_vector(number) for number in numbers],
        documents=[f"text {number}" for number in numbers],
        metadatas=[{"n": number, "even": number % 2 == 0, "half": number / 2} for number in numbers],
    )
    kept.update(ids=["r1"], embeddings=[[1.0, 1.0, 0.5]], documents=["changed"])
    kept.delete(where={"n": {"$gte": DELETED_FROM}})
    shelves = chromadb.HttpClient(host="127.0.0.1", port=port, tenant="kept", database="shelves")
    shelves.create_collection("other", embedding_function=None).upsert(ids=["a"], embeddings=[[1.0, 2.0]])
    client.create_collection("gone", embedding_function=None)
    client.delete_collection("gone")
    url = f"http://127.0.0.1:{port}/api/v2/tenants/default_tenant/databases/default_database/collections"
    body = {"ids": ["keyed"], "embeddings": [[9.0, 9.0, 9.0]]}
    requests.post(
        f"{url}/{kept.id}/upsert", json=body, headers={"Idempotency-Key": KEY}, timeout=30
    ).raise_for_status()
    status: dict[str, Any] = json.loads(_run("status", "--data", str(data), "--json"))
    away = next(node for node in status["nodes"] if node["id"] != status["leader"])
    os.kill(away["pid"], signal.SIGKILL)
    kept.upsert(ids=["late"], embeddings=[[5.0, 5.0, 5.0]], documents=["while one was away"])


def _vector(number: int) -> Sequence[float]:
    return [float(number), 1.0, -number / 7]


if __name__ == "__main__":
    make(Path(sys.argv[1]))
