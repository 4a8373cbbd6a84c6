"""What writes and reads promise, on three real nodes: whole writes, honest early answers, sessions, room."""

from __future__ import annotations

import base64
import contextlib
import threading
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import requests

from tests.integration.harness import RunningCluster, running_cluster

if TYPE_CHECKING:
    from collections.abc import Iterator

COLLECTIONS = "/api/v2/tenants/default_tenant/databases/default_database/collections"
DIMENSION = 4
ROUNDS = 3


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningCluster]:
    with running_cluster(tmp_path_factory.mktemp("whole"), direct_clients=True) as running:
        yield running


def create(cluster: RunningCluster, name: str) -> str:
    answer = requests.post(f"{cluster.url}{COLLECTIONS}", json={"name": name}, timeout=30)
    answer.raise_for_status()
    return str(answer.json()["id"])


def upsert(url: str, collection_id: str, records: int, number: int) -> None:
    """Records that all carry `number`: as metadata, document, and in the vector."""
    row = base64.b64encode(np.full(DIMENSION, number, dtype="<f4").tobytes()).decode()
    body = {
        "ids": [f"i{n}" for n in range(records)],
        "embeddings": [row] * records,
        "metadatas": [{"n": number}] * records,
        "documents": [str(number)] * records,
    }
    answer = requests.post(f"{url}{COLLECTIONS}/{collection_id}/upsert", json=body, timeout=120)
    assert answer.status_code == 200, answer.text


def numbers_in(answer: dict[str, Any]) -> set[int]:
    """Every number that a `get` or the one row of a `query` shows in any of its fields."""
    query = bool(answer["ids"]) and isinstance(answer["ids"][0], list)
    columns = {
        name: answer[name][0] if query else answer[name] for name in ("metadatas", "documents", "embeddings")
    }
    found = {metadata["n"] for metadata in columns["metadatas"]}
    found |= {int(text) for text in columns["documents"]}
    return found | {int(vector[0]) for vector in columns["embeddings"]}


class Readers:
    """Read all the time what every node has at a level, until told to stop; keeps what was mixed."""

    def __init__(self, targets: list[tuple[str, str]], collection_id: str, records: int) -> None:
        self.reads = 0
        self.wrong: list[str] = []
        self._collection, self._records = collection_id, records
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=self._read, args=(*target, "query" if number == 1 else "get"))
            for number, target in enumerate(targets)
        ]

    def __enter__(self) -> Readers:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _read(self, url: str, level: str, kind: str) -> None:
        body: dict[str, Any] = {"include": ["metadatas", "documents", "embeddings"]}
        if kind == "query":
            body |= {"query_embeddings": [[0.0] * DIMENSION], "n_results": 50}
        while not self._stop.wait(0.05):  # leaves the processor to those who write
            answer = requests.post(
                f"{url}{COLLECTIONS}/{self._collection}/{kind}",
                json=body,
                headers={"X-Chroma-Consistency": level},
                timeout=60,
            )
            if answer.status_code == 503:
                continue  # it waits for a write that is under way: no answer is no half
            if answer.status_code != 200:
                self.wrong.append(f"{kind} {level}: {answer.status_code} {answer.text[:200]}")
                return
            found = answer.json()
            seen = numbers_in(found)
            if len(seen) > 1 or (kind == "get" and len(found["ids"]) not in (0, self._records)):
                self.wrong.append(f"{kind} {level} at {url}: {sorted(seen)}, {len(found['ids'])} ids")
            self.reads += 1


# 5,461 records fit in one call of Chroma; more are written in parts.
@pytest.mark.parametrize(
    "records",
    [
        1_000,
        pytest.param(5_000, marks=[pytest.mark.slow, pytest.mark.soak]),
        pytest.param(5_600, marks=pytest.mark.slow),
    ],
)
def test_no_read_sees_a_part_of_a_write(cluster: RunningCluster, records: int) -> None:
    collection_id = create(cluster, f"whole-{records}")
    urls = [row["url"] for row in cluster.status()["nodes"]]
    levels = ("session", "linearizable", "eventual")
    targets = list(zip(urls, levels, strict=True)) if records < 5_461 else [(cluster.url, "eventual")]
    with Readers(targets, collection_id, records) as readers:
        for number in range(ROUNDS):
            upsert(cluster.url, collection_id, records, number)
    assert readers.wrong == []
    assert readers.reads >= ROUNDS


def post(url: str, path: str, body: Any, **headers: str) -> requests.Response:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return requests.post(f"{url}{COLLECTIONS}{path}", json=body, headers=named, timeout=60)


