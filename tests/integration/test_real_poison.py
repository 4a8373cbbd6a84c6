"""Writes that really make Chroma fail, past the bounds that refuse them: only their collection suffers.

A node's own applier, machine, store and engine process, a log in memory, and the deliberation of a cluster of
one. What a client may send is bounded well below these (`cluster.api.limits`); that those bounds have no gap
is not what the containment relies on.
"""

from __future__ import annotations

import json
import struct
import time
from concurrent.futures import Future
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from cluster.apply.agreement import encode_agreement
from cluster.apply.applier import Applier
from cluster.apply.deliberation import Deliberation
from cluster.apply.store import Store
from cluster.chroma.interface import Get
from cluster.chroma.isolated import IsolatedEngine
from cluster.chroma.local_ids import LOCAL_PREFIX
from cluster.chroma.poison import VARIABLE
from cluster.raft.interface import Position
from cluster.state.commands import CreateCollection, DeleteCollection, WriteRecords
from cluster.state.machine import Machine
from cluster.state.work import MAX_BATCH_SIZE
from tests.unit.test_applier import MemoryLog

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from cluster.errors import Fault
    from cluster.state.catalog import Outcome
    from cluster.state.commands import Command, RefuseEntry, WriteKind

pytestmark = pytest.mark.slow

BAD, GOOD, ANEW = (f"00000000-0000-4000-8000-00000000000{at}" for at in range(1, 4))
DEADLINE_S = 90


class Node:
    """A cluster of one with a real Chroma."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.log = MemoryLog()
        self.faults: list[Fault] = []
        self.open()

    def open(self) -> None:
        self.store = Store(self.directory / "state.sqlite")
        self.engine = IsolatedEngine(self.directory / "chroma", self.store.items(LOCAL_PREFIX))
        machine = Machine.load(self.store.items(but=LOCAL_PREFIX))
        self.applier = Applier(
            self.log, machine, self.engine, self.store, self.faults.append, self.engine.hide
        )
        self.deliberation = Deliberation(
            self.log, self.applier.impasse, (), self._propose, lambda why: None, time.monotonic
        )
        self.applier.start()

    def _propose(self, agreement: RefuseEntry) -> Future[Position]:
        self.log.append_payload(encode_agreement(1, agreement))
        future: Future[Position] = Future()
        future.set_result(Position(len(self.log.log), 1))
        return future

    def close(self) -> None:
        self.applier.stop()
        self.engine.close()
        self.store.close()

    def write(self, command: Command) -> Outcome:
        decided = self.applier.expect(f"q{len(self.log.log)}-0")
        self.log.append(command)
        deadline = time.monotonic() + DEADLINE_S
        while not decided.done():
            assert time.monotonic() < deadline, self.applier.impasse.at
            assert not self.faults, self.faults
            question = self.deliberation.question()
            if question is not None:
                self.deliberation.conclude(question, {})
            time.sleep(0.02)
        return decided.result()[0]

    def ids(self, collection_id: str) -> set[str]:
        return set(self.engine.get(collection_id, Get(include=())).ids)


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    made = Node(tmp_path)
    yield made
    made.close()


def name_of(collection_id: str) -> str:
    return f"collection-{collection_id[-1]}"


def create(collection_id: str, configuration: str | None = None) -> CreateCollection:
    here = ("default_tenant", "default_database")
    return CreateCollection(*here, name_of(collection_id), collection_id, False, None, configuration, None)


def add(collection_id: str, *ids: str, metadata: dict[str, object] | None = None) -> WriteRecords:
    vectors = tuple(struct.pack("<3f", 1.0, float(at), 2.0) for at in range(len(ids)))
    metadatas = None if metadata is None else tuple(metadata for _ in ids)
    return WriteRecords("add", collection_id, ids, 3, vectors, metadatas, tuple(ids), None)  # type: ignore[arg-type]


def hnsw(neighbours: int) -> str:
    return json.dumps({"hnsw": {"max_neighbors": neighbours}})


CASES = {
    "6000 values": (None, add(BAD, "x", metadata={f"k{at}": at for at in range(6000)})),
    "a list of 6000": (None, add(BAD, "x", metadata={"k": list(range(6000))})),
    "max_neighbors 0": (hnsw(0), add(BAD, "x", "y", "z")),
    "max_neighbors 100,000,000": (hnsw(100_000_000), add(BAD, "x", "y")),
}


@pytest.mark.parametrize("case", CASES)
def test_only_the_collection_of_the_write_suffers(node: Node, case: str) -> None:
    configuration, poison = CASES[case]
    assert node.write(create(GOOD)).status == 200
    assert node.write(create(BAD, configuration)).status == 200
    assert node.write(add(GOOD, "a")).status == 201
    refused = node.write(poison)
    assert refused.status == 500, refused
    assert refused.body["error"] == "ContainedWriteError", refused
    assert node.write(add(GOOD, "b")).status == 201
    assert node.ids(GOOD) == {"a", "b"}
    # Whether Chroma broke it or not, an answer comes, and the other collection does not notice.
    after = node.write(add(BAD, "later"))
    assert (after.status, after.body.get("error")) in ((201, None), (500, "CollectionSetAsideError")), after
    trouble = node.applier.trouble(BAD)
    assert trouble is None or trouble.is_aside or after.status == 201
    node.close()
    node.open()
    assert node.write(add(GOOD, "c")).status == 201
    assert node.ids(GOOD) == {"a", "b", "c"}
    # The way out that the answers name.
    assert node.write(DeleteCollection("default_tenant", "default_database", name_of(BAD))).status == 200
    anew = replace(create(ANEW), name=name_of(BAD))
    assert node.write(anew).status == 200
    assert node.write(add(ANEW, "fine")).status == 201
    assert node.ids(ANEW) == {"fine"}
    assert not node.faults


@pytest.mark.parametrize("kind", ["upsert", "update"])
def test_a_write_of_two_engine_calls_that_fails_in_the_second_leaves_no_trace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: WriteKind
) -> None:
    """Chroma's process fails on ids that begin with `poison-`; what was there before is there again."""
    gate = tmp_path / "gate"
    gate.mkdir()
    monkeypatch.setenv(VARIABLE, str(gate))
    node = Node(tmp_path)
    whole = Get(include=("embeddings", "documents", "metadatas", "uris"))
    try:
        assert node.write(create(GOOD)).status == 200
        assert node.write(add(GOOD, "7", "old", metadata={"n": 1, "tags": ["x", "y"]})).status == 201
        if kind == "update":  # one of what does not exist does nothing, so that it cannot fail
            assert node.write(add(GOOD, "poison-last")).status == 201
        (gate / "raise").touch()
        before = node.engine.get(GOOD, whole)
        ids = (*(str(at) for at in range(MAX_BATCH_SIZE + 5)), "poison-last")
        large = replace(add(GOOD, *ids, metadata={"other": True}), kind=kind)
        refused = node.write(large)
        assert (refused.status, refused.body["error"]) == (500, "ContainedWriteError"), refused
        assert "was undone: nothing was changed" in refused.body["message"]
        after = node.engine.get(GOOD, whole)
        assert sorted(after.ids) == sorted(before.ids)
        for number, record_id in enumerate(before.ids):
            at = after.ids.index(record_id)
            for one, other in (
                (before.embeddings, after.embeddings),
                (before.documents, after.documents),
                (before.metadatas, after.metadatas),
                (before.uris, after.uris),
            ):
                assert one is not None
                assert other is not None
                assert one[number] == other[at]
        assert node.write(add(GOOD, "after")).status == 201
        assert not node.faults
    finally:
        node.close()
