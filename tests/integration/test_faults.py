"""Nodes are killed, stopped, starved and doubled: nothing acknowledged is lost, and each says why."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import chromadb
import numpy as np
import pytest
import requests

from tests.integration.harness import COMMAND, RunningCluster, running_cluster
from tests.integration.traffic import Writers

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.slow
COLLECTIONS = "/api/v2/tenants/default_tenant/databases/default_database/collections"


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningCluster]:
    with running_cluster(tmp_path_factory.mktemp("cluster")) as running:
        yield running


@pytest.fixture(autouse=True)
def _everything_runs(cluster: RunningCluster) -> None:
    """Each test begins with a whole, healthy cluster, whatever the one before broke."""
    cluster.up_again()
    cluster.wait_caught_up()


def _assert_nothing_lost(cluster: RunningCluster, collection_id: str, writers: Writers) -> None:
    records = cluster.assert_replicas_equal(collection_id)
    nothing: tuple[None, None, dict[str, int]] = (None, None, {})
    lost = [
        record
        for record, turn in writers.acknowledged.items()
        if records.get(record, nothing)[2].get("turn") != turn
    ]
    assert not lost, f"{len(lost)} of {len(writers.acknowledged)} acknowledged writes lost, e.g. {lost[:5]}"
    phantoms = set(records) - set(writers.acknowledged) - writers.unknown
    assert not phantoms, f"records that nobody wrote: {sorted(phantoms)[:5]}"


@pytest.mark.parametrize("victim", ["leader", "follower"])
def test_kill_9_of_a_node_loses_no_acknowledged_write(cluster: RunningCluster, victim: str) -> None:
    collection = cluster.client().get_or_create_collection(f"killed-{victim}-{time.monotonic_ns()}")
    writers = Writers(cluster.url, str(collection.id)).start()
    writers.wait_acknowledged(100)
    row = cluster.leader() if victim == "leader" else cluster.followers()[0]
    before = len(writers.acknowledged)
    cluster.kill(row)
    writers.wait_acknowledged(before + 200)
    cluster.up()
    writers.wait_acknowledged(len(writers.acknowledged) + 50)
    writers.stop()
    assert not writers.unknown, f"the balancer should ride out an election: {len(writers.unknown)} unknown"
    _assert_nothing_lost(cluster, str(collection.id), writers)


def test_full_cold_restart_under_load_keeps_everything(cluster: RunningCluster) -> None:
    collection = cluster.client().get_or_create_collection("cold")
    writers = Writers(cluster.url, str(collection.id)).start()
    writers.wait_acknowledged(300)
    for row in cluster.status()["nodes"]:
        cluster.kill(row)
    cluster.up()
    writers.wait_acknowledged(len(writers.acknowledged) + 100)
    writers.stop()
    _assert_nothing_lost(cluster, str(collection.id), writers)


def test_node_that_missed_5000_documents_catches_up_and_survives_restart(cluster: RunningCluster) -> None:
    client = cluster.client()
    collection = client.get_or_create_collection("missed")
    random = np.random.default_rng(5)
    vectors = random.normal(size=(5000, 32)).astype(np.float32)
    away = cluster.followers()[0]
    cluster.kill(away)
    for start in range(0, 5000, 500):
        ids = [f"d{number}" for number in range(start, start + 500)]
        collection.add(ids=ids, embeddings=vectors[start : start + 500], documents=[f"text {i}" for i in ids])
    cluster.up()
    cluster.wait_caught_up()
    _assert_holds_5000(cluster, away["id"], str(collection.id), vectors)
    cluster.kill(
        cluster.node(away["id"])
    )  # Chroma's issue 7090: the index after a restart beyond 1,000 records
    cluster.up()
    cluster.wait_caught_up()
    _assert_holds_5000(cluster, away["id"], str(collection.id), vectors)
    cluster.assert_replicas_equal(str(collection.id))


def _assert_holds_5000(
    cluster: RunningCluster, node_id: str, collection_id: str, vectors: np.ndarray[Any, Any]
) -> None:
    """Count, get and query at that very node."""
    local: dict[str, Any] = {"headers": {"X-Chroma-Consistency": "eventual"}, "auth": cluster.member}
    url = f"{cluster.node(node_id)['url']}{COLLECTIONS}/{collection_id}"
    assert requests.get(f"{url}/count", timeout=10, **local).json() == 5000
    got = requests.post(f"{url}/get", json={"ids": ["d4999"]}, timeout=10, **local).json()
    assert got["ids"] == ["d4999"]
    hits = 0
    for number in range(0, 5000, 100):
        query = {"query_embeddings": [vectors[number].tolist()], "n_results": 1}
        answer = requests.post(f"{url}/query", json=query, timeout=10, **local).json()
        hits += answer["ids"] == [[f"d{number}"]]
    assert hits >= 48, (
        f"only {hits} of 50 documents find themselves on {node_id}"
    )  # neighbours are approximate


def test_second_process_on_a_node_directory_is_refused(cluster: RunningCluster) -> None:
    row = cluster.status()["nodes"][0]
    command = [*COMMAND, "node", "--node-id", row["id"], "--cluster-id", "another", "--secret", "s"]
    command += ["--data-dir", str(cluster.data / row["id"]), "--http", "127.0.0.1:0", "--raft", "127.0.0.1:0"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode != 0
    assert str(row["pid"]) in done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr


def test_full_disk_stops_the_node_with_a_reason_and_hands_leadership_over(cluster: RunningCluster) -> None:
    client = cluster.client()
    collection = client.get_or_create_collection("full-disk")
    leader = cluster.leader()
    writers = Writers(cluster.url, str(collection.id)).start()
    writers.wait_acknowledged(50)
    # No file of this process may grow beyond 4 KiB from here on: what a full disk does to its writes.
    subprocess.run(["prlimit", f"--pid={leader['pid']}", "--fsize=4096:"], check=True)
    other = cluster.wait("another leader", lambda: _other_leader(cluster, leader["id"]))
    writers.wait_acknowledged(len(writers.acknowledged) + 100)
    status = requests.get(f"{leader['url']}/cluster/status", auth=cluster.member, timeout=10).json()
    assert status["healthy"] is False
    assert status["reason"], "a node that stops serving must say why"
    refused = requests.get(f"{leader['url']}/api/v2/tenants/default_tenant", auth=cluster.member, timeout=10)
    assert refused.status_code == 503
    assert refused.json()["error"] == "NodeFaultError"
    writers.stop()
    assert not writers.unknown
    assert other != leader["id"]
    cluster.kill(leader)
    cluster.up()
    _assert_nothing_lost(cluster, str(collection.id), writers)


def _other_leader(cluster: RunningCluster, not_this: str) -> str | None:
    leader = cluster.status()["leader"]
    return leader if leader and leader != not_this else None


def test_stalled_node_is_left_out_and_taken_back(cluster: RunningCluster) -> None:
    collection = cluster.client().get_or_create_collection("stalled")
    collection.upsert(ids=["one"], embeddings=[[1.0, 2.0]], documents=["first"])
    victim = cluster.followers()[0]
    url = f"{cluster.url}{COLLECTIONS}/{collection.id}/get"
    cluster.kill(victim, signal.SIGSTOP)
    try:
        for _ in range(30):  # no read fails, not even those that rotate onto the stalled node first
            answer = requests.post(url, json={"ids": ["one"]}, timeout=10)
            assert answer.status_code == 200
        cluster.wait("the balancer to eject the node", lambda: not _in_rotation(cluster, victim["id"]))
    finally:
        cluster.kill(victim, signal.SIGCONT)
    cluster.wait("the balancer to take it back", lambda: _in_rotation(cluster, victim["id"]))


def _in_rotation(cluster: RunningCluster, node_id: str) -> bool:
    view = requests.get(f"{cluster.url}/cluster/status", timeout=10).json()
    return bool(next(row for row in view["nodes"] if row["id"] == node_id)["healthy"])


def test_paused_leader_does_not_serve_a_stale_linearizable_read(cluster: RunningCluster) -> None:
    collection = cluster.client().get_or_create_collection("paused")
    collection.upsert(ids=["x"], embeddings=[[1.0]], metadatas=[{"version": 1}])
    old = cluster.leader()
    cluster.kill(old, signal.SIGSTOP)
    try:
        collection.upsert(ids=["x"], embeddings=[[2.0]], metadatas=[{"version": 2}])
    finally:
        cluster.kill(old, signal.SIGCONT)
    base = f"{old['url']}{COLLECTIONS}"
    strict = {"X-Chroma-Consistency": "linearizable"}
    answer = requests.post(
        f"{base}/{collection.id}/get",
        json={"ids": ["x"]},
        headers=strict,
        auth=cluster.member,
        timeout=20,
    )
    if answer.status_code == 200:
        assert answer.json()["metadatas"] == [{"version": 2}]
    else:
        assert answer.status_code == 503, answer.text


def test_same_idempotency_key_gives_the_first_outcome_also_after_the_leader_died(
    cluster: RunningCluster,
) -> None:
    collection = cluster.client().get_or_create_collection("keys")
    url = f"{cluster.url}{COLLECTIONS}/{collection.id}"
    collection.add(
        ids=["a", "b", "c"], embeddings=[[1.0], [2.0], [3.0]], metadatas=[{"n": 1}, {"n": 1}, {"n": 2}]
    )
    key = {"Idempotency-Key": "delete-the-ones"}
    first = requests.post(f"{url}/delete", json={"where": {"n": 1}}, headers=key, timeout=20)
    assert first.json() == {"deleted": 2}
    cluster.kill(cluster.leader())
    again = requests.post(f"{url}/delete", json={"where": {"n": 1}}, headers=key, timeout=20)
    assert (again.status_code, again.json()) == (200, {"deleted": 2})
    other = requests.post(f"{url}/delete", json={"where": {"n": 2}}, headers=key, timeout=20)
    assert other.status_code == 422
    assert other.json()["error"] == "IdempotencyKeyReusedError"
    assert collection.get()["ids"] == ["c"]


def test_every_client_reads_what_it_was_told_is_written(cluster: RunningCluster) -> None:
    collection = cluster.client().get_or_create_collection("session")
    for number in range(60):  # rotation reaches every node several times
        collection.upsert(ids=["x"], embeddings=[[float(number)]], metadatas=[{"version": number}])
        assert collection.get(ids=["x"])["metadatas"] == [{"version": number}]
        assert collection.count() == 1


def test_any_node_takes_a_write_and_forwards_it(cluster: RunningCluster) -> None:
    collection = cluster.client().get_or_create_collection("forwarded")
    for number, row in enumerate(cluster.status()["nodes"]):
        url, one = f"{row['url']}{COLLECTIONS}/{collection.id}", {"ids": [str(number)]}
        body = one | {"embeddings": [[float(number)]]}
        assert requests.post(f"{url}/add", json=body, auth=cluster.member, timeout=30).status_code == 201
        found = requests.post(f"{url}/get", json=one, auth=cluster.member, timeout=30)
        assert found.json()["ids"] == one["ids"]
    assert collection.count() == 3


def test_leadership_is_handed_over_when_the_leader_is_stopped_politely(cluster: RunningCluster) -> None:
    collection = cluster.client().get_or_create_collection("polite")
    writers = Writers(cluster.url, str(collection.id), count=4).start()
    writers.wait_acknowledged(50)
    leader = cluster.leader()
    cluster.kill(leader, signal.SIGTERM)
    cluster.wait("another leader", lambda: _other_leader(cluster, leader["id"]))
    cluster.wait("the old one to end", lambda: cluster.node(leader["id"])["pid"] is None)
    writers.wait_acknowledged(len(writers.acknowledged) + 50)
    writers.stop()
    assert not writers.unknown
    cluster.up()
    _assert_nothing_lost(cluster, str(collection.id), writers)


def test_minority_refuses_writes_and_session_reads_but_serves_eventual_ones(cluster: RunningCluster) -> None:
    collection = cluster.client().get_or_create_collection("minority")
    collection.upsert(ids=["x"], embeddings=[[1.0]])
    cluster.wait_caught_up()
    rows = cluster.status()["nodes"]
    alone = rows[0]
    for row in rows[1:]:
        cluster.kill(row)
    base = f"{alone['url']}{COLLECTIONS}/{collection.id}"

    def refused() -> bool:
        answer = requests.post(f"{base}/get", json={"ids": ["x"]}, auth=cluster.member, timeout=20)
        return answer.status_code == 503

    cluster.wait("the minority to refuse session reads", refused)
    eventual = requests.post(
        f"{base}/get",
        json={"ids": ["x"]},
        headers={"X-Chroma-Consistency": "eventual"},
        auth=cluster.member,
        timeout=20,
    )
    assert eventual.json()["ids"] == ["x"]
    write = requests.post(
        f"{base}/upsert",
        json={"ids": ["y"], "embeddings": [[2.0]]},
        auth=cluster.member,
        timeout=60,
    )
    assert write.status_code in (429, 503, 504)


def test_every_directory_opens_with_plain_chroma_after_down(cluster: RunningCluster) -> None:
    """The last one: it leaves the cluster down."""
    client = cluster.client()
    admin = chromadb.AdminClient(_settings(cluster))
    admin.create_tenant("acme")
    admin.create_database("books", tenant="acme")
    shelf = cluster.client(tenant="acme", database="books").create_collection("shelf", metadata={"floor": 2})
    shelf.add(ids=["1", "2"], embeddings=[[0.5, 1.5], [2.5, 3.5]], documents=["one", "two"])
    client.create_collection("stays")
    client.create_collection("gone")
    client.delete_collection("gone")
    cluster.wait_caught_up()
    names = sorted(each.name for each in client.list_collections())
    assert "stays" in names
    assert "gone" not in names
    paths = [row["chroma_path"] for row in cluster.status()["nodes"]]
    cluster.down()
    code = (
        "import chromadb, sys, json\n"
        "for path in sys.argv[1:]:\n"
        "    c = chromadb.PersistentClient(path, tenant='acme', database='books')\n"
        "    s = c.get_collection('shelf')\n"
        "    r = s.get(include=['embeddings', 'documents'])\n"
        "    names = sorted(x.name for x in chromadb.PersistentClient(path).list_collections())\n"
        "    print(json.dumps([s.metadata, r['ids'], r['documents'], r['embeddings'].tolist(), names]))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *paths], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    expected = [{"floor": 2}, ["1", "2"], ["one", "two"], [[0.5, 1.5], [2.5, 3.5]], names]
    assert [json.loads(line) for line in done.stdout.splitlines()] == [expected] * 3


def _settings(running: RunningCluster) -> chromadb.Settings:
    return chromadb.Settings(
        chroma_api_impl="chromadb.api.fastapi.FastAPI",
        chroma_server_host="127.0.0.1",
        chroma_server_http_port=running.port,
    )
