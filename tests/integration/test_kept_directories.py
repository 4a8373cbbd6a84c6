"""Data directories that earlier versions left behind: this version opens them, serves all of it, and goes on.

`tests/kept/format-N-level-M.tar.xz` is the directory of a stopped cluster of three nodes, of the version that
wrote format N of the journal's meta record, at command level M (none named: 1); `tests/kept/make.py` made it.
One node was killed before the last write, so its log is behind. A format that was ever released stays here
for ever.
"""

from __future__ import annotations

import json
import subprocess
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import chromadb
import pytest
import requests

from cluster.state.commands import NEWEST_LEVEL
from evaluation.processes import free_port
from tests.integration.harness import COMMAND, RunningCluster
from tests.kept.make import DELETED_FROM, KEY

if TYPE_CHECKING:
    from collections.abc import Iterator

    from chromadb.api.models.Collection import Collection

pytestmark = pytest.mark.slow

KEPT = sorted((Path(__file__).parents[1] / "kept").glob("format-*.tar.xz"))


@pytest.fixture(params=KEPT, ids=lambda path: path.name.partition(".")[0], scope="module")
def cluster(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningCluster]:
    data = tmp_path_factory.mktemp("kept") / "data"
    with tarfile.open(request.param) as archive:
        archive.extractall(data, filter="data")
    made = RunningCluster(data, _with_free_ports(data / "cluster.json"))
    try:
        made.up()
        yield made
    finally:
        made.down()


def _with_free_ports(plan_file: Path) -> int:
    """Other addresses for all, as those of then may be taken now; members find each other all the same."""
    plan: dict[str, Any] = json.loads(plan_file.read_text())
    plan["port"] = free_port()
    for node in plan["nodes"]:
        node["http"], node["raft"] = f"127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}"
    plan_file.write_text(json.dumps(plan))
    return int(plan["port"])


def kept(cluster: RunningCluster) -> Collection:
    return cluster.client().get_collection("kept", embedding_function=None)


def test_all_of_it_is_there_on_every_node(cluster: RunningCluster) -> None:
    collection = kept(cluster)
    assert collection.metadata == {"made": "then"}
    assert collection.configuration_json["hnsw"]["space"] == "cosine"
    ids = {f"r{number}" for number in range(DELETED_FROM)} | {"keyed", "late"}
    found = collection.get(include=["embeddings", "documents", "metadatas"])
    assert set(found["ids"]) == ids
    assert found["documents"] is not None
    assert dict(zip(found["ids"], found["documents"], strict=True))["r1"] == "changed"
    [metadata] = collection.get(ids=["r2"])["metadatas"] or ()
    assert metadata == {"n": 2, "even": True, "half": 1.0}
    records = cluster.assert_replicas_equal(str(collection.id))
    assert set(records) == ids
    assert [name for name in ("kept", "gone") if name in _names(cluster)] == ["kept"]


def _names(cluster: RunningCluster) -> list[str]:
    return [collection.name for collection in cluster.client().list_collections()]


def test_the_command_level_begins_where_it_was_and_rises_by_itself(cluster: RunningCluster) -> None:
    def in_force() -> set[int]:
        return {(row["level"] or {}).get("in_force", 0) for row in cluster.status()["nodes"]}

    cluster.wait("the level of this build", lambda: in_force() == {NEWEST_LEVEL})
    verified = subprocess.run(
        [*COMMAND, "verify", "--data", str(cluster.data)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert verified.returncode == 0, verified.stdout + verified.stderr


def test_tenants_and_databases_are_there(cluster: RunningCluster) -> None:
    client = chromadb.HttpClient(host="127.0.0.1", port=cluster.port, tenant="kept", database="shelves")
    assert client.get_collection("other", embedding_function=None).get()["ids"] == ["a"]


def test_a_write_of_then_is_known_by_its_key(cluster: RunningCluster, request: pytest.FixtureRequest) -> None:
    url = f"{cluster.url}/api/v2/tenants/default_tenant/databases/default_database/collections"
    other = {"ids": ["another"], "embeddings": [[1.0, 2.0, 3.0]]}
    answer = requests.post(
        f"{url}/{kept(cluster).id}/upsert", json=other, headers={"Idempotency-Key": KEY}, timeout=30
    )
    if "format-1]" in request.node.name:
        # Keys had no scope then, so that another tenant's use was taken for one's own; they count no more.
        assert answer.status_code == 200
        kept(cluster).delete(ids=["another"])
        return
    assert answer.status_code == 422, "the key is remembered, for another request"
    assert "another" not in kept(cluster).get()["ids"]


def test_it_goes_on(cluster: RunningCluster) -> None:
    collection = kept(cluster)
    collection.upsert(ids=["now"], embeddings=[[1.0, 2.0, 3.0]])
    assert collection.query(query_embeddings=[[1.0, 2.0, 3.0]], n_results=1)["ids"] == [["now"]]
    collection.delete(ids=["now"])
    assert collection.count() == DELETED_FROM + 2
