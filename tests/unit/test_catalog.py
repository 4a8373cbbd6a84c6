"""The catalogue answers as `chroma run` 1.5.9 does; every status and text here was seen there."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.errors import Refusal
from cluster.state.catalog import (
    DEFAULT_DATABASE,
    DEFAULT_DATABASE_ID,
    DEFAULT_TENANT,
    Catalog,
    Change,
    Collection,
    Effect,
    Outcome,
    decide,
    initial_changes,
)
from cluster.state.commands import (
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

HERE = (DEFAULT_TENANT, DEFAULT_DATABASE)
TAKEN = (
    "Database error: error returned from database: (code: 2067) UNIQUE constraint failed: "
    "collections.name, collections.database_id"
)


def initial() -> Catalog:
    """A new installation's."""
    catalog = Catalog()
    for change in initial_changes():
        catalog.put(change)
    return catalog


def apply(catalog: Catalog, command: Any) -> Effect:
    effect = decide(catalog, command)
    for change in effect.changes:
        catalog.put(change)
    return effect


def create(name: str, collection_id: str, get_or_create: bool = False, place: Any = HERE) -> CreateCollection:
    return CreateCollection(*place, name, collection_id, get_or_create, None, None, None)


def write(
    kind: Any = "add", collection_id: str = "c1", dimension: int | None = 2, **other: Any
) -> WriteRecords:
    vectors = None if dimension is None else (b"\0" * 4 * dimension,)
    base = WriteRecords(kind, collection_id, ("a",), dimension, vectors, None, None, None)
    return replace(base, **other)


@pytest.fixture
def catalog() -> Catalog:
    catalog = initial()
    for command in (CreateTenant("ten"), CreateDatabase("ten", "dbx", "d1"), create("ccc", "c1")):
        apply(catalog, command)
    apply(catalog, create("ccd", "c2"))
    return catalog


def refusal(catalog: Catalog, command: Any) -> tuple[int, str, str]:
    before = catalog.items()
    with pytest.raises(Refusal) as caught:
        decide(catalog, command)
    assert catalog.items() == before
    return caught.value.status, caught.value.error, caught.value.message


MISSING = (404, "NotFoundError", "Collection [c9] does not exist.")


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        (CreateTenant("ten"), (409, "ChromaError", "Tenant [ten] already exists")),
        (CreateTenant(DEFAULT_TENANT), (409, "ChromaError", "Tenant [default_tenant] already exists")),
        (CreateDatabase("ten", "dbx", "d9"), (409, "ChromaError", "Database [dbx] already exists")),
        (DeleteDatabase("ten", "nope"), (404, "NotFoundError", "Database [nope] not found")),
        (DeleteDatabase("nope", "dbx"), (404, "NotFoundError", "Database [dbx] not found")),
        (create("ccc", "c9"), (409, "ChromaError", "Collection [ccc] already exists")),
        (
            create("ccc", "c9", place=("ten", "nope")),
            (400, "InvalidArgumentError", "Database [nope] does not exist"),
        ),
        (
            create("ccc", "c9", True, ("nope", DEFAULT_DATABASE)),
            (400, "InvalidArgumentError", "Database [default_database] does not exist"),
        ),
        (DeleteCollection(*HERE, "nope"), (404, "NotFoundError", "Collection [nope] does not exist")),
        (DeleteCollection("ten", "dbx", "ccc"), (404, "NotFoundError", "Collection [ccc] does not exist")),
        (UpdateCollection("c9", "ccd", None, None), MISSING),
        (UpdateCollection("c9", None, None, None), MISSING),
        (UpdateCollection("c1", "ccd", {"x": 1}, None), (500, "InternalError", TAKEN)),
        (write("add", "c9"), MISSING),
        (write("upsert", "c9", ids=("",)), MISSING),
        (write("update", "c9", None), MISSING),
        (DeleteRecords("c9", ("a",), None, None, None), MISSING),
        (DeleteRecords("c9", None, "{}", None, None), MISSING),
        (DeleteRecords("c9", None, None, None, None), MISSING),
        (write(ids=("",)), (400, "InvalidArgumentError", "Empty ID, ID must have at least one character")),
        (
            write(metadatas=({"s": {"#type": "sparse_vector", "indices": [1], "values": [1.0]}},)),
            (501, "ChromaError", "Unimplemented: Sparse vector is not supported for local chroma: s"),
        ),
    ],
)
def test_refusals_have_the_words_and_status_of_chroma(catalog: Catalog, command: Any, expected: Any) -> None:
    assert refusal(catalog, command) == expected


