"""Chroma's HTTP API over Postgres beside a real `chroma run`, and with Chroma's own client.

Refusals are compared by their status class where Chroma's words come out of its JSON reader; everything
else by body. Distances may differ in their last bits. `evaluation.systems.postgres` lists the differences.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import threading
from typing import TYPE_CHECKING, Any

import chromadb
import numpy as np
import pytest
from chromadb.errors import InvalidArgumentError, NotFoundError
from hypothesis import HealthCheck, Phase, given, settings

from evaluation.systems.postgres.alone import Alone
from tests.integration import test_differential as whole
from tests.integration.differential import DATABASE, Answer, Pair, Request, chroma_run

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.slow

COLLECTIONS = f"{DATABASE}/collections"
C = f"{COLLECTIONS}/<main>"
#: Not written by hand in words of its own: what a body that is not in form is answered with.
_REFUSED = frozenset({400, 413, 415, 422, 501})


@contextlib.contextmanager
def postgres_api(folder: Path) -> Iterator[Alone]:
    """One Postgres with its API server, on an event loop in a thread of its own."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="postgres-api")
    thread.start()
    alone = Alone(folder)
    try:
        yield asyncio.run_coroutine_threadsafe(alone.__aenter__(), loop).result(120)
    finally:
        stopping = alone.__aexit__(None, None, None)
        asyncio.run_coroutine_threadsafe(stopping, loop).result(60)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Alone]:
    with postgres_api(tmp_path_factory.mktemp("postgres")) as alone:
        yield alone


