"""Text through a real cluster: embedded once, the same bits everywhere, refused where it must be."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import requests
from chromadb.api.types import DefaultEmbeddingFunction
from chromadb.errors import InvalidArgumentError
from chromadb.utils.embedding_functions import ONNXMiniLM_L6_V2

from cluster.client import TextClient, text_client
from tests.integration.harness import RunningCluster, running_cluster

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.slow

RANDOM = "tests.integration.random_embedding:RandomEmbedding"
TEXTS = [
    "Raft elects one leader per term.",
    "Bread needs flour, water, salt and time.",
    "A cat sleeps most of the day.",
]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningCluster]:
    with running_cluster(tmp_path_factory.mktemp("embedding")) as running:
        yield running


@pytest.fixture
def client(cluster: RunningCluster, monkeypatch: pytest.MonkeyPatch) -> Iterator[TextClient]:
    monkeypatch.setattr(ONNXMiniLM_L6_V2, "__init__", lambda *_, **__: pytest.fail("a model was loaded"))
    made = text_client("127.0.0.1", cluster.port)
    yield made
    made.close()


def collections_url(cluster: RunningCluster, base: str | None = None) -> str:
    return f"{base or cluster.url}/api/v2/tenants/default_tenant/databases/default_database/collections"


def post(url: str, body: Any, auth: Any = None) -> requests.Response:
    return requests.post(url, json=body, auth=auth, timeout=60)


def test_text_is_embedded_once_and_found_by_meaning(cluster: RunningCluster, client: TextClient) -> None:
    notes = client.create_collection("notes")
    notes.add(ids=["raft", "bread", "cat"], documents=TEXTS, metadatas=[{"n": n} for n in range(3)])
    answer = notes.query(query_texts=["how is a leader chosen?", "pets"], n_results=1)
    assert answer["ids"] == [["raft"], ["cat"]]
    records = cluster.assert_replicas_equal(str(notes.id))
    assert {len(vector) for vector, _, _ in records.values()} == {256}

    notes.update(ids=["cat"], documents=["Yeast makes dough rise."])
    notes.upsert(ids=["dog"], documents=["A dog barks at the postman."])
    assert notes.query(query_texts=["pets"], n_results=1)["ids"] == [["dog"]]
    after = cluster.assert_replicas_equal(str(notes.id))
    assert after["cat"][0] != records["cat"][0]
    assert after["bread"] == records["bread"]


def test_plain_json_to_any_node_does_the_same(cluster: RunningCluster) -> None:
    for row in cluster.status()["nodes"]:
        url = collections_url(cluster, row["url"])
        made = post(url, {"name": f"plain-{row['id']}"}, cluster.member).json()
        added = post(f"{url}/{made['id']}/add", {"ids": ["a", "b", "c"], "documents": TEXTS}, cluster.member)
        assert (added.status_code, added.json()) == (201, {})
        query = {"query_texts": ["yeast and dough"], "n_results": 1}
        found = post(f"{url}/{made['id']}/query", query, cluster.member).json()
        assert found["ids"] == [["b"]]


def test_chromas_own_default_is_not_fetched_and_nothing_changes(
    cluster: RunningCluster, client: TextClient
) -> None:
    notes = client.create_collection("of-a-stock-client", embedding_function=DefaultEmbeddingFunction())
    with pytest.raises(InvalidArgumentError, match="Nothing was changed"):
        notes.add(ids=["a"], documents=["text"])
    with pytest.raises(InvalidArgumentError, match="list 'default' in embedding_functions"):
        notes.query(query_texts=["text"])
    assert notes.count() == 0
    notes.add(ids=["a"], documents=["text"], embeddings=[[1.0, 2.0]])
    assert notes.count() == 1


def test_functions_that_call_services_are_never_built(cluster: RunningCluster) -> None:
    url = collections_url(cluster)
    function = {
        "type": "known",
        "name": "openai",
        "config": {"api_base": "http://127.0.0.1:9", "api_key_env_var": "HOME"},
    }
    made = post(url, {"name": "openai", "configuration": {"embedding_function": function}}).json()
    assert made["configuration_json"]["embedding_function"] == function
    answer = post(f"{url}/{made['id']}/add", {"ids": ["a"], "documents": ["text"]})
    assert answer.status_code == 400
    assert answer.json()["error"] == "InvalidArgumentError"
    assert "'openai'" in answer.json()["message"]


def test_configurations_that_run_code_are_refused_on_create_and_update(cluster: RunningCluster) -> None:
    url = collections_url(cluster)
    function = {
        "type": "known",
        "name": "sentence_transformer",
        "config": {"model_name": "attacker/model", "kwargs": {"model_kwargs": {"trust_remote_code": True}}},
    }
    configuration = {"embedding_function": function}
    refused = [post(url, {"name": "poison", "configuration": configuration})]
    made = post(url, {"name": "harmless"}).json()
    refused.append(requests.put(f"{url}/{made['id']}", json={"new_configuration": configuration}, timeout=30))
    for answer in refused:
        assert (answer.status_code, answer.json()["error"]) == (400, "InvalidArgumentError")
        assert "trust_remote_code" in answer.json()["message"]
    assert requests.get(f"{url}/poison", timeout=30).status_code == 404
    assert (
        requests.get(f"{url}/harmless", timeout=30).json()["configuration_json"]["embedding_function"] is None
    )


def test_a_random_function_leaves_equal_bits_on_all_nodes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Replicas copy, they never compute: with a function that never agrees with itself this would show."""
    monkeypatch.setenv("CHROMA_CLUSTER_EMBEDDING_MODULE", RANDOM)
    with running_cluster(tmp_path) as cluster:
        client = text_client("127.0.0.1", cluster.port)
        try:
            notes = client.create_collection("random")
            for start in range(0, 60, 20):
                ids = [f"id{n}" for n in range(start, start + 20)]
                notes.add(ids=ids, documents=["the same text"] * 20)
            notes.update(ids=["id7"], documents=["another text"])
            killed = cluster.leader()
            cluster.kill(killed)
            notes.upsert(ids=["id60"], documents=["written while a node was down"])
            cluster.up()
            records = cluster.assert_replicas_equal(str(notes.id))
            vectors = np.array([vector for vector, _, _ in records.values()], dtype=np.float32)
            assert vectors.shape == (61, 8)
            assert len({row.tobytes() for row in vectors}) == 61

            # The same collection under another model: refused, with both named.
            cluster.down()
            monkeypatch.delenv("CHROMA_CLUSTER_EMBEDDING_MODULE")
            cluster.up()
            with pytest.raises(InvalidArgumentError) as caught:
                notes.add(ids=["late"], documents=["text"])
            assert "RandomEmbedding:own:" in str(caught.value)
            assert "wordllama:" in str(caught.value)
            assert cluster.assert_replicas_equal(str(notes.id)) == records
        finally:
            client.close()