@pytest.mark.parametrize(
    ("command", "outcome", "work"),
    [
        (CreateTenant("new"), Outcome(200, {}), True),
        (UpdateTenant("ten", "resource"), Outcome(200, {}), False),
        (UpdateTenant("nope", "resource"), Outcome(200, {}), False),
        (CreateDatabase("ten", "new", "d9"), Outcome(200, {}), True),
        (CreateDatabase("nope", "new", "d9"), Outcome(200, {}), True),
        (DeleteDatabase("ten", "dbx"), Outcome(200, {}), True),
        (create("new", "c9"), Outcome(200, {"$collection": "c9"}), True),
        (create("ccc", "c9", place=("ten", "dbx")), Outcome(200, {"$collection": "c9"}), True),
        (create("ccc", "c9", get_or_create=True), Outcome(200, {"$collection": "c1"}), False),
        (UpdateCollection("c1", "ccc", None, None), Outcome(200, {}), True),
        (UpdateCollection("c1", None, None, None), Outcome(200, {}), False),
        (DeleteCollection(*HERE, "ccc"), Outcome(200, {}), True),
        (write("add"), Outcome(201, {}), True),
        (write("upsert"), Outcome(200, {}), True),
        (write("update", dimension=None), Outcome(200, {}), True),
        (write("add", ids=(), dimension=None), Outcome(201, {}), False),
        (DeleteRecords("c1", ("a", "a", "zz"), None, None, None), Outcome(200, {"deleted": 3}), True),
        (DeleteRecords("c1", None, None, None, None), Outcome(200, {"deleted": 0}), False),
        (Reset(), Outcome(200, True), True),
    ],
)
def test_outcomes_are_those_of_chroma(catalog: Catalog, command: Any, outcome: Outcome, work: bool) -> None:
    effect = decide(catalog, command)
    assert (effect.outcome, effect.work) == (outcome, work)


@pytest.mark.parametrize("kind", ["add", "upsert", "update"])
def test_the_first_vectors_of_any_kind_fix_the_dimension(catalog: Catalog, kind: Any) -> None:
    apply(catalog, write(kind, dimension=2))
    assert catalog.require("c1").dimension == 2
    message = "Collection expecting embedding with dimension of 2, got 3"
    for later in ("add", "upsert", "update"):
        command = write(later, dimension=3, ids=("",), metadatas=({"s": {}},))
        assert refusal(catalog, command) == (400, "InvalidArgumentError", message)


def test_a_write_without_vectors_or_records_or_a_refused_one_fixes_nothing(catalog: Catalog) -> None:
    apply(catalog, write("update", dimension=None))
    apply(catalog, write("add", dimension=None, ids=(), model="m"))
    refusal(catalog, write(ids=("",)))
    assert catalog.require("c1") == Collection("c1", *HERE, "ccc")


def test_the_first_model_stays_and_another_is_refused_by_both_names(catalog: Catalog) -> None:
    apply(catalog, write(model="wordllama:1"))
    assert catalog.require("c1").model == "wordllama:1"
    status, error, message = refusal(catalog, write(model="onnx:2", dimension=3))
    assert (status, error) == (400, "InvalidArgumentError")
    assert "wordllama:1" in message
    assert "onnx:2" in message
    assert "Nothing was changed" in message
    apply(catalog, write())
    assert catalog.require("c1").model == "wordllama:1"


