"""Clients that talk to followers directly while the leader hangs: they get their answer of its successor."""

from __future__ import annotations

import signal
import threading
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import requests

from tests.integration.harness import RunningCluster, running_cluster
from wire.proof import WATCH

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.integration.members import Member

pytestmark = pytest.mark.slow
COLLECTIONS = "/api/v2/tenants/default_tenant/databases/default_database/collections"
#: Far below the time after which a forwarded request without an answer is given up.
DEADLINE_S = 40.0


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningCluster]:
    with running_cluster(tmp_path_factory.mktemp("cluster")) as running:
        yield running


class Asked:
    """Requests under way, each in a thread of its own, and their answers by name."""

    def __init__(self, member: Member) -> None:
        self._member = member
        self.answers: dict[str, requests.Response | Exception] = {}
        self._threads: list[threading.Thread] = []

    def post(self, name: str, url: str, body: dict[str, Any], headers: dict[str, str]) -> None:
        def ask() -> None:
            try:
                self.answers[name] = requests.post(
                    url, json=body, headers=headers, auth=self._member, timeout=DEADLINE_S
                )
            except requests.RequestException as error:
                self.answers[name] = error

        self._threads.append(threading.Thread(target=ask))
        self._threads[-1].start()

    def statuses(self) -> dict[str, object]:
        for thread in self._threads:
            thread.join(DEADLINE_S + 20)
        return {
            name: answer.status_code if isinstance(answer, requests.Response) else repr(answer)
            for name, answer in self.answers.items()
        }


def test_direct_clients_of_the_followers_do_not_hang_on_a_paused_leader(cluster: RunningCluster) -> None:
    collection = cluster.client().create_collection("paused")
    at = f"{COLLECTIONS}/{collection.id}"
    numbers = [f"n{number}" for number in range(10)]
    vectors = np.ones((10, 2), dtype=np.float32)
    collection.add(ids=numbers, embeddings=vectors, metadatas=[{"n": 1} for _ in numbers])
    cluster.wait_caught_up()
    old = cluster.leader()
    followers = cluster.followers()
    asked = Asked(cluster.member)
    cluster.kill(old, signal.SIGSTOP)
    try:
        for row in followers:
            name, url = row["id"], f"{row['url']}{at}"
            # Each application would delete three of the ten.
            asked.post(f"{name} delete", f"{url}/delete", {"where": {"n": 1}, "limit": 3}, {})
            record = {"ids": [name], "embeddings": [[3.0, 4.0]]}
            asked.post(f"{name} add", f"{url}/add", record, {"Idempotency-Key": f"add-{name}"})
            strict = {"X-Chroma-Consistency": "linearizable"}
            asked.post(f"{name} get", f"{url}/get", {"ids": numbers[:1]}, strict)
        statuses = asked.statuses()
    finally:
        cluster.kill(old, signal.SIGCONT)
    for row in followers:
        assert statuses[f"{row['id']} delete"] == 200, statuses
        assert statuses[f"{row['id']} add"] == 201, statuses
        # Refused is right too, if the election took longer than a read may wait.
        assert statuses[f"{row['id']} get"] in (200, 503), statuses
    # What the old leader still held is in nobody's log a second time.
    records = cluster.assert_replicas_equal(str(collection.id))
    assert len(records) == 10 - 3 * len(followers) + len(followers), sorted(records)


def test_a_watcher_of_the_status_that_hangs_up_is_not_logged(cluster: RunningCluster) -> None:
    row = cluster.followers()[0]
    for _ in range(20):
        with requests.get(row["url"] + WATCH, auth=cluster.member, stream=True, timeout=30) as answer:
            assert next(answer.iter_lines())
    # One answer more than a period of the stream later: what the hang-ups cause has happened.
    with requests.get(row["url"] + WATCH, auth=cluster.member, stream=True, timeout=30) as answer:
        lines = answer.iter_lines()
        for _ in range(5):
            assert next(lines)
    log = (cluster.data / "logs" / f"{row['id']}.log").read_text(errors="replace")
    assert "ConnectionReset" not in log, log[-2000:]
    assert " ERROR " not in log, log[-2000:]
