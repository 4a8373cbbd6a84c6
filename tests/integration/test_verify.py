"""Replicas are compared while they serve: what differs is found, named, not served, and made equal again."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import threading
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import requests

from tests.integration import corruption
from tests.integration.harness import COMMAND, RunningCluster, running_cluster

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

DIMENSION = 16
#: Each collection is for one kind of corruption. From 1,000 records on Chroma saves an index to disk.
NAMES = {"vector": 1050, "record": 60, "metadata": 60, "index": 1050, "older": 1050, "many": 400, "sound": 60}
LEVELS = ("linearizable", "session", "eventual")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningCluster]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CHROMA_CLUSTER_VERIFY_RECORDS_PER_S", "20000")
        yield from _cluster(tmp_path_factory)


def _cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningCluster]:
    with running_cluster(tmp_path_factory.mktemp("verify") / "data") as running:
        client = running.client()
        for seed, (name, count) in enumerate(NAMES.items()):
            fill(client.create_collection(name, embedding_function=None), name, range(count), seed)
        running.wait_caught_up()
        yield running


def fill(collection: Any, name: str, numbers: range, seed: int) -> None:
    vectors = np.random.default_rng(seed).standard_normal((len(numbers), DIMENSION))
    collection.upsert(
        ids=[f"{name}-{i}" for i in numbers],
        embeddings=vectors,
        documents=[f"document {i}" for i in numbers],
        metadatas=[{"i": i, "even": i % 2 == 0, "share": i / 7} for i in numbers],
    )


def verified(cluster: RunningCluster) -> tuple[int, dict[str, Any]]:
    done = subprocess.run(
        [*COMMAND, "verify", "--data", str(cluster.data), "--json"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    return done.returncode, json.loads(done.stdout)


def stopped(cluster: RunningCluster, row: dict[str, Any]) -> Path:
    """Stop a node in order; its Chroma directory."""
    os.kill(row["pid"], signal.SIGTERM)
    cluster.wait(f"{row['id']} to stop", lambda: cluster.node(row["id"])["pid"] is None)
    return cluster.data / row["id"] / "chroma"


def alarms(cluster: RunningCluster, row: dict[str, Any]) -> dict[str, Any]:
    answer = requests.get(f"{row['url']}/cluster/status", auth=cluster.member, timeout=5)
    told: dict[str, Any] = answer.json()["alarms"]
    return told


def answers(cluster: RunningCluster, url: str, collection_id: str, level: str) -> requests.Response:
    return requests.post(
        f"{url}/api/v2/tenants/default_tenant/databases/default_database/collections/{collection_id}/get",
        json={"include": ["embeddings", "documents", "metadatas"], "limit": 5},
        headers={"X-Chroma-Consistency": level},
        auth=cluster.member,
        timeout=30,
    )


def test_equal_replicas_are_the_same(cluster: RunningCluster) -> None:
    code, result = verified(cluster)
    assert (code, result["standing"]) == (0, "same"), result
    assert result["compared"] == ["node-1", "node-2", "node-3"]
    assert result["records"] == sum(NAMES.values())
    assert all(len(nodes) == 3 for nodes in result["found_by_vector"].values())


def test_writes_meanwhile_raise_no_alarm(cluster: RunningCluster) -> None:
    """All nodes digest at one place of the log, however many writes come meanwhile."""
    collection = cluster.client().create_collection("busy", embedding_function=None)
    fill(collection, "busy", range(200), 1)
    ended, errors = threading.Event(), list[Exception]()

    def write() -> None:
        draw = np.random.default_rng(5)
        try:
            while not ended.is_set():
                ids = sorted({f"busy-{i}" for i in draw.integers(0, 400, 20)})
                match int(draw.integers(3)):
                    case 0:
                        collection.delete(ids=ids)
                    case 1:
                        collection.delete(where={"i": {"$lt": int(draw.integers(50))}})
                    case _:
                        vectors: Any = draw.standard_normal((len(ids), DIMENSION))
                        metadatas: Any = [{"i": int(i)} for i in draw.integers(0, 1000, len(ids))]
                        collection.upsert(ids=ids, embeddings=vectors, metadatas=metadatas)
        except Exception as error:
            errors.append(error)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for _ in range(3):
            code, result = verified(cluster)
            assert (code, result["standing"], result["passed"]) == (0, "same", []), result
    finally:
        ended.set()
        writer.join()
    assert not errors
    cluster.client().delete_collection("busy")


def test_every_kind_of_silent_change_is_found_named_and_not_served(cluster: RunningCluster) -> None:
    client = cluster.client()
    ids = {name: str(client.get_collection(name, embedding_function=None).id) for name in NAMES}
    right = {name: answers(cluster, cluster.url, ids[name], "linearizable").json() for name in NAMES}
    row = cluster.followers()[0]

    # The older copy of an index: taken now, put back after another 1,050 records.
    chroma = stopped(cluster, row)
    older = corruption.index_directory(chroma, "older")
    kept = cluster.data / "older"
    shutil.copytree(older, kept)
    cluster.up()
    fill(client.get_collection("older", embedding_function=None), "older", range(1050, 2100), 9)
    cluster.wait_caught_up()
    row = cluster.node(row["id"])
    chroma = stopped(cluster, row)
    shutil.rmtree(older)
    shutil.move(kept, older)

    corruption.flip_vector_byte(chroma, "vector", DIMENSION)
    corruption.change_metadata_value(chroma, "metadata", "metadata-11", "i", 12)
    corruption.drop_index(chroma, "index")
    plain = corruption.plain(chroma)
    plain.get_collection("record", embedding_function=None).delete(ids=["record-17"])
    many = plain.get_collection("many", embedding_function=None)
    corruption.random_changes(many, [f"many-{i}" for i in range(NAMES["many"])], 200, seed=3)
    del plain, many

    # It is found by the round that the node asks for when it starts.
    cluster.up(check=False)
    wrong = set(ids.values()) - {ids["sound"]}
    cluster.wait("the alarms", lambda: wrong <= alarms(cluster, row).keys(), 60)
    assert alarms(cluster, row).keys() == wrong
    told = cluster.node(row["id"])
    assert (told["state"], told["healthy"], told["ready"]) == ("differs", True, False)

    code, result = verified(cluster)
    assert code == 1
    found = {finding["collection"]: finding for finding in result["findings"]}
    assert {finding["node"] for finding in found.values()} == {row["id"]}
    assert found.keys() == wrong
    assert list(found[ids["vector"]]["records"].values()) == [["vector"]]
    assert found[ids["record"]]["records"] == {"record-17": ["missing"]}
    assert found[ids["metadata"]]["records"] == {"metadata-11": ["metadata of records"]}
    assert found[ids["index"]]["parts"] == ["unreadable"]
    assert found[ids["many"]]["differing_records"] == 200

    assert_nothing_wrong_is_served(cluster, row, ids, right)
    assert_an_alarm_outlasts_a_restart(cluster, row, wrong)
    assert_it_is_repaired(cluster, row, ids)


def assert_nothing_wrong_is_served(
    cluster: RunningCluster, row: dict[str, Any], ids: dict[str, str], right: dict[str, Any]
) -> None:
    for name in NAMES:
        for level in LEVELS:
            direct = answers(cluster, row["url"], ids[name], level)
            if name == "sound":
                assert direct.json() == right[name]
            else:
                assert direct.status_code == 503, f"{name} {level}: {direct.text}"
            for _ in range(3):
                assert answers(cluster, cluster.url, ids[name], level).json() == right[name]


def assert_an_alarm_outlasts_a_restart(cluster: RunningCluster, row: dict[str, Any], wrong: set[str]) -> None:
    cluster.kill(cluster.node(row["id"]))
    cluster.wait(f"{row['id']} to be gone", lambda: cluster.node(row["id"])["pid"] is None)
    cluster.up(check=False)
    assert alarms(cluster, row).keys() == wrong
    assert cluster.node(row["id"])["state"] == "differs"


def assert_it_is_repaired(cluster: RunningCluster, row: dict[str, Any], ids: dict[str, str]) -> None:
    done = repaired(cluster)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{row['id']} is repaired and ready." in done.stdout
    assert alarms(cluster, row) == {}
    code, result = verified(cluster)
    assert (code, result["standing"]) == (0, "same"), result
    for name in NAMES:
        cluster.assert_replicas_equal(ids[name])
    status = subprocess.run(
        [*COMMAND, "status", "--data", str(cluster.data)], capture_output=True, check=False
    )
    assert status.returncode == 0


def repaired(cluster: RunningCluster, *flags: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, "repair", "--data", str(cluster.data), "--timeout", "90", *flags],
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )


@pytest.mark.soak
def test_without_a_majority_the_operator_chooses(cluster: RunningCluster) -> None:
    """Each node has something else: no copy of that collection is served, every other one is, and the one
    that the operator names is then everybody's. The leader's own copy differs as well."""
    client = cluster.client()
    own = str(client.get_collection("record", embedding_function=None).id)
    sound = str(client.get_collection("sound", embedding_function=None).id)
    rows = cluster.status()["nodes"]
    for number, row in enumerate(rows):
        chroma = stopped(cluster, row)
        corruption.change_metadata_value(chroma, "record", "record-5", "i", 1000 + number)
        cluster.up(check=False)
        if number == 0:
            # Two of three agree still. What follows is not to be repaired by the first node's alarm.
            cluster.wait("the first alarm", lambda: own in alarms(cluster, rows[0]), 60)
    code, result = verified(cluster)
    assert code == 1
    assert {(one["node"], one["undecided"]) for one in result["findings"]} == {
        (row["id"], True) for row in rows
    }
    for row in rows:
        assert answers(cluster, row["url"], own, "eventual").status_code == 503
        assert answers(cluster, row["url"], sound, "eventual").status_code == 200

    refused = repaired(cluster)
    assert refused.returncode == 2
    assert "no healthy copy to repair from" in refused.stderr
    assert "--from" in refused.stderr
    done = repaired(cluster, "--from", rows[1]["id"])
    assert done.returncode == 0, done.stdout + done.stderr
    found = cluster.assert_replicas_equal(own)
    assert found["record-5"][2]["i"] == 1001


def test_a_stranger_may_not_ask(cluster: RunningCluster) -> None:
    url = cluster.status()["nodes"][0]["url"]
    for path in ("verify", "digests", "verdict", "repair"):
        answer = requests.post(f"{url}/cluster/{path}", json={"start": True}, timeout=5)
        assert answer.status_code == 403