@pytest.fixture(scope="module")
def pair(ours: Alone, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    with chroma_run(tmp_path_factory.mktemp("chroma")) as chroma:
        both = Pair(chroma, ours.url)
        both.create("main")
        both.create("empty")
        for each in whole._records():
            assert difference(both, each) is None
        yield both
        both.close()


def difference(pair: Pair, request: Request) -> str | None:
    expected, got = pair.both(request)
    found = _differing(expected, got, request.path.endswith("/query"))
    return None if found is None else f"{request}\n  chroma: {expected}\n  ours:   {got}\n  {found}"


def _differing(expected: Answer, got: Answer, neighbours: bool) -> str | None:
    if expected.status in _REFUSED and got.status in _REFUSED:
        return None
    if (expected.status, got.status) == (422, 404):
        return None  # Chroma reads all of a body before it looks at the path
    if neighbours and expected.status == 500:
        return None  # a local Chroma fails on ids that are not there, and in an index that is not built
    if expected.status != got.status:
        return f"status {expected.status} against {got.status}"
    one, two = _comparable(expected.body), _comparable(got.body)
    if neighbours and expected.status == 200:
        # Records at the same distance may come in either order, and Chroma's index is approximate: after
        # the odd vectors of some tests it misses neighbours even among a few dozen records.
        return _farther(one["distances"], two["distances"])
    return _unequal(one, two, "body")


def _farther(chroma: list[list[float]] | None, ours: list[list[float]] | None) -> str | None:
    if chroma is None or ours is None:
        return None if chroma is ours else "distances: there and not there"
    for one, two in zip(chroma, ours, strict=True):
        if len(two) < len(one):
            return f"{len(one)} neighbours against {len(two)}"
        for near, found in zip(one, two, strict=False):
            if math.isfinite(near) and found > near * (1 + 2e-6) + 1e-6:
                return f"a neighbour at {near} against {found}"
    return None


def _comparable(body: Any) -> Any:
    """Without what is each server's own: the keys that Chroma adds to a schema."""
    if isinstance(body, list):
        return [_comparable(one) for one in body]
    if isinstance(body, dict) and isinstance(body.get("schema"), dict):
        keys = {key: value for key, value in body["schema"]["keys"].items() if key.startswith("#")}
        return {**body, "id": "", "schema": {**body["schema"], "keys": keys}}
    if isinstance(body, dict) and {"id", "tenant"} <= body.keys():
        return {**body, "id": ""}
    return body


def _unequal(one: Any, two: Any, path: str) -> str | None:
    if isinstance(one, dict) and isinstance(two, dict) and one.keys() == two.keys():
        found = (_unequal(one[key], two[key], f"{path}.{key}") for key in one)
    elif isinstance(one, list) and isinstance(two, list) and len(one) == len(two):
        found = (_unequal(a, b, f"{path}[{at}]") for at, (a, b) in enumerate(zip(one, two, strict=True)))
    elif isinstance(one, float) and isinstance(two, float):
        near = math.isclose(one, two, rel_tol=2e-6, abs_tol=1e-6) or (math.isnan(one) and math.isnan(two))
        return None if near else f"{path}: {one!r} against {two!r}"
    else:
        return None if type(one) is type(two) and one == two else f"{path}: {one!r} against {two!r}"
    return next((each for each in found if each is not None), None)


def _post(path: str, body: Any) -> Request:
    return Request("POST", path, body)


def _is_known(request: Request) -> bool:
    """Whether `evaluation.systems.postgres` names this as a difference."""
    body = request.body.decode(errors="replace") if isinstance(request.body, bytes) else request.body
    text = body if isinstance(body, str) else json.dumps(body)
    others = ("/fork", "/search", "/functions", "/indexing_status", "/attached_functions", "/fork_count")
    return (
        request.method == "PATCH"
        or "\\u0000" in text.replace("\\\\u0000", "\\u0000")
        or "1e+39" in text
        or "%7B" in request.path.replace("{", "%7B")
        or any(part in request.path for part in others)
    )


@pytest.mark.parametrize("group", ["tenants", "databases", "catalog", "ids", "reads", "writes", "updates"])
def test_same_answers(pair: Pair, group: str) -> None:
    requests = whole.GROUPS[group]
    requests = [each for each in (requests() if callable(requests) else requests) if not _is_known(each)]
    found = [text for each in requests if (text := difference(pair, each)) is not None]
    assert not found, f"{len(found)} differences of {len(requests)}:\n" + "\n".join(found[:20])


@pytest.mark.parametrize("space", ["l2", "cosine", "ip"])
def test_same_distances(pair: Pair, space: str) -> None:
    name = f"space-{space}"
    pair.create(name, configuration={"hnsw": {"space": space}})
    random = np.random.default_rng(5)
    vectors = random.normal(size=(60, 16)).astype(np.float32).tolist()
    ids = [f"v{at}" for at in range(60)]
    metadatas = [{"number": at, "half": at / 2} for at in range(60)]
    path = f"{COLLECTIONS}/<{name}>"
    body = {"ids": ids, "embeddings": vectors, "metadatas": metadatas}
    assert difference(pair, _post(f"{path}/add", body)) is None
    for more in ({}, {"where": {"number": {"$lt": 20}}}, {"where": {"half": 4.5}}, {"n_results": 60}):
        asked = {"query_embeddings": vectors[:3], "include": ["distances", "metadatas"], **more}
        expected, got = pair.both(_post(f"{path}/query", asked))
        assert expected.status == got.status == 200
        assert got.body["ids"] == expected.body["ids"]
        assert np.allclose(got.body["distances"], expected.body["distances"], rtol=1e-5, atol=1e-5)
        assert got.body["metadatas"] == expected.body["metadatas"]


@settings(
    max_examples=300,
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)
@given(request_=whole._requests())
def test_same_answers_to_generated_requests(pair: Pair, request_: Request) -> None:
    if whole._is_named(request_) or _is_known(request_):
        return
    expected, got = pair.both(request_)
    if expected.status == 0:
        return  # Chroma hangs up
    found = _differing(expected, got, request_.path.endswith("/query"))
    assert found is None, f"{request_}\n  chroma: {expected}\n  ours:   {got}\n  {found}"


def test_same_records_in_the_end(pair: Pair) -> None:
    everything = ["embeddings", "documents", "metadatas", "uris"]
    assert difference(pair, _post(f"{C}/get", {"include": everything})) is None
    assert pair.compared > 1000


def test_chromas_own_client(ours: Alone) -> None:
    host, port = ours.url.removeprefix("http://").split(":")
    client = chromadb.HttpClient(host=host, port=int(port))
    assert client.heartbeat() > 0
    collection = client.create_collection("stock", metadata={"team": "a"}, embedding_function=None)
    vectors = np.eye(8, dtype=np.float32)
    ids = [f"d{at}" for at in range(8)]
    collection.add(
        ids=ids,
        embeddings=vectors,
        documents=[f"text {at}" for at in range(8)],
        metadatas=[{"number": at, "even": at % 2 == 0, "tags": ["x", f"t{at}"]} for at in range(8)],
    )
    collection.add(ids=["d0"], embeddings=[[9.0] * 8], documents=["ignored"])
    assert collection.count() == 8
    assert collection.get(ids="d0", include=["documents"])["documents"] == ["text 0"]
    collection.update(ids=["d1", "missing"], embeddings=vectors[:2], documents=["changed", "x"])
    collection.upsert(ids=["d8"], embeddings=[[1.0] * 8], metadatas=[{"number": 8}])
    found = collection.query(query_embeddings=[vectors[2]], n_results=1, where={"number": {"$gte": 2}})
    assert found["ids"] == [["d2"]]
    assert collection.get(where_document={"$contains": "changed"})["ids"] == ["d1"]
    assert collection.get(where={"tags": {"$contains": "t3"}})["ids"] == ["d3"]
    assert collection.get(limit=2, offset=1)["ids"] == ["d1", "d2"]
    embeddings = collection.get(ids=["d8"], include=["embeddings"])["embeddings"]
    assert embeddings is not None
    assert np.array_equal(embeddings[0], np.ones(8))
    collection.delete(where={"number": {"$in": [6, 7]}})
    collection.delete(ids=["d8"])
    assert collection.count() == 6
    collection.modify(name="stock-2", metadata={"team": "b"})
    assert client.get_collection("stock-2", embedding_function=None).metadata == {"team": "b"}
    assert client.get_or_create_collection("stock-2", embedding_function=None).id == collection.id
    assert "stock-2" in [one.name for one in client.list_collections()]
    with pytest.raises(InvalidArgumentError, match="dimension of 8"):
        collection.add(ids=["bad"], embeddings=[[1.0]])
    client.delete_collection("stock-2")
    with pytest.raises(NotFoundError):
        client.get_collection("stock-2", embedding_function=None)
    with pytest.raises(NotFoundError):
        collection.count()
