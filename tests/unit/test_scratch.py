"""Chroma's own words, asked of a Chroma in memory."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import pytest

from cluster.chroma.embedded import EmbeddedEngine
from cluster.chroma.scratch import Scratch
from cluster.state.commands import CreateCollection
from cluster.state.work import Call

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from cluster.errors import Refusal

SPARSE_SCHEMA = (
    '{"defaults": {}, "keys": {"x": {"sparse_vector": '
    '{"sparse_vector_index": {"enabled": true, "config": {}}}}}}'
)

SCHEMA = (
    '{"defaults": {}, "keys": {"#embedding": {"float_list": {"vector_index": '
    '{"enabled": true, "config": {"space": "ip", "hnsw": {"max_neighbors": 8}}}}}}}'
)


@pytest.fixture(scope="module")
def scratch() -> Iterator[Scratch]:
    opened = Scratch()
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def current(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    directory: Path = tmp_path_factory.mktemp("chroma")
    engine = EmbeddedEngine(directory)
    configuration = '{"hnsw": {"space": "cosine"}, "embedding_function": {"type": "legacy"}}'
    made = CreateCollection(
        "default_tenant", "default_database", "abc", "c", False, None, configuration, None
    )
    engine.apply(Call(made, None, 1))
    rendered = engine.collection("c")
    engine.close()
    return rendered


def says(refusal: Refusal | None) -> tuple[int, str, str] | None:
    return None if refusal is None else (refusal.status, refusal.error, refusal.message)


@pytest.mark.parametrize(
    ("name", "metadata", "configuration", "schema", "words"),
    [
        ("abc", None, None, None, None),
        ("abc", {"a": 1}, '{"hnsw": {"space": "ip"}}', None, None),
        ("abc", None, None, '{"defaults": {}, "keys": {}}', None),
        ("a", None, None, None, "Validation error: name: Expected a name containing 3-512 characters"),
        ("abc", {}, None, None, "Validation error: metadata: Metadata cannot be empty"),
        ("abc", {"x": [1]}, None, None, "Lists are not supported in collection metadata"),
        ("abc", {"hnsw:space": "bad"}, None, None, "Failed to parse hnsw parameters"),
        ("abc", None, '{"hnsw": {}, "spann": {}}', None, "Multiple vector index configurations provided"),
        (
            "abc",
            None,
            None,
            SPARSE_SCHEMA,
            "Failed to reconcile schema: Invalid schema input: Sparse vector indexing is not enabled",
        ),
    ],
)
def test_create_collection(
    scratch: Scratch, name: str, metadata: Any, configuration: Any, schema: Any, words: str | None
) -> None:
    for _ in range(2):  # nothing is left behind that would change the second answer
        said = says(scratch.judge_create_collection(name, metadata, configuration, schema))
        if words is None:
            assert said is None
        else:
            assert said is not None
            assert said[:2] == (400, "InvalidArgumentError")
            assert said[2].startswith(words)


@pytest.mark.parametrize(
    ("name", "metadata", "configuration", "words"),
    [
        ("new-name", None, None, None),
        (None, {"x": 1}, None, None),
        (None, {"x": None}, None, None),
        (None, None, '{"hnsw": {"ef_search": 7}}', None),
        (None, None, '{"spann": {"ef_search": 7}}', None),
        ("n", None, None, "Validation error: new_name: Expected a name"),
        (None, {}, None, "Validation error: new_metadata: Metadata cannot be empty"),
        (None, {"x": [1]}, None, "Lists are not supported in collection metadata"),
        (None, None, '{"spann": {}, "hnsw": {}}', "Multiple vector index configurations provided"),
    ],
)
def test_update_collection(
    scratch: Scratch, current: dict[str, Any], name: Any, metadata: Any, configuration: Any, words: str | None
) -> None:
    for _ in range(2):
        said = says(scratch.judge_update_collection(current, name, metadata, configuration))
        assert (said is None) == (words is None)
        assert said is None or (said[0] == 400 and said[2].startswith(words or ""))


def test_filters(scratch: Scratch) -> None:
    assert scratch.judge_where('{"a": {"$in": [1, 2]}}', '{"$contains": "x"}') is None
    assert scratch.judge_where('{"a": {"$gt": 1}}', None) is None
    assert scratch.judge_where('{"k": 1}', None) is None
    assert scratch.judge_where(None, None) is None
    for where, where_document in (
        ('{"a": {"$gt": "x"}}', None),
        ("[]", None),
        (None, '{"$regex": "("}'),
    ):
        said = says(scratch.judge_where(where, where_document))
        assert said is not None
        assert said[:2] == (400, "InvalidArgumentError")
    said = says(scratch.judge_where(None, '{"$regex": "("}'))
    assert said is not None
    assert said[2].startswith("Regex syntax errror")


def test_tenant_names(scratch: Scratch) -> None:
    assert scratch.judge_create_tenant("abc") is None
    said = says(scratch.judge_create_tenant("ab"))
    assert said is not None
    assert said[2].startswith("Validation error: name")


def test_many_threads_ask_at_once(scratch: Scratch, current: dict[str, Any]) -> None:
    wrong: list[object] = []

    def ask() -> None:
        for _ in range(20):
            wrong.append(scratch.judge_create_collection("abc", None, None, None))
            wrong.append(scratch.judge_update_collection(current, "abcd", None, None))
            wrong.append(scratch.judge_where('{"a": 1}', None))

    threads = [threading.Thread(target=ask) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(wrong) == {None}


@pytest.mark.parametrize(
    ("metadata", "configuration", "schema", "change"),
    [
        (None, '{"hnsw": {"max_neighbors": 2}}', None, None),
        ({"hnsw:M": 64, "hnsw:search_ef": 10}, None, None, None),
        (None, None, SCHEMA, None),
        (None, '{"hnsw": {"space": "cosine", "sync_threshold": 2, "batch_size": 2}}', None, None),
        (None, None, None, '{"hnsw": {"max_neighbors": 256}}'),
    ],
)
def test_a_trial_of_settings_that_work(
    scratch: Scratch, metadata: Any, configuration: str | None, schema: str | None, change: str | None
) -> None:
    for _ in range(2):
        assert says(scratch.trial(configuration, schema, metadata, change)) is None


def test_a_trial_of_settings_that_fail_at_the_first_record(scratch: Scratch) -> None:
    """Chroma accepts them, and then no access to the collection works."""
    bomb = '{"hnsw": {"max_neighbors": 100000000}}'
    assert says(scratch.judge_create_collection("abc", None, bomb, None)) is None
    for trial in (
        lambda: scratch.trial(bomb, None, None),
        lambda: scratch.trial(None, None, {"hnsw:M": 100000000}),
        lambda: scratch.trial(None, None, None, bomb),
    ):
        refusal = trial()
        assert refusal is not None
        assert "Nothing was changed" in refusal.message
    assert says(scratch.trial('{"hnsw": {"max_neighbors": 8}}', None, None)) is None
    assert says(scratch.judge_where('{"a": 1}', None)) is None


def test_many_trials(scratch: Scratch, monkeypatch: pytest.MonkeyPatch) -> None:
    """Chroma is left for a new one now and then, without a judgement noticing."""
    monkeypatch.setattr("cluster.chroma.scratch._TRIALS_PER_CHROMA", 2)
    monkeypatch.setattr("cluster.chroma.scratch._REMEMBERED", 2)
    for at in range(2, 8):
        assert says(scratch.trial(f'{{"hnsw": {{"max_neighbors": {at}}}}}', None, None)) is None
    assert says(scratch.judge_where('{"a": 1}', None)) is None
