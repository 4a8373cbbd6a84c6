"""All or nothing of a write is seen, on every node and at every level, however large it is."""

from __future__ import annotations

import base64
import threading
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
    with running_cluster(tmp_path_factory.mktemp("whole")) as running:
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
    "records", [1_000, *(pytest.param(many, marks=pytest.mark.slow) for many in (5_000, 5_600))]
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
