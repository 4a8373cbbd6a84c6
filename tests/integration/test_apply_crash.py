"""Kill -9 at random moments while a log is applied: the end is the same as without the kills.

The child process (this file run as a script) is machine, engine, store and applier over a log that
is read from a file; only Raft is replaced, by that file. It writes a line whenever a call to Chroma
begins, and is killed some milliseconds after a randomly chosen one.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgpack
import numpy as np
import pytest

from cluster.apply.applier import Applier
from cluster.apply.store import Store
from cluster.chroma.embedded import EmbeddedEngine
from cluster.chroma.interface import Get, Query
from cluster.chroma.isolated import IsolatedEngine
from cluster.chroma.local_ids import LOCAL_PREFIX
from cluster.raft.interface import Entry, Position, RaftStatus
from cluster.state.commands import (
    Command,
    CreateCollection,
    CreateDatabase,
    CreateTenant,
    DeleteCollection,
    DeleteDatabase,
    DeleteRecords,
    Proposal,
    UpdateCollection,
    WriteRecords,
    encode_group,
    encode_proposal,
)
from cluster.state.machine import Machine

if TYPE_CHECKING:
    from concurrent.futures import Future

    from cluster.errors import Fault

T, D = "default_tenant", "default_database"
DIMENSION = 12
KILLS = 5
DEADLINE_S = 120
ENGINES: dict[str, type[EmbeddedEngine | IsolatedEngine]] = {
    "embedded": EmbeddedEngine,
    "isolated": IsolatedEngine,
}


class FileLog:
    """A Raft whose log is complete from the start; commits become visible in random portions."""

    def __init__(self, payloads: list[bytes], rng: random.Random) -> None:
        self._payloads = payloads
        self._rng = rng
        self._visible = 0
        self.finished = threading.Event()

    def status(self) -> RaftStatus:
        return RaftStatus("n", "leader", 1, "n", 1, len(self._payloads), self._visible, 0.0)

    def wait_commit(self, after: int, timeout_s: float) -> int:
        if after >= len(self._payloads):
            self.finished.wait(timeout_s)
        self._visible = min(len(self._payloads), max(self._visible, after) + self._rng.randint(1, 8))
        return self._visible

    def entries(self, start: int, max_bytes: int) -> list[Entry]:
        return [Entry(index, 1, self._payloads[index - 1]) for index in range(start, self._visible + 1)]

    def set_applied(self, index: int) -> None:
        if index >= len(self._payloads):
            self.finished.set()

    def start(self) -> None: ...
    def stop(self) -> None: ...
    def transfer_leadership(self, to: str | None = None) -> Future[None]:
        raise NotImplementedError

    def fail(self, reason: str) -> None: ...

    def propose(self, payload: bytes) -> Future[Position]:
        raise NotImplementedError

    def read_index(self) -> Future[int]:
        raise NotImplementedError


class Writer:
    """Makes up a log: all kinds of commands, refused and repeated ones too."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.vectors = np.random.default_rng(seed)
        self.entries: list[list[Proposal]] = [[]]
        self.requests = 0
        self.next_id = 0
        self.collections: dict[str, str] = {}

    def propose(self, command: Command) -> None:
        self.requests += 1
        proposal = Proposal(f"q{self.requests}", b"digest", command)
        self.entries[-1].append(proposal)
        if self.rng.random() < 0.05:  # a client's retry, applied already
            self.entries[-1].append(proposal)
        if self.rng.random() < 0.6:
            self.entries.append([])

    def create(self, name: str, get_or_create: bool = False) -> None:
        number = len(self.collections)
        collection_id = f"00000000-0000-4000-8000-{number:012d}"
        self.collections[name] = collection_id
        configuration = json.dumps({"hnsw": {"space": "l2"}})
        self.propose(
            CreateCollection(T, D, name, collection_id, get_or_create, {"n": number}, configuration, None)
        )

    def write(self, kind: Any, collection_id: str, ids: list[str], dimension: int = DIMENSION) -> None:
        rows = [row.tobytes() for row in self.vectors.random((len(ids), dimension), dtype=np.float32)]
        embeddings: Any = tuple(rows)
        if kind == "update":
            embeddings = tuple(row if self.rng.random() < 0.5 else None for row in rows)
        salt = self.rng.randrange(1000)
        metadatas = tuple({"k": self.rng.randrange(20), "s": f"v{salt}", "f": salt / 7} for _ in ids)
        documents = tuple(f"text {name} number {salt}" for name in ids)
        command = WriteRecords(
            kind, collection_id, tuple(ids), dimension, embeddings, metadatas, documents, None
        )
        self.propose(command)

    def some_ids(self, count: int) -> list[str]:
        return [f"id{n}" for n in sorted(self.rng.sample(range(self.next_id), min(count, self.next_id)))]

    def fresh_ids(self, count: int) -> list[str]:
        self.next_id += count
        return [f"id{n}" for n in range(self.next_id - count, self.next_id)]

    def log(self) -> list[bytes]:
        self.propose(CreateTenant("others"))
        self.propose(CreateDatabase("others", "their_database", "11111111-0000-4000-8000-000000000000"))
        self.create("first")
        self.create("second")
        first, second = self.collections["first"], self.collections["second"]
        for round_number in range(36):
            home = first if self.rng.random() < 0.75 else second
            self.write("add", home, self.fresh_ids(self.rng.randint(20, 160)))
            for _ in range(self.rng.randint(1, 3)):
                kind = self.rng.choice(["add", "upsert", "upsert", "update"])
                self.write(kind, home, self.some_ids(self.rng.randint(1, 60)))
            if self.rng.random() < 0.3:
                self.propose(DeleteRecords(home, tuple(self.some_ids(15)), None, None, None))
            if self.rng.random() < 0.4:
                where = json.dumps({"k": {"$lt": self.rng.randint(1, 4)}})
                limit = self.rng.choice([None, 7, 40])
                self.propose(DeleteRecords(home, None, where, None, limit))
            if self.rng.random() < 0.15:
                self.write("add", first, self.fresh_ids(3), dimension=DIMENSION + 1)  # refused
            if round_number % 9 == 4:
                self.propose(
                    UpdateCollection(second, f"renamed{round_number}", {"round": round_number}, None)
                )
                self.create(f"short-lived{round_number}")
                gone = self.collections[f"short-lived{round_number}"]
                self.write("upsert", gone, self.fresh_ids(30))
                self.propose(DeleteCollection(T, D, f"short-lived{round_number}"))
                self.create(f"short-lived{round_number}", get_or_create=True)
        self.propose(CreateDatabase(T, "passing", "22222222-0000-4000-8000-000000000000"))
        self.propose(DeleteDatabase(T, "passing"))
        groups = [group for group in self.entries if group]
        return [
            encode_group(1_000 + at, [encode_proposal(item) for item in group])
            for at, group in enumerate(groups)
        ]


