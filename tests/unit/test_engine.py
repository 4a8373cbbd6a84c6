"""The engine over a real embedded Chroma: idempotent calls, refusals that change nothing, reads."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from cluster.chroma.embedded import EmbeddedEngine
from cluster.chroma.interface import Get, Query
from cluster.chroma.local_ids import LOCAL_PREFIX
from cluster.errors import ClusterError, Fault, Refusal, Unavailable
from cluster.state.catalog import Change
from cluster.state.commands import (
    Command,
    CreateCollection,
    CreateDatabase,
    CreateTenant,
    DeleteCollection,
    DeleteDatabase,
    DeleteRecords,
    Reset,
    UpdateCollection,
    UpdateTenant,
    WriteRecords,
)
from cluster.state.work import Call, Resolve, Target

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

T, D = "default_tenant", "default_database"
C1 = "00000000-0000-4000-8000-000000000001"
C2 = "00000000-0000-4000-8000-000000000002"


def create(name: str, collection_id: str, metadata: dict[str, Any] | None = None) -> CreateCollection:
    return CreateCollection(T, D, name, collection_id, False, metadata, None, None)


def write(
    kind: Any,
    ids: list[str],
    *,
    collection_id: str = C1,
    vectors: Any = None,
    metadatas: Any = None,
    documents: Any = None,
    dimension: int = 3,
) -> WriteRecords:
    if vectors is None:
        vectors = [[float(len(name)), float(ord(name[-1])), 1.0] for name in ids]
    packed = tuple(None if row is None else np.array(row, dtype="<f4").tobytes() for row in vectors)
    return WriteRecords(kind, collection_id, tuple(ids), dimension, packed, metadatas, documents, None)


def call(command: Command, *, dropped: tuple[str, ...] = (), collection_id: str = C1) -> Call:
    about = isinstance(command, (WriteRecords, DeleteRecords, UpdateCollection, DeleteCollection))
    return Call(command, Target(T, D, "first", collection_id) if about else None, 7, dropped)


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[EmbeddedEngine]:
    opened = EmbeddedEngine(tmp_path / "chroma")
    yield opened
    opened.close()


def check_where(engine: EmbeddedEngine, where: str | None, where_document: str | None) -> None:
    """Let Chroma judge a filter without reading records."""
    engine.get(C1, Get([], where, where_document, limit=0, include=()))


def everything(engine: EmbeddedEngine, collection_id: str = C1) -> list[Any]:
    found = engine.get(collection_id, Get(include=["embeddings", "metadatas", "documents", "uris"]))
    return sorted(
        zip(found.ids, found.embeddings or [], found.metadatas or [], found.documents or [], strict=True)
    )


def test_what_is_written_is_read_back_bit_for_bit(engine: EmbeddedEngine) -> None:
    engine.apply(call(create("first", C1)))
    row = np.array([0.1, 1e-30, 3e38], dtype=np.float32)
    metadata = {"s": "x", "i": 2**53, "f": 0.5, "b": True, "l": ["a", "b"]}
    engine.apply(call(write("add", ["a"], vectors=[row], metadatas=(metadata,), documents=("text",))))
    found = engine.get(C1, Get(["a"], include=["embeddings", "metadatas", "documents"]))
    assert np.array(found.embeddings, dtype=np.float32).tobytes() == row.tobytes()
    assert found.metadatas == [metadata]
    assert found.documents == ["text"]
    assert found.uris is None
    nearest = engine.query(C1, Query(row[None, :], n_results=1, include=["distances"]))
    assert nearest.ids == [["a"]]
    assert nearest.metadatas is None


@pytest.mark.parametrize("kind", ["add", "upsert", "update"])
def test_a_write_repeated_right_after_itself_changes_nothing(engine: EmbeddedEngine, kind: str) -> None:
    engine.apply(call(create("first", C1)))
    engine.apply(call(write("add", ["a", "b"], metadatas=({"k": 1}, None), documents=("one", None))))
    vectors = [[9, 9, 9], None if kind == "update" else [8, 8, 8]]
    command = write(kind, ["a", "c"], vectors=vectors, metadatas=({"k": 2}, {"k": 3}), documents=("x", "y"))
    engine.apply(call(command))
    before = everything(engine)
    engine.apply(call(command))
    assert everything(engine) == before


def test_an_update_changes_vectors_only_where_it_has_one(engine: EmbeddedEngine) -> None:
    engine.apply(call(create("first", C1)))
    engine.apply(call(write("add", ["a", "b"], vectors=[[1, 1, 1], [2, 2, 2]])))
    engine.apply(call(write("update", ["a", "b"], vectors=[None, [5, 5, 5]], metadatas=({"k": 1}, None))))
    assert [(name, vector) for name, vector, *_ in everything(engine)] == [
        ("a", [1, 1, 1]),
        ("b", [5, 5, 5]),
    ]
    engine.apply(call(write("update", ["a"], vectors=[None], metadatas=({"k": None, "m": 2},))))
    assert engine.get(C1, Get(["a"])).metadatas == [{"m": 2}]


def test_catalogue_calls_repeated_right_after_themselves_are_done(engine: EmbeddedEngine) -> None:
    calls = [
        call(CreateTenant("others")),
        call(UpdateTenant("others", "resource")),
        call(CreateDatabase("others", "theirs", "x")),
        call(create("first", C1, {"a": 1})),
        call(UpdateCollection(C1, "renamed", {"b": 2}, json.dumps({"hnsw": {"ef_search": 33}}))),
        call(DeleteCollection(T, D, "renamed"), dropped=(C1,)),
        call(DeleteDatabase("others", "theirs")),
        call(DeleteDatabase("others", "theirs")),
        call(Reset()),
    ]
    for each in calls:
        assert engine.apply(each) == engine.apply(each) or isinstance(each.command, Reset)
    assert engine.collection_ids() == []


def test_a_collection_is_rendered_under_the_clusters_id(engine: EmbeddedEngine) -> None:
    engine.apply(call(create("second", C2)))
    engine.apply(call(create("first", C1, {"a": 1.5})))
    engine.apply(call(write("add", ["a"])))
    rendered = engine.collection(C1)
    assert rendered["id"] == C1
    assert {key: rendered[key] for key in ("name", "metadata", "dimension", "tenant", "database")} == {
        "name": "first",
        "metadata": {"a": 1.5},
        "dimension": 3,
        "tenant": T,
        "database": D,
    }
    assert list(rendered)[-2:] == ["log_position", "version"]
    assert rendered["configuration_json"]["hnsw"]["space"] == "l2"
    assert set(rendered["schema"]) == {"defaults", "keys"}
    assert [item["id"] for item in engine.collections(T, D)] == [C1, C2]
    assert engine.collections(T, "nowhere") == []


def test_the_id_map_survives_a_crash_between_create_and_marker(tmp_path: Path) -> None:
    engine = EmbeddedEngine(tmp_path)
    [change] = engine.apply(call(create("first", C1)))
    engine.close()
    # Chroma has the collection, the store has not: the step is repeated.
    engine = EmbeddedEngine(tmp_path)
    assert engine.apply(call(create("first", C1))) == (change,)
    engine.apply(call(write("add", ["a"])))
    engine.close()
    assert change.value is not None
    engine = EmbeddedEngine(tmp_path, [(change.key, change.value)])
    assert engine.count(C1) == 1
    engine.close()


def test_a_collection_that_this_node_lost_is_a_fault_not_an_answer(engine: EmbeddedEngine) -> None:
    with pytest.raises(Fault, match="id map is incomplete"):
        engine.apply(call(write("add", ["a"])))
    engine.apply(call(create("first", C1)))
    engine._bindings.delete_collection("first", T, D)  # type: ignore[union-attr]
    with pytest.raises(Fault, match="does not exist"):
        engine.apply(call(write("add", ["a"])))
    with pytest.raises(Fault, match="does not exist"):
        engine.resolve(Resolve(DeleteRecords(C1, None, '{"a": 1}', None, None), Target(T, D, "first", C1), 7))


@pytest.mark.parametrize(
    ("command", "status", "error", "message"),
    [
        (
            write("add", ["a", "b"], vectors=[[1, 1, 1], [1, float("nan"), 1]]),
            400,
            "InvalidArgumentError",
            "Validation error: embeddings: Embeddings must not contain NaN or Infinity values",
        ),
        (
            write(
                "upsert", ["a"], metadatas=({"s": {"#type": "sparse_vector", "indices": [], "values": []}},)
            ),
            501,
            "ChromaError",
            "Unimplemented: Sparse vector is not supported for local chroma: s",
        ),
        (
            write("upsert", [f"n{n}" for n in range(400)], metadatas=({"k": 1},) * 399 + ({"l": [1, "x"]},)),
            400,
            "InvalidArgumentError",
            "Metadata value of l is not a string",
        ),
        (
            write("add", ["a"], metadatas=({"x": None},)),
            400,
            "InvalidArgumentError",
            "Metadata value of x is not a string",
        ),
        (
            write("add", ["a", "b"], documents=("only one",)),
            400,
            "InvalidArgumentError",
            "Inconsistent number of IDs",
        ),
    ],
)
def test_a_refused_write_has_changed_nothing(
    engine: EmbeddedEngine, command: WriteRecords, status: int, error: str, message: str
) -> None:
    engine.apply(call(create("first", C1)))
    with pytest.raises(Refusal) as refused:
        engine.apply(call(command))
    assert (refused.value.status, refused.value.error) == (status, error)
    assert refused.value.message.startswith(message)
    assert engine.collection(C1)["dimension"] is None
    assert engine.count(C1) == 0


def test_a_wrong_dimension_is_refused_in_chromas_words(engine: EmbeddedEngine) -> None:
    engine.apply(call(create("first", C1)))
    engine.apply(call(write("add", ["a"])))
    with pytest.raises(Refusal, match="Collection expecting embedding with dimension of 3, got 2"):
        engine.apply(call(write("add", ["b"], vectors=[[1, 2]], dimension=2)))
    assert engine.count(C1) == 1


def test_ids_of_a_delete_by_filter_come_in_order_of_insertion(engine: EmbeddedEngine) -> None:
    engine.apply(call(create("first", C1)))
    for names in (["z", "y", "b"], ["a", "x"]):
        engine.apply(call(write("upsert", names, metadatas=tuple({"k": 1} for _ in names))))
    engine.apply(call(write("upsert", ["y"], metadatas=({"k": 1},))))
    target = Target(T, D, "first", C1)
    found = engine.resolve(Resolve(DeleteRecords(C1, None, '{"k": 1}', None, 4), target, 7))
    assert found == ("z", "y", "b", "a")
    engine.apply(call(DeleteRecords(C1, found, None, None, None)))
    engine.apply(call(DeleteRecords(C1, found, None, None, None)))
    assert engine.get(C1).ids == ["x"]
    with pytest.raises(Refusal, match="Invalid where clause"):
        engine.resolve(Resolve(DeleteRecords(C1, None, '{"k": {"$gt": "x"}}', None, 4), target, 7))


def test_a_deleted_database_takes_its_collections_along(engine: EmbeddedEngine) -> None:
    engine.apply(call(CreateDatabase(T, "theirs", "x")))
    engine.apply(call(CreateCollection(T, "theirs", "first", C1, False, None, None, None)))
    changes = engine.apply(call(DeleteDatabase(T, "theirs"), dropped=(C1,)))
    assert changes == (Change(LOCAL_PREFIX + C1, None),)
    with pytest.raises(Refusal, match=f"Collection \\[{C1}\\] does not exist"):
        engine.count(C1)
    engine.apply(call(CreateDatabase(T, "theirs", "x")))
    assert engine.collections(T, "theirs") == []


def test_reset_leaves_a_fresh_chroma(engine: EmbeddedEngine) -> None:
    engine.apply(call(create("first", C1)))
    engine.apply(call(write("add", ["a"])))
    assert engine.apply(call(Reset(), dropped=(C1,))) == (Change(LOCAL_PREFIX + C1, None),)
    assert (engine.collections(T, D), engine.documents()) == ([], 0)
    engine.apply(call(create("first", C1)))
    engine.apply(call(write("add", ["b"], vectors=[[1, 2]], dimension=2)))
    assert engine.get(C1).ids == ["b"]


def test_documents_counts_all_collections_as_they_change(engine: EmbeddedEngine) -> None:
    assert engine.documents() == 0
    engine.apply(call(create("first", C1)))
    engine.apply(call(create("second", C2)))
    engine.apply(call(write("add", ["a", "b"])))
    engine.apply(call(write("add", ["c"], collection_id=C2), collection_id=C2))
    assert engine.documents() == 3
    engine.apply(call(DeleteRecords(C1, ("a",), None, None, None)))
    assert engine.documents() == 2
    engine.apply(call(DeleteCollection(T, D, "second"), dropped=(C2,), collection_id=C2))
    assert engine.documents() == 1


def test_reads_fail_with_chromas_status_and_words(engine: EmbeddedEngine) -> None:
    engine.apply(call(create("first", C1)))
    engine.apply(call(write("add", ["a"])))
    failures: list[tuple[Any, int, str]] = [
        (lambda: engine.get("nowhere"), 404, "Collection [nowhere] does not exist."),
        (lambda: engine.get(C1, Get(where='{"a": {"$gt": "x"}}')), 400, "Invalid where clause"),
        (lambda: check_where(engine, None, '{"$regex": "("}'), 400, "Regex syntax errror"),
        (
            lambda: engine.query(C1, Query([[1.0]])),
            400,
            "Collection expecting embedding with dimension of 3, got 1",
        ),
        (lambda: engine.get(C1, Get(limit=2**40)), 400, "out of range"),
    ]
    for read, status, words in failures:
        with pytest.raises(ClusterError) as failed:
            read()
        assert failed.value.status == status
        assert failed.value.message.startswith(words)
    check_where(engine, '{"a": {"$gt": 1}}', None)


def test_a_closed_engine_refuses_politely(engine: EmbeddedEngine) -> None:
    engine.apply(call(create("first", C1)))
    engine.close()
    with pytest.raises(Unavailable, match="stopping"):
        engine.count(C1)


def test_a_directory_that_cannot_be_used_is_a_fault(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a directory")
    with pytest.raises(Fault, match="failed to open"):
        EmbeddedEngine(tmp_path / "file" / "chroma")
