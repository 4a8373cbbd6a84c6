"""Chroma's process dies, hangs or is taken down by a request, on real nodes: the cluster goes on."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING, Any

import pytest
import requests

from cluster.failpoint import MARKED_WORDS
from tests.integration.harness import RunningCluster, running_cluster

if TYPE_CHECKING:
    from collections.abc import Iterator

    from chromadb.api.models.Collection import Collection

pytestmark = pytest.mark.slow
COLLECTIONS = "/api/v2/tenants/default_tenant/databases/default_database/collections"


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningCluster]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(MARKED_WORDS, "1")
        with running_cluster(tmp_path_factory.mktemp("cluster")) as running:
            yield running


@pytest.fixture(scope="module")
def collection(cluster: RunningCluster) -> Collection:
    made = cluster.client().get_or_create_collection("ours")
    made.upsert(ids=["x"], embeddings=[[1.0, 2.0]], metadatas=[{"turn": 0}])
    return made


@pytest.fixture(autouse=True)
def _everything_serves(cluster: RunningCluster) -> None:
    cluster.wait_caught_up()


def status(cluster: RunningCluster, row: dict[str, Any]) -> dict[str, Any]:
    answer: dict[str, Any] = requests.get(
        f"{row['url']}/cluster/status", auth=cluster.member, timeout=5
    ).json()
    return answer


def restarts(cluster: RunningCluster) -> int:
    return sum(status(cluster, row)["engine"]["restarts"] for row in cluster.status()["nodes"])


def signal_engine(cluster: RunningCluster, row: dict[str, Any], signum: int) -> int:
    pid = int(status(cluster, row)["engine"]["pid"])
    os.kill(pid, signum)
    return pid


def wait_replaced(cluster: RunningCluster, row: dict[str, Any], pid: int) -> None:
    def serves() -> bool:
        said = status(cluster, row)
        return said["engine"]["state"] == "serving" and said["engine"]["pid"] != pid and said["healthy"]

    cluster.wait("a new engine", serves)


@pytest.mark.parametrize("victim", ["leader", "follower"])
@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGSTOP])
def test_writes_and_reads_go_on_when_an_engine_is_killed_or_stopped(
    cluster: RunningCluster, collection: Collection, victim: str, signum: int
) -> None:
    row = cluster.leader() if victim == "leader" else cluster.followers()[0]
    pid = signal_engine(cluster, row, signum)
    for turn in range(12):  # rotation reaches every node, and none of these may fail
        collection.upsert(ids=["x"], embeddings=[[1.0, 2.0]], metadatas=[{"turn": turn}])
        assert collection.get(ids=["x"])["metadatas"] == [{"turn": turn}]
    wait_replaced(cluster, row, pid)
    assert str(pid) in status(cluster, row)["engine"]["last_death"]
    cluster.assert_replicas_equal(str(collection.id))


def test_with_two_engines_stopped_the_third_serves_and_status_waits_for_none(
    cluster: RunningCluster, collection: Collection
) -> None:
    rows = cluster.status()["nodes"][:2]
    pids = [signal_engine(cluster, row, signal.SIGSTOP) for row in rows]
    for row in rows:
        assert "documents" in status(cluster, row)
    for _ in range(9):
        assert collection.count() == 1
    for row, pid in zip(rows, pids, strict=True):
        wait_replaced(cluster, row, pid)


@pytest.mark.parametrize(("what", "cause"), [("crash", "SIGSEGV"), ("hang", "did nothing")])
def test_a_request_that_takes_an_engine_down_takes_one_down_and_is_refused_everywhere(
    cluster: RunningCluster, collection: Collection, what: str, cause: str
) -> None:
    body = {"where_document": {"$contains": f"failpoint:engine:{what}"}}
    before = restarts(cluster)
    url = f"{COLLECTIONS}/{collection.id}/get"
    first = requests.post(cluster.url + url, json=body, timeout=30)
    assert (first.status_code, first.json()["error"]) == (500, "EngineDiedError")
    assert cause in first.json()["message"]
    for base in (cluster.url, *(row["url"] for row in cluster.status()["nodes"])):
        again = requests.post(base + url, json=body, auth=cluster.member, timeout=30)
        assert (again.status_code, again.json()["error"]) == (500, "QuarantinedError"), base
        assert "more seconds" in again.json()["message"]

    def reads_well(base: str) -> bool:
        well = requests.post(base + url, json={"ids": ["x"]}, auth=cluster.member, timeout=30)
        return well.status_code == 200

    # The one that starts its engine again may need longer than its reads wait; all others read at once.
    assert reads_well(cluster.url)
    urls = [row["url"] for row in cluster.status()["nodes"]]
    late = [base for base in urls if not reads_well(base)]
    assert len(late) <= 1
    for base in late:
        cluster.wait(f"reads at {base}", lambda base=base: reads_well(base))
    cluster.wait_caught_up()
    assert restarts(cluster) == before + 1


def test_a_filter_of_a_delete_that_takes_the_judge_down_never_reaches_the_log(
    cluster: RunningCluster, collection: Collection
) -> None:
    pids = [row["pid"] for row in cluster.status()["nodes"]]
    index = status(cluster, cluster.leader())["commit_index"]
    body = {"where_document": {"$contains": "failpoint:scratch:crash"}}
    answer = requests.post(f"{cluster.url}{COLLECTIONS}/{collection.id}/delete", json=body, timeout=30)
    assert (answer.status_code, answer.json()["error"]) == (500, "EngineDiedError")
    assert status(cluster, cluster.leader())["commit_index"] == index
    assert [row["pid"] for row in cluster.status()["nodes"]] == pids

    def judged_again() -> bool:
        harmless = {"where": {"turn": -1}}
        url = f"{cluster.url}{COLLECTIONS}/{collection.id}/delete"
        return requests.post(url, json=harmless, timeout=30).status_code == 200

    cluster.wait("the judge to be back", judged_again)


def test_only_members_may_have_requests_refused_or_an_engine_restarted(
    cluster: RunningCluster, collection: Collection
) -> None:
    before = restarts(cluster)
    row = cluster.status()["nodes"][0]
    told = {"digest": "00", "cause": "x", "for_s": 60}
    text = {"collection_id": str(collection.id), "texts": ["a"], "query": False}
    for path, body in (
        ("suspect", told),
        ("check", {"collection_id": str(collection.id)}),
        ("read-index", {}),
        ("embed", text),
        ("status?watch=1", None),
    ):
        if body is None:
            answer = requests.get(f"{row['url']}/cluster/{path}", timeout=10)
            assert answer.status_code == 403, answer.text
            continue
        answer = requests.post(f"{row['url']}/cluster/{path}", json=body, timeout=10)
        assert answer.status_code == 403, answer.text
    assert restarts(cluster) == before


def test_a_hangup_is_logged_and_ends_no_node(cluster: RunningCluster, collection: Collection) -> None:
    row = cluster.status()["nodes"][0]
    log = cluster.data / "logs" / f"{row['id']}.log"
    os.kill(row["pid"], signal.SIGHUP)
    cluster.wait("the log to tell", lambda: "SIGHUP" in log.read_text(errors="replace"))
    assert cluster.status()["nodes"][0]["pid"] == row["pid"]
    url = f"{row['url']}{COLLECTIONS}/{collection.id}/nowhere"
    nowhere = requests.post(url, auth=cluster.member, timeout=10)
    assert (nowhere.status_code, nowhere.headers["X-Chroma-Outcome"]) == (404, "unchanged")
    bad = requests.post(f"{cluster.url}{COLLECTIONS}/{collection.id}/add", data=b"[", timeout=10)
    assert (bad.status_code // 100, bad.headers["X-Chroma-Outcome"]) == (4, "unchanged")


def test_an_engine_that_dies_again_and_again_costs_reads_nothing(
    cluster: RunningCluster, collection: Collection
) -> None:
    row = cluster.followers()[0]
    for _ in range(2):
        pid = signal_engine(cluster, row, signal.SIGKILL)

        def is_another(pid: int = pid) -> bool:
            assert collection.count() == 1
            return status(cluster, row)["engine"]["pid"] not in (None, pid)

        cluster.wait("another one", is_another)
    cluster.wait_caught_up()
