"""The engine's directory in the hands of others: plain Chroma, restarts, a full disk, many readers."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from cluster.chroma.embedded import EmbeddedEngine
from cluster.chroma.interface import Get, Query
from cluster.state.commands import (
    Command,
    CreateCollection,
    CreateDatabase,
    CreateTenant,
    DeleteRecords,
    WriteRecords,
)
from cluster.state.work import Call, Target

if TYPE_CHECKING:
    from pathlib import Path

T, D = "default_tenant", "default_database"
C1 = "00000000-0000-4000-8000-000000000001"
DIMENSION = 16

PLAIN_CHROMA = """
import json, sys
import chromadb
from chromadb.config import Settings
client = chromadb.PersistentClient(sys.argv[1], Settings(anonymized_telemetry=False))
theirs = chromadb.PersistentClient(
    sys.argv[1], Settings(anonymized_telemetry=False), tenant="others", database="theirs"
)
first = client.get_collection("first")
found = first.get(include=["embeddings", "documents", "metadatas"])
print(json.dumps({
    "collections": [[c.name, c.metadata] for c in client.list_collections()],
    "theirs": [c.name for c in theirs.list_collections()],
    "count": first.count(),
    "ids": found["ids"],
    "vectors": found["embeddings"].tolist(),
    "documents": found["documents"],
    "metadatas": found["metadatas"],
    "nearest": first.query(query_embeddings=[found["embeddings"][0].tolist()], n_results=1)["ids"],
}))
"""

#: Writes until the disk (a limit on the size of files) is full; tells what it was told.
FILLS_THE_DISK = """
import json, os, resource, signal, sys
from pathlib import Path
import numpy as np
from cluster.state.commands import CreateCollection, WriteRecords
from cluster.chroma.embedded import EmbeddedEngine
from cluster.errors import Fault
from cluster.state.work import Call, Target
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
directory, collection_id = Path(sys.argv[1]), sys.argv[2]
engine = EmbeddedEngine(directory)
home = ("default_tenant", "default_database", "first", collection_id)
create = CreateCollection(*home, False, None, None, None)
[change] = engine.apply(Call(create, None, 1))
size = (directory / "chroma.sqlite3").stat().st_size
resource.setrlimit(resource.RLIMIT_FSIZE, (size + 300_000, resource.RLIM_INFINITY))
vectors = np.random.default_rng(0)
done = 0
while done < 400:
    ids = tuple(f"{done}-{n}" for n in range(20))
    rows = tuple(row.tobytes() for row in vectors.random((20, 16), dtype=np.float32))
    try:
        records = WriteRecords("add", collection_id, ids, 16, rows, None, ids, None)
        engine.apply(Call(records, Target(*home), done + 2))
    except Fault as fault:
        print(json.dumps([done, fault.message, change.value.decode()]), flush=True)
        os._exit(0)
    done += 1
