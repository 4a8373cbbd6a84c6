"""A node whose disk is full says so with path and free bytes, and goes on by itself when there is room."""

from __future__ import annotations

import contextlib
import subprocess
from typing import TYPE_CHECKING, Any

import pytest
import requests

from tests.integration.harness import RunningCluster, running_cluster

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MIB = 1024 * 1024


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 96 MiB of its own."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=96m", "none", str(place)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("mounting a small file system is not allowed here")
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


def fill(place: Path) -> Path:
    """Take all room but about one MiB."""
    filler = place / "filler"
    with filler.open("wb") as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(MIB))
            file.flush()
    with filler.open("r+b") as file:
        file.truncate(filler.stat().st_size - MIB)
    return filler


def test_a_full_disk_is_named_and_waited_out(small_disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Else writes are refused before the disk is full.
    monkeypatch.setenv("CHROMA_CLUSTER_DISK_RESERVE_BYTES", "0")
    with running_cluster(small_disk / "data", nodes=1) as cluster:
        collection = cluster.client().create_collection("growing")
        collection.upsert(ids=["before"], embeddings=[[1.0, 2.0]])
        url = f"{cluster.node('node-1')['url']}/cluster/status"
        pid = cluster.node("node-1")["pid"]
        filler = fill(small_disk)
        failed = cluster.wait("the fault", lambda: _grow_until_failed(cluster, str(collection.id), url))
        assert failed is not None
        assert f"The disk is full: {_free(failed)} bytes are free at {small_disk}" in failed["reason"]
        assert "goes on by itself" in failed["remedy"]
        filler.unlink()
        cluster.wait("it to go on", lambda: (cluster.node("node-1")["state"]) == "ready", 60)
        assert cluster.node("node-1")["pid"] == pid, "the same process, made anew inside"
        collection.upsert(ids=["after"], embeddings=[[3.0, 4.0]])
        assert {"before", "after"} <= set(collection.get()["ids"])


def test_no_write_is_taken_that_would_fill_the_fullest_disk(small_disk: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    (data / "node-2").symlink_to(small_disk)
    with running_cluster(data) as cluster:
        collection = cluster.client().create_collection("growing")
        collection.upsert(ids=["a", "b"], embeddings=[[1.0, 2.0], [3.0, 4.0]])
        path = f"{cluster.url}/api/v2/tenants/default_tenant/databases/default_database/collections"
        body = {"ids": ["c"], "embeddings": [[1.0, 2.0]]}

        def answer() -> requests.Response:
            return requests.post(f"{path}/{collection.id}/upsert", json=body, timeout=30)

        filler = fill(small_disk)
        [refused] = cluster.wait("the refusal", lambda: [it for it in [answer()] if it.status_code != 200])
        assert (refused.status_code, refused.json()["error"]) == (507, "InsufficientStorageError")
        assert "The disk of node-2 is nearly full" in refused.json()["message"]
        assert refused.headers["X-Chroma-Outcome"] == "unchanged"
        created = requests.post(path, json={"name": "another"}, timeout=30)
        assert created.status_code == 507
        assert collection.get(ids=["a"])["ids"] == ["a"]
        collection.delete(ids=["a"])
        assert "a" not in collection.get()["ids"]
        assert all(row["healthy"] for row in cluster.status()["nodes"])
        filler.unlink()
        cluster.wait("writes to be taken again", lambda: answer().status_code == 200)
        collection.upsert(ids=["d"], embeddings=[[1.0, 2.0]])
        assert {"b", "c", "d"} <= set(collection.get()["ids"])


def _grow_until_failed(cluster: RunningCluster, collection_id: str, url: str) -> dict[str, Any] | None:
    path = f"/api/v2/tenants/default_tenant/databases/default_database/collections/{collection_id}/upsert"
    body = {"ids": ["grows"], "embeddings": [[1.0, 2.0]], "documents": ["x" * 400_000]}
    with contextlib.suppress(requests.RequestException):
        requests.post(cluster.url + path, json=body, timeout=3)
    answer: dict[str, Any] = requests.get(url, auth=cluster.member, timeout=10).json()
    return answer if answer["state"] == "failed" else None


def _free(status: dict[str, Any]) -> int:
    return int(status["reason"].partition("The disk is full: ")[2].partition(" ")[0] or -1)
