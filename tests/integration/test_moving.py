"""Collections moved in and out, between real directories, a real `chroma run` and a real cluster."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import chromadb
import pytest
import requests

from cluster.moving import directory
from cluster.moving.plan import PREFIX, NothingDone
from cluster.moving.run import Order, move
from tests.integration.differential import chroma_run
from tests.integration.harness import COMMAND, RunningCluster, free_port, running_cluster
from tests.integration.moving import everything, in_process

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.slow

PAGE = Path(__file__).parents[2] / "docs" / "migration.md"
BULK = 600
TENANTS = ("default_tenant", "acme")
BASE = "/api/v2/tenants/default_tenant/databases/default_database/collections"


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningCluster]:
    with running_cluster(tmp_path_factory.mktemp("moving") / "data") as running:
        yield running


@pytest.fixture(scope="module")
def chroma(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with chroma_run(tmp_path_factory.mktemp("chroma-run")) as url:
        yield url


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with everything that is awkward, which nobody opens any more."""
    path = tmp_path_factory.mktemp("original") / "chroma"
    in_process("make", path, str(BULK))
    return path


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same without lists in metadata."""
    path = tmp_path_factory.mktemp("plain") / "chroma"
    in_process("make", path, str(BULK), "no-lists")
    return path


@pytest.fixture
def empty(cluster: RunningCluster, chroma: str) -> None:
    """Both servers without collections."""
    for url in (cluster.url, chroma):
        for tenant, database in (
            ("default_tenant", "default_database"),
            ("acme", "default"),
            ("acme", "archive"),
        ):
            base = f"{url}/api/v2/tenants/{tenant}/databases/{database}/collections"
            found = requests.get(base, timeout=30)
            for one in found.json() if found.ok else []:
                requests.delete(f"{base}/{one['name']}", timeout=30).raise_for_status()


class Silent:
    """Watches a move without showing it; does something once: in the middle, or after `calls` records."""

    def __init__(
        self,
        when_moved: Callable[[], None] | None = None,
        when_verified: Callable[[], None] | None = None,
        calls: int = 0,
    ) -> None:
        self._when_moved = when_moved
        self._when_verified = when_verified
        self._left = calls

    def begin(self, total: int) -> None:
        del total

    def moved(self, count: int) -> None:
        then, self._when_moved = self._when_moved, None
        if count and then is not None:
            then()

    def verified(self, count: int) -> None:
        self._left -= count
        if self._left <= 0 and self._when_verified is not None:
            then, self._when_verified = self._when_verified, None
            then()


def moved(
    source: str | Path, target: str | Path, work: Path, watch: Silent | None = None, **flags: Any
) -> Any:
    """The report of a move in this process."""
    return asyncio.run(move(Order(str(source), str(target), work, **flags), watch or Silent()))


def command(*words: str | Path) -> subprocess.CompletedProcess[str]:
    whole = [*COMMAND, *map(str, words)]
    return subprocess.run(whole, capture_output=True, text=True, timeout=120, check=False)


def outcomes(report: dict[str, Any]) -> dict[str, str]:
    return {f"{one['database']}/{one['name']}": one["outcome"] for one in report["collections"]}


def served(url: str) -> Any:
    """What a stock client of a server sees."""
    port = int(url.rpartition(":")[2])
    return everything(
        lambda tenant, database: chromadb.HttpClient("127.0.0.1", port, tenant=tenant, database=database)
    )


def fill(url: str, name: str, ids: list[str]) -> str:
    made = requests.post(url + BASE, json={"name": name, "get_or_create": True}, timeout=30).json()
    body = {"ids": ids, "embeddings": [[1.0, 2.0]] * len(ids)}
    requests.post(f"{url}{BASE}/{made['id']}/add", json=body, timeout=30).raise_for_status()
    return str(made["id"])


def names(url: str) -> dict[str, str]:
    return {one["name"]: one["id"] for one in requests.get(url + BASE, timeout=30).json()}


@pytest.mark.usefixtures("empty")
def test_there_and_back_everything_is_the_same(
    cluster: RunningCluster, original: Path, tmp_path: Path
) -> None:
    """With kill -9 at several places of the way in, each time followed by the same command."""
    before, work = directory.fingerprint(original), tmp_path / "work"
    words = ["import", str(original), "--url", cluster.url, "--work", str(work), "--json"]
    for lines in (4, 9, 12):
        kill_at(words, work, lines)
        assert "many" not in names(cluster.url) or not any(PREFIX in name for name in names(cluster.url))
    done = command(*words)
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads(done.stdout)
    assert (report["result"], report["resumed"], report["records"]) == ("moved", True, BULK + 12)
    assert list(work.iterdir()) == []
    assert not any(PREFIX in name for name in names(cluster.url))
    assert directory.fingerprint(original) == before

    shutil.copytree(original, tmp_path / "opened")
    expected = in_process("show", tmp_path / "opened")
    assert served(cluster.url) == expected
    report = moved(cluster.url, tmp_path / "back", work, tenants=TENANTS)
    assert (report["result"], report["records"]) == ("moved", BULK + 12)
    assert in_process("show", tmp_path / "back") == expected
    assert sorted(path.name for path in tmp_path.iterdir()) == ["back", "opened", "work"]


def kill_at(words: list[str], work: Path, lines: int) -> None:
    """Start a move and kill it once its journal has so many lines."""
    process = subprocess.Popen([*COMMAND, *words], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    end = time.monotonic() + 60
    while process.poll() is None and time.monotonic() < end:
        journals = list(work.glob("*/journal.jsonl"))
        if journals and journals[0].read_bytes().count(b"\n") >= lines:
            break
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, "it was done before it was killed"


@pytest.mark.usefixtures("empty")
def test_what_exists_is_refused_skipped_or_replaced(
    cluster: RunningCluster, chroma: str, tmp_path: Path
) -> None:
    fill(chroma, "both", ["new"])
    fill(chroma, "only-there", ["x"])
    there = fill(cluster.url, "both", ["old"])
    with pytest.raises(
        NothingDone, match=r"default_tenant/default_database/both already\. Nothing was changed"
    ):
        moved(chroma, cluster.url, tmp_path)
    assert names(cluster.url) == {"both": there}
    done = command("import", chroma, "--url", cluster.url, "--work", tmp_path, "--existing", "skip", "--json")
    assert done.returncode == 0
    assert outcomes(json.loads(done.stdout)) == {
        "default_database/both": "skipped",
        "default_database/only-there": "moved",
    }
    assert names(cluster.url)["both"] == there
    report = moved(chroma, cluster.url, tmp_path, existing="replace")
    assert set(outcomes(report).values()) == {"replaced"}
    assert cluster.client().get_collection("both").get()["ids"] == ["new"]
    # And on to a server: the way back.
    fill(cluster.url, "since", ["y"])
    assert (
        outcomes(moved(cluster.url, chroma, tmp_path, existing="skip"))["default_database/since"] == "moved"
    )


@pytest.mark.usefixtures("empty")
def test_a_source_that_changes_meanwhile_is_told(
    cluster: RunningCluster, chroma: str, plain: Path, tmp_path: Path
) -> None:
    busy = fill(chroma, "busy", [str(number) for number in range(50)])
    fill(chroma, "calm", ["x"])

    def change(where: str, **body: Any) -> None:
        told = {"embeddings": [[5.0, 6.0]], **body}
        requests.post(f"{chroma}{BASE}/{busy}/{where}", json=told, timeout=30).raise_for_status()

    watch = Silent(when_moved=lambda: change("update", ids=["0"]))
    report = moved(chroma, cluster.url, tmp_path / "a", watch)
    assert report["result"] == "differs"
    assert outcomes(report) == {"default_database/busy": "differs", "default_database/calm": "moved"}
    assert any("busy was written to" in change for change in report["source_changed"])
    assert set(names(cluster.url)) == {"calm"}
    # One that changes after it was compared: it is there, as it was then.
    watch = Silent(when_verified=lambda: change("add", ids=["late"]), calls=51)
    report = moved(chroma, cluster.url, tmp_path / "a", watch, existing="replace")
    assert outcomes(report) == {"default_database/busy": "moved", "default_database/calm": "replaced"}
    assert report["source_changed"] == ["default_tenant/default_database/busy had 50 records and has 51"]
    assert report["result"] == "differs"

    written = tmp_path / "written"
    shutil.copytree(plain, written)

    def write() -> None:
        with sqlite3.connect(written / "chroma.sqlite3") as database:
            database.execute("CREATE TABLE somebody (wrote TEXT)")
        database.close()

    report = moved(written, cluster.url, tmp_path / "b", Silent(write), existing="replace")
    assert report["result"] == "differs"
    assert "was written to after it was copied (chroma.sqlite3)" in report["source_changed"][0]


@pytest.mark.usefixtures("empty")
def test_what_cannot_be_moved_is_named_and_the_rest_is_moved(cluster: RunningCluster, tmp_path: Path) -> None:
    source = tmp_path / "source"
    script = (
        "import sys, chromadb\n"
        "client = chromadb.PersistentClient(sys.argv[1])\n"
        "for name, value in (('good', 1.5), ('long', 'x' * 9_000_000)):\n"
        "    made = client.create_collection(name + '-one', embedding_function=None)\n"
        "    made.add(ids=['a', 'b', 'c'], embeddings=[[1.0], [2.0], [3.0]],\n"
        "             metadatas=[{'k': 1.0}, {'k': value}, {'k': 2.0}])\n"
    )
    subprocess.run([sys.executable, "-c", script, source], check=True, timeout=60)
    done = command("import", source, "--url", cluster.url, "--work", tmp_path / "work")
    assert done.returncode == 1
    assert "moved  default_tenant/default_database/good-one: 3 records" in done.stdout
    assert "its record 'b': the target refuses it: Over a limit" in done.stdout
    assert set(names(cluster.url)) == {"good-one"}


def damaged(path: Path, original: Path) -> Path:
    shutil.copytree(original, path)
    data = bytearray((path / "chroma.sqlite3").read_bytes())
    data[4096 * 2 : 4096 * 12] = b"\xff" * 4096 * 10
    (path / "chroma.sqlite3").write_bytes(data)
    return path


@pytest.mark.usefixtures("empty")
def test_bad_input_changes_nothing_and_leaves_nothing(
    cluster: RunningCluster, original: Path, tmp_path: Path
) -> None:
    (tmp_path / "none").mkdir()
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "chroma.sqlite3").write_text("no database")
    (tmp_path / "other").mkdir()
    sqlite3.connect(tmp_path / "other" / "chroma.sqlite3").execute("CREATE TABLE a (b)").connection.close()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    closed = f"http://127.0.0.1:{free_port()}"
    node = cluster.status()["nodes"][0]["url"]
    url, work = cluster.url, tmp_path / "work"
    tries: list[tuple[Any, Any, str]] = [
        (tmp_path / "absent", url, "does not exist"),
        (tmp_path / "none", url, "is no Chroma directory"),
        (original.parent, url, f"There is one in {original}"),
        (tmp_path / "text", url, "is no SQLite file"),
        (tmp_path / "other", url, "is not Chroma's"),
        (damaged(tmp_path / "damaged", original), url, "is damaged"),
        (closed, url, "does not answer"),
        (original, closed, "does not answer"),
        (node, url, "does not let us in"),
        (url, tmp_path / "full", "exists already"),
    ]
    for source, target, said in tries:
        with pytest.raises(NothingDone, match=re.escape(said)) as caught:
            moved(source, target, work)
        assert "Nothing was changed" in caught.value.message
        assert list(work.iterdir()) == []
    with pytest.raises(NothingDone, match="has no tenant 'nobody'"):
        moved(url, tmp_path / "new", work, tenants=("nobody",))
    assert not (tmp_path / "new").exists()
    assert not (tmp_path / "new.partial").exists()
    for words in ((url, url), ("ftp://x", url), (f"{url}/api", url), ("http://a:b@c", url)):
        done = command("import", words[0], "--url", words[1], "--work", work)
        assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert names(url) == {}


@pytest.mark.usefixtures("empty")
def test_another_order_does_not_go_on_with_an_interrupted_one(
    cluster: RunningCluster, plain: Path, tmp_path: Path
) -> None:
    words = ["import", str(plain), "--url", cluster.url, "--work", str(tmp_path)]
    kill_at(words, tmp_path, 6)
    done = command(*words, "--existing", "skip")
    assert done.returncode == 2
    assert "was interrupted, which was told otherwise (existing 'refuse')" in done.stderr
    done = command(*words, "--existing", "replace", "--afresh", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["resumed"] is False
    assert not any(PREFIX in name for name in names(cluster.url))


@pytest.mark.usefixtures("empty")
def test_every_command_of_the_page_works(
    cluster: RunningCluster, chroma: str, plain: Path, tmp_path: Path
) -> None:
    blocks = re.findall(r"```sh\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    commands = [line for block in blocks for line in block.splitlines()]
    assert len(commands) == 6
    with chroma_run(tmp_path / "second") as second:
        here = {
            "/srv/cluster": str(cluster.data),
            "--port 8000": f"--port {cluster.port}",
            "/srv/chroma": str(plain),
            "/srv/back": str(tmp_path / "back"),
            "http://localhost:8000": cluster.url,
            "http://localhost:9000": chroma,
            "http://localhost:9001": second,
        }
        fill(chroma, "of-a-server", ["x"])
        for line in commands:
            for there, it in here.items():
                line = line.replace(there, it)
            _, *words = line.split()
            done = subprocess.run(
                [*COMMAND, *words],
                capture_output=True,
                text=True,
                timeout=120,
                check=False,
                env={**os.environ, "XDG_STATE_HOME": str(tmp_path / "state")},
            )
            assert done.returncode == 0, f"{line}: {done.stdout}{done.stderr}"
        assert set(names(second)) == set(names(cluster.url)) > {"of-a-server", "notes", "many"}