def open_node(
    directory: Path, kind: str = "embedded"
) -> tuple[Store, EmbeddedEngine | IsolatedEngine, Machine]:
    store = Store(directory / "state.sqlite")
    machine = Machine.load(store.items(but=LOCAL_PREFIX))
    return store, ENGINES[kind](directory / "chroma", store.items(LOCAL_PREFIX)), machine


def apply_log(directory: Path, log_file: Path, seed: int, kind: str) -> None:
    """The child: apply what is left of the log, telling of every call that begins."""
    raft = FileLog(msgpack.unpackb(log_file.read_bytes()), random.Random(seed))
    store, engine, machine = open_node(directory, kind)
    apply = engine.apply

    def telling(call: Any) -> Any:
        print(call.index, flush=True)
        return apply(call)

    engine.apply = telling  # type: ignore[method-assign]
    faults: list[Fault] = []
    applier = Applier(raft, machine, engine, store, faults.append)
    applier.start()
    raft_length = raft.status().last_index
    while applier.applied_index < raft_length:
        assert not faults, faults[0].message
        time.sleep(0.002)
    applier.stop()
    engine.close()
    store.close()


def run_child(directory: Path, log_file: Path, seed: int, kind: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, __file__, str(directory), str(log_file), str(seed), kind],
        stdout=subprocess.PIPE,
        text=True,
    )


def finish(child: subprocess.Popen[str]) -> None:
    assert child.stdout is not None
    with child:
        child.stdout.read()
    assert child.returncode == 0


def kill_in_the_middle(child: subprocess.Popen[str], rng: random.Random) -> bool:
    """Kill -9 some milliseconds after a random call began; False if it had ended before."""
    assert child.stdout is not None
    for _ in range(rng.randint(2, 26)):
        if not child.stdout.readline():
            break
    moment = time.monotonic() + rng.random() * 0.03
    while time.monotonic() < moment and child.poll() is None:
        pass
    child.send_signal(signal.SIGKILL)
    code = child.wait(DEADLINE_S)
    child.stdout.close()
    assert code in (0, -signal.SIGKILL)
    return code != 0


def contents(directory: Path) -> dict[str, Any]:
    """Everything that must be equal: the machine's whole state and every record, bit for bit."""
    store, engine, machine = open_node(directory)
    state: dict[str, Any] = {"machine": machine.dump(), "databases": [], "collections": {}}
    for collection_id in engine.collection_ids():
        found = engine.get(collection_id, Get(include=["embeddings", "metadatas", "documents"]))
        vectors = np.array(found.embeddings or [], dtype=np.float32)
        rows = sorted(
            (name, vector.tobytes(), json.dumps(metadata, sort_keys=True), document)
            for name, vector, metadata, document in zip(
                found.ids, vectors, found.metadatas or [], found.documents or [], strict=True
            )
        )
        rendered = engine.collection(collection_id)
        state["collections"][collection_id] = (rendered["name"], rendered["metadata"], rows)
        assert engine.count(collection_id) == len(rows)
        if len(rows):
            hits = engine.query(collection_id, Query(vectors, n_results=1, include=[]))
            same = sum(hit[:1] == [name] for hit, name in zip(hits.ids, found.ids, strict=True))
            # The graph is approximate; a record that it had lost would have failed the get above.
            assert same >= 0.98 * len(rows)
    engine.close()
    store.close()
    return state


@pytest.mark.slow
@pytest.mark.parametrize(("seed", "kind"), [(1, "isolated"), (2, "embedded"), (3, "isolated")])
def test_killed_at_random_moments_ends_like_never_killed(tmp_path: Path, seed: int, kind: str) -> None:
    log_file = tmp_path / "log"
    log_file.write_bytes(msgpack.packb(Writer(seed).log()))
    calm = run_child(tmp_path / "calm", log_file, seed, kind)
    rng = random.Random(seed)
    kills = 0
    for attempt in range(KILLS):
        kills += kill_in_the_middle(run_child(tmp_path / "killed", log_file, seed + attempt, kind), rng)
    finish(run_child(tmp_path / "killed", log_file, seed + 100, kind))
    finish(calm)
    assert kills >= 1, "the log was over before the first kill"
    assert contents(tmp_path / "killed") == contents(tmp_path / "calm")


if __name__ == "__main__":
    apply_log(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), sys.argv[4])
    sys.stdout.flush()
    os._exit(0)
