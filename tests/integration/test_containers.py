"""The compose file, built and started for real: a container dies, nothing is lost, and it catches up."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import chromadb
import numpy as np
import pytest
import requests

from tests.containers.engine import CommandFailedError, Engine, NoEngineError, find_engine, run
from tests.containers.images import build_image
from tests.containers.stack import COMPOSE_FILE, NODES, SERVICES, Stack

if TYPE_CHECKING:
    from collections.abc import Iterator

    from chromadb.api import ClientAPI
    from chromadb.api.models.Collection import Collection  # pyright: ignore[reportMissingTypeStubs]

# The first run on a machine installs podman and makes the base image.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]
COLLECTIONS = "/api/v2/tenants/default_tenant/databases/default_database/collections"
DIMENSION = 16


@pytest.fixture(scope="module")
def engine() -> Engine:
    try:
        return find_engine()
    except NoEngineError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def whole_stack(engine: Engine) -> Iterator[Stack]:
    stack = Stack(engine, build_image(engine))
    try:
        stack.up()
        yield stack
    finally:
        stack.destroy()
    assert stack.left_over() == []


@pytest.fixture
def stack(whole_stack: Stack) -> Stack:
    """All containers run and the nodes agree, whatever the test before broke."""
    for service in SERVICES:
        if not whole_stack.running(service):
            whole_stack.start(service)
    _wait_all_healthy(whole_stack)
    return whole_stack


def _wait_all_healthy(stack: Stack) -> None:
    for service in SERVICES:
        stack.wait(lambda name=service: stack.probe_is_healthy(name), f"{service} to be healthy", 120)
    stack.wait(lambda: _caught_up(stack), "all nodes to have applied the whole log", 60)


def _caught_up(stack: Stack) -> bool:
    statuses = [stack.status(node) for node in NODES]
    indices = {
        (status["commit_index"], status["applied_index"]) if status else (None, None) for status in statuses
    }
    return len(indices) == 1 and None not in (pair := indices.pop()) and pair[0] == pair[1]


def _client(stack: Stack) -> ClientAPI:
    return chromadb.HttpClient(host="127.0.0.1", port=stack.port)


def _write(collection: Collection, first: int, last: int) -> None:
    """Records first..last-1, in several requests; everything about a record follows from its number."""
    for start in range(first, last, 50):
        numbers = range(start, min(start + 50, last))
        collection.add(
            ids=[f"r{number}" for number in numbers],
            embeddings=np.stack([_vector(number) for number in numbers]),
            documents=[f"text {number}" for number in numbers],
            metadatas=[{"number": number} for number in numbers],
        )


def _vector(number: int) -> np.ndarray[Any, Any]:
    return np.random.default_rng(number).normal(size=DIMENSION).astype(np.float32)


def _assert_holds(records: Any, count: int) -> None:
    """`records` are exactly the first `count` that `_write` makes, bit for bit."""
    order = np.argsort([metadata["number"] for metadata in records["metadatas"]])
    assert [records["ids"][at] for at in order] == [f"r{number}" for number in range(count)]
    assert [records["documents"][at] for at in order] == [f"text {number}" for number in range(count)]
    vectors = np.array(records["embeddings"], dtype=np.float32)[order]
    assert np.array_equal(vectors, np.stack([_vector(number) for number in range(count)]))


def _read(collection: Collection) -> Any:
    return collection.get(include=["embeddings", "documents", "metadatas"])


def test_compose_refuses_to_start_without_a_secret(engine: Engine) -> None:
    command = (*engine.compose, "-f", str(COMPOSE_FILE), "-p", "chroma-test-refused", "config")
    with pytest.raises(CommandFailedError, match=r"CHROMA_CLUSTER_SECRET.*make one for this cluster"):
        run(command, {**engine.environment, "CHROMA_CLUSTER_SECRET": ""}, 60)


def test_killed_leader_loses_nothing_and_catches_up(stack: Stack) -> None:
    collection = _client(stack).create_collection("killed", embedding_function=None)
    _write(collection, 0, 300)

    victim = stack.wait(stack.leader, "a leader", 30)
    stack.kill(victim)
    _assert_holds(_read(collection), 300)
    _write(collection, 300, 600)
    _assert_holds(_read(collection), 600)
    assert stack.wait(stack.leader, "another leader", 30) != victim

    stack.start(victim)
    _wait_all_healthy(stack)
    body = {"include": ["embeddings", "documents", "metadatas"]}
    for node in NODES:
        _assert_holds(stack.ask(node, f"{COLLECTIONS}/{collection.id}/get", body), 600)


def test_a_node_that_ends_is_restarted_by_the_engine(stack: Stack) -> None:
    collection = _client(stack).create_collection("ended", embedding_function=None)
    node = next(node for node in NODES if node != stack.leader())
    before = stack.inspect(node, "{{.State.StartedAt}}")
    stack.engine.run("exec", stack.container(node), "python3", "-c", "import os; os.kill(1, 15)")
    _write(collection, 0, 50)

    stack.wait(lambda: stack.inspect(node, "{{.State.StartedAt}}") != before, f"{node} to be restarted", 60)
    _wait_all_healthy(stack)
    _assert_holds(_read(collection), 50)


def test_new_containers_on_the_old_volumes_keep_everything(stack: Stack) -> None:
    collection = _client(stack).create_collection("kept", embedding_function=None)
    _write(collection, 0, 100)

    stack.stop()
    assert {service: stack.inspect(service, "{{.State.ExitCode}}") for service in SERVICES} == dict.fromkeys(
        SERVICES, "0"
    ), stack.logs()
    stack.down()
    stack.up()
    _wait_all_healthy(stack)
    _assert_holds(_read(_client(stack).get_collection("kept", embedding_function=None)), 100)


def test_the_image_holds_the_embedding_model_and_chroma_itself(stack: Stack) -> None:
    url = f"http://127.0.0.1:{stack.port}{COLLECTIONS}"
    created = requests.post(url, json={"name": "texts"}, timeout=60).json()
    texts = ["Raft elects one leader per term.", "Bread needs flour, water, salt and time."]
    added = requests.post(
        f"{url}/{created['id']}/add", json={"ids": ["1", "2"], "documents": texts}, timeout=60
    )
    assert added.status_code == 201, added.text
    query = {"query_texts": ["how is a leader chosen?"], "n_results": 1, "include": ["documents"]}
    found = requests.post(f"{url}/{created['id']}/query", json=query, timeout=60).json()
    assert found["documents"] == [[texts[0]]]

    # What the nodes do not understand is judged by a real `chroma run`, started beside the node.
    json_type = {"Content-Type": "application/json"}
    refused = requests.post(f"{url}/{created['id']}/add", data='{"ids": [1', headers=json_type, timeout=60)
    assert refused.status_code == 422, refused.text
    assert refused.json()["message"].endswith("expected a string at line 1 column 10")


def test_processes_have_no_rights_that_they_do_not_need(stack: Stack) -> None:
    look = (
        "print(*[line.split()[1] for line in open('/proc/1/status') if line.startswith(('Uid', 'CapEff'))])"
    )
    for service in SERVICES:
        uid, capabilities = stack.engine.run("exec", stack.container(service), "python3", "-c", look).split()
        assert (uid, int(capabilities, 16)) == ("10001", 0), service
    history = stack.engine.run("history", "--no-trunc", stack.image)
    assert stack.environment["CHROMA_CLUSTER_SECRET"] not in history