def test_a_pending_collection_counts_in_place_of_the_catalogues(catalog: Catalog) -> None:
    pending = replace(catalog.require("c1"), dimension=3)
    with pytest.raises(Refusal, match="dimension of 3, got 2"):
        decide(catalog, write(), pending)
    assert decide(catalog, write(collection_id="c2"), pending).work


def test_a_deleted_database_takes_its_collections_along(catalog: Catalog) -> None:
    effect = apply(catalog, DeleteDatabase(*HERE))
    assert effect.dropped == ("c1", "c2")
    assert catalog.collection("c1") is None
    assert refusal(catalog, create("ccc", "c3"))[2] == "Database [default_database] does not exist"
    apply(catalog, CreateDatabase(*HERE, "d7"))
    apply(catalog, create("ccc", "c3"))
    assert [c.collection_id for c in catalog.collections(*HERE)] == ["c3"]


def test_a_name_is_free_again_after_delete_and_rename(catalog: Catalog) -> None:
    effect = apply(catalog, UpdateCollection("c1", "renamed", None, None))
    assert effect.collection is not None
    assert effect.collection.name == "ccc"
    assert catalog.collection_named(*HERE, "ccc") is None
    apply(catalog, create("ccc", "c3"))
    assert apply(catalog, DeleteCollection(*HERE, "renamed")).dropped == ("c1",)
    apply(catalog, create("renamed", "c4"))
    assert [(c.collection_id, c.name) for c in catalog.collections(*HERE)] == [
        ("c2", "ccd"),
        ("c3", "ccc"),
        ("c4", "renamed"),
    ]


@pytest.mark.parametrize("recreated", [False, True])
def test_reset_leaves_a_new_installation(catalog: Catalog, recreated: bool) -> None:
    if recreated:
        apply(catalog, DeleteDatabase(*HERE))
        apply(catalog, CreateDatabase(*HERE, "d7"))
        apply(catalog, create("ccc", "c1"))
    effect = apply(catalog, Reset())
    assert "c1" in effect.dropped
    assert catalog.items() == initial().items()
    database = catalog.database(*HERE)
    assert database is not None
    assert database.database_id == DEFAULT_DATABASE_ID


def test_databases_are_listed_by_name(catalog: Catalog) -> None:
    apply(catalog, CreateDatabase("ten", "aaa", "d2"))
    assert [database.name for database in catalog.databases("ten")] == ["aaa", "dbx"]


def test_the_pairs_are_of_the_content_not_of_the_history(catalog: Catalog) -> None:
    other = Catalog()
    for key, value in reversed(catalog.items()):
        other.put(Change(key, value))
    assert other.items() == catalog.items()
    apply(other, UpdateCollection("c1", "renamed", None, None))
    assert other.items() != catalog.items()
    apply(other, UpdateCollection("c1", "ccc", None, None))
    assert other.items() == catalog.items()


def test_foreign_keys_are_an_error(catalog: Catalog) -> None:
    with pytest.raises(ValueError, match="x/1"):
        catalog.put(Change("x/1", b""))


@given(st.lists(st.sampled_from(["a", "b/c", "d"]), max_size=8), st.text(max_size=5))
def test_any_name_survives_the_durable_form(names: list[str], odd: str) -> None:
    catalog = initial()
    for n, name in enumerate([*dict.fromkeys(names), f"{odd}/t"]):
        apply(catalog, CreateTenant(name + "/tenant"))
        apply(catalog, CreateDatabase(name + "/tenant", "dbx", f"d{n}"))
        apply(catalog, create(name, f"c{n}", place=(name + "/tenant", "dbx")))
    loaded = Catalog()
    for key, value in catalog.items():
        loaded.put(Change(key, value))
    assert loaded.items() == catalog.items()
    assert all(loaded.collection_named(name + "/tenant", "dbx", name) for name in names)