os._exit(1)
"""


def run(script: str, *arguments: str) -> Any:
    command = [sys.executable, "-c", script, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def call(command: Command) -> Call:
    about = isinstance(command, (WriteRecords, DeleteRecords))
    return Call(command, Target(T, D, "first", C1) if about else None, 1)


def write(kind: Any, ids: list[str], rows: Any) -> Call:
    packed = tuple(row.tobytes() for row in rows)
    texts = tuple(f"text of {name}" for name in ids)
    metadatas = tuple({"n": len(name), "l": ["a", name]} for name in ids)
    return call(WriteRecords(kind, C1, tuple(ids), DIMENSION, packed, metadatas, texts, None))


def create(engine: EmbeddedEngine) -> list[tuple[str, bytes]]:
    made = CreateCollection(T, D, "first", C1, False, {"about": "test"}, None, None)
    [change] = engine.apply(call(made))
    assert change.value is not None
    return [(change.key, change.value)]


@pytest.mark.slow
def test_plain_chroma_opens_the_directory(tmp_path: Path) -> None:
    engine = EmbeddedEngine(tmp_path)
    create(engine)
    rows = np.random.default_rng(1).random((1500, DIMENSION), dtype=np.float32)
    ids = [f"id{n}" for n in range(1500)]
    engine.apply(write("add", ids, rows))
    engine.apply(call(CreateTenant("others")))
    engine.apply(call(CreateDatabase("others", "theirs", "x")))
    theirs = CreateCollection("others", "theirs", "second", C1[:-1] + "2", False, None, None, None)
    engine.apply(call(theirs))
    engine.close()
    seen = run(PLAIN_CHROMA, str(tmp_path))
    assert seen["collections"] == [["first", {"about": "test"}]]
    assert seen["theirs"] == ["second"]
    assert (seen["count"], seen["ids"]) == (1500, ids)
    assert np.array(seen["vectors"], dtype=np.float32).tobytes() == rows.tobytes()
    assert seen["documents"][7] == "text of id7"
    assert seen["metadatas"][7] == {"n": 3, "l": ["a", "id7"]}
    assert seen["nearest"] == [["id0"]]


@pytest.mark.slow
@pytest.mark.parametrize("batch", [5000, 173])
def test_nothing_is_lost_from_the_index_by_a_restart(tmp_path: Path, batch: int) -> None:
    """Chroma's issue 7090 reports index loss beyond its sync threshold of 1,000 records."""
    rows = np.random.default_rng(2).random((5000, DIMENSION), dtype=np.float32)
    ids = [f"id{n}" for n in range(5000)]
    engine = EmbeddedEngine(tmp_path)
    local = create(engine)
    for start in range(0, 5000, batch):
        engine.apply(write("add", ids[start : start + batch], rows[start : start + batch]))
    for _ in range(2):
        engine.close()
        engine = EmbeddedEngine(tmp_path, local)
        assert engine.count(C1) == 5000
        found = engine.get(C1, Get(include=["embeddings"]))
        assert found.ids == ids
        assert np.array(found.embeddings, dtype=np.float32).tobytes() == rows.tobytes()
        hits = engine.query(C1, Query(rows[::10], n_results=1, include=[]))
        assert sum(hit == [name] for hit, name in zip(hits.ids, ids[::10], strict=True)) >= 495
    engine.close()


@pytest.mark.slow
def test_a_full_disk_is_a_fault_and_the_write_can_be_repeated(tmp_path: Path) -> None:
    done, message, local = run(FILLS_THE_DISK, str(tmp_path), C1)
    assert "This node's Chroma failed to apply WriteRecords" in message
    assert "no entry was skipped" in message
    engine = EmbeddedEngine(tmp_path, [("l/" + C1, local.encode())])
    vectors = np.random.default_rng(0)
    for number in range(done + 2):  # those that were applied, again, and the one that failed
        rows = vectors.random((20, DIMENSION), dtype=np.float32)
        engine.apply(write("add", [f"{number}-{n}" for n in range(20)], rows))
    found = engine.get(C1, Get(include=["embeddings"]))
    assert len(set(found.ids)) == len(found.ids) == 20 * (done + 2)
    assert len(found.embeddings or []) == len(found.ids)
    engine.close()


@pytest.mark.slow
def test_many_readers_beside_a_writer_see_no_errors(tmp_path: Path) -> None:
    engine = EmbeddedEngine(tmp_path)
    create(engine)
    vectors = np.random.default_rng(3)
    names = [f"id{n}" for n in range(1200)]
    engine.apply(write("add", names, vectors.random((1200, DIMENSION), dtype=np.float32)))
    stop = threading.Event()
    failures: list[BaseException] = []
    reads = [0] * 6

    def read(number: int) -> None:
        own = np.random.default_rng(number)
        try:
            while not stop.is_set():
                some = [names[n] for n in own.integers(0, 1200, 5)]
                engine.get(C1, Get(some, include=["embeddings", "documents"]))
                engine.get(C1, Get(limit=50, offset=int(own.integers(0, 900)), include=["embeddings"]))
                engine.query(C1, Query(own.random((1, DIMENSION), dtype=np.float32), where='{"n": 5}'))
                engine.count(C1)
                engine.collection(C1)
                reads[number] += 1
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=read, args=(number,)) for number in range(len(reads))]
    for thread in threads:
        thread.start()
    for turn in range(60):
        some = [names[n] for n in np.random.default_rng(turn).permutation(1200)[:30]]
        if turn % 3 == 2:
            engine.apply(call(DeleteRecords(C1, tuple(some), None, None, None)))
        else:
            engine.apply(write("upsert", some, vectors.random((30, DIMENSION), dtype=np.float32)))
    stop.set()
    for thread in threads:
        thread.join()
    assert failures == []
    assert sum(reads) > 0
    engine.close()