@pytest.mark.parametrize("at", ["leader", "follower", "balancer"])
def test_what_the_log_refuses_is_not_acknowledged_at_commit(cluster: RunningCluster, at: str) -> None:
    collection_id = create(cluster, f"early-{at}")
    leader = cluster.leader()["url"]
    url = {"leader": leader, "follower": cluster.followers()[0]["url"], "balancer": cluster.url}[at]

    def add(where: str, record_id: str, vector: list[float], key: str, ack: str) -> tuple[int, Any]:
        body = {"ids": [record_id], "embeddings": [vector]}
        answer = post(url, f"/{where}/add", body, X_Chroma_Ack=ack, Idempotency_Key=f"{at}-{key}-{ack}")
        return answer.status_code, answer.json()

    for ack in ("applied", "committed"):
        assert add(collection_id, f"first-{ack}", [1.0, 2.0], "first", ack) == (201, {})
        assert add(collection_id, f"second-{ack}", [1.0, 2.0], "second", ack) == (201, {})
    missing = "00000000-0000-4000-8000-00000000abcd"
    for where, vector, key, status in (
        (missing, [1.0, 2.0], "missing", 404),
        (collection_id, [1.0], "dimension", 400),
        (collection_id, [3.0, 4.0], "second", 422),
    ):
        late, early = (add(where, "x", vector, key, ack) for ack in ("applied", "committed"))
        assert early == late
        assert early[0] == status
    # A write right behind the deletion of its collection, which nobody has waited for.
    answers: list[int] = []
    deleting = threading.Thread(
        target=lambda: requests.delete(f"{url}{COLLECTIONS}/early-{at}", timeout=60).raise_for_status()
    )
    deleting.start()
    while deleting.is_alive():
        answers.append(add(collection_id, f"n{len(answers)}", [1.0, 2.0], f"n{len(answers)}", "committed")[0])
    deleting.join()
    assert add(collection_id, "last", [1.0, 2.0], "last", "committed")[0] == 404
    assert answers == sorted(answers), "accepted after it was refused"
    assert set(answers) <= {201, 404}


def test_an_answer_that_a_collection_is_gone_carries_the_session(cluster: RunningCluster) -> None:
    collection_id = create(cluster, "gone")
    urls = [row["url"] for row in cluster.status()["nodes"]]
    deleted = requests.delete(f"{cluster.url}{COLLECTIONS}/gone", timeout=30)
    index = int(deleted.headers["X-Chroma-Log-Index"])
    for url in urls:
        path = f"{url}{COLLECTIONS}/{collection_id}"
        asked = {"X-Chroma-Min-Index": str(index)}
        answers = [
            requests.get(f"{path}/count", headers=asked, timeout=30),
            requests.post(f"{path}/get", json={}, headers=asked, timeout=30),
            requests.post(f"{path}/query", json={"query_embeddings": [[1.0]]}, headers=asked, timeout=30),
            requests.get(f"{url}{COLLECTIONS}/gone", headers=asked, timeout=30),
            requests.post(f"{path}/upsert", json={"ids": ["1"], "embeddings": [[1.0]]}, timeout=30),
        ]
        assert [answer.status_code for answer in answers] == [404] * 5
        assert all(int(answer.headers["X-Chroma-Log-Index"]) >= index for answer in answers)


def test_writes_that_were_given_up_make_room_for_others(cluster: RunningCluster) -> None:
    collection_id = create(cluster, "room")
    large = {"ids": [f"l{n}" for n in range(2)], "embeddings": [[0.5] * DIMENSION] * 2}
    large["documents"] = ["x" * (14 * 1024 * 1024)] * 2

    def give_up(number: int) -> None:
        url = (cluster.url, cluster.followers()[0]["url"])[number % 2]
        with contextlib.suppress(requests.RequestException):
            requests.post(f"{url}{COLLECTIONS}/{collection_id}/add", json=large, timeout=0.7)

    givers = [threading.Thread(target=give_up, args=(number,)) for number in range(4)]
    for giver in givers:
        giver.start()
    statuses: list[int] = []
    while any(giver.is_alive() for giver in givers) or len(statuses) < 4:
        body = {"ids": ["s"], "embeddings": [[1.0] * DIMENSION]}
        statuses.append(post(cluster.url, f"/{collection_id}/upsert", body).status_code)
    assert set(statuses) == {200}

    def held() -> bool:
        said = requests.get(f"{cluster.url}/cluster/status", auth=cluster.member, timeout=10).json()
        return said["buffered_bytes"] == 0

    end = time.monotonic() + 30
    while not held():
        assert time.monotonic() < end, "the balancer still holds what nobody waits for"
