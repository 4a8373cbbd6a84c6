"""`up`, `status` and `down` with real processes: founding, resuming, repairing, refusing, ending."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import select
import shutil
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest
import requests

from cluster.cli.layout import DataDirectory
from cluster.cli.plan import new_plan
from cluster.cli.processes import Identity, identify
from evaluation.processes import free_port, free_ports
from tests.integration.harness import COMMAND, RunningCluster

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator
    from pathlib import Path

pytestmark = pytest.mark.slow

NODES = ["node-1", "node-2", "node-3"]
COLLECTIONS = "/api/v2/tenants/default_tenant/databases/default_database/collections"


@pytest.fixture
def stopped(tmp_path: Path) -> Iterator[RunningCluster]:
    """A cluster that does not exist yet; whatever the test leaves running is stopped."""
    cluster = RunningCluster(tmp_path / "data", free_port())
    yield cluster
    cluster.end()


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningCluster]:
    """A detached cluster; each test leaves it complete."""
    made = RunningCluster(tmp_path_factory.mktemp("cluster") / "data", free_port())
    try:
        made.up()
        yield made
    finally:
        made.down()


def command(cluster: RunningCluster, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run `chroma-cluster ARGUMENTS --data DIR` to its end, without a terminal."""
    line = [*COMMAND, *arguments, "--data", str(cluster.data)]
    return subprocess.run(
        line, capture_output=True, text=True, timeout=120, check=False, stdin=subprocess.DEVNULL
    )


def pids(cluster: RunningCluster) -> dict[str, int | None]:
    """Who runs: node ids and `lb`."""
    status = cluster.status()
    return {row["id"]: row["pid"] for row in status["nodes"]} | {"lb": status["balancer"]["pid"]}


def processes(cluster: RunningCluster) -> list[Identity]:
    """All that runs, to be looked at after it should have ended."""
    found = [identify(pid) for pid in pids(cluster).values() if pid is not None]
    return [process for process in found if process is not None]


def write(cluster: RunningCluster, name: str, record: str) -> None:
    """Add one record through the balancer, as curl would."""
    made = requests.post(
        f"{cluster.url}{COLLECTIONS}", json={"name": name, "get_or_create": True}, timeout=30
    )
    made.raise_for_status()
    added = requests.post(
        f"{cluster.url}{COLLECTIONS}/{made.json()['id']}/upsert",
        json={"ids": [record], "embeddings": [[1.0, 2.0]], "documents": [f"text of {record}"]},
        timeout=30,
    )
    added.raise_for_status()


def records(cluster: RunningCluster, name: str) -> list[str]:
    """The ids in a collection, read through the balancer."""
    found = requests.get(f"{cluster.url}{COLLECTIONS}/{name}", timeout=30)
    found.raise_for_status()
    answer = requests.post(f"{cluster.url}{COLLECTIONS}/{found.json()['id']}/get", json={}, timeout=30)
    answer.raise_for_status()
    ids: list[str] = answer.json()["ids"]
    return sorted(ids)


def eventually(what: str, condition: Callable[[], Any], deadline_s: float = 60) -> Any:
    """The first true value of `condition`."""
    end = time.monotonic() + deadline_s
    while not (value := condition()):
        assert time.monotonic() < end, f"waited {deadline_s} s for {what}"
        time.sleep(0.05)
    return value


class Terminal:
    """A command under a terminal of its own: what it shows can be read, and Ctrl-C be pressed."""

    def __init__(self, *arguments: str) -> None:
        self.master, slave = pty.openpty()
        self.process = subprocess.Popen(
            [*COMMAND, *arguments],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
            preexec_fn=_take_terminal,
            env={**os.environ, "TERM": "xterm", "COLUMNS": "200", "LINES": "50"},
        )
        os.close(slave)
        self.shown = ""

    def see(self, words: str) -> bool:
        """Have these words been shown by now?"""
        while select.select([self.master], [], [], 0)[0]:
            try:
                block = os.read(self.master, 65_536)
            except OSError:  # the other end is closed
                break
            if not block:
                break
            self.shown += block.decode(errors="replace")
        return words in self.shown

    def wait_for(self, words: str) -> None:
        """Wait until these words are shown."""
        end = time.monotonic() + 90
        while not self.see(words):
            assert self.process.poll() is None, f"it ended:\n{self.shown}"
            assert time.monotonic() < end, f"waited for {words!r}:\n{self.shown}"
            time.sleep(0.05)

    def press_ctrl_c(self) -> int:
        """Press Ctrl-C and wait for the end; the exit code."""
        os.write(self.master, b"\x03")
        return self.end()

    def end(self) -> int:
        """Wait for the end while reading what is shown; the exit code."""
        eventually("the command to end", lambda: self.see("\0") or self.process.poll() is not None)
        self.see("")
        return self.process.returncode

    def close(self) -> None:
        """Close the terminal's window; the command gets SIGHUP."""
        if self.master >= 0:
            os.close(self.master)
            self.master = -1


def _take_terminal() -> None:
    import fcntl
    import termios

    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


@contextlib.contextmanager
def terminal(*arguments: str) -> Generator[Terminal]:
    """A command under a terminal, killed at the end if it still runs."""
    opened = Terminal(*arguments)
    try:
        yield opened
    finally:
        if opened.process.poll() is None:
            opened.process.kill()
        opened.process.wait()
        opened.close()


def test_a_founded_cluster_answers_and_shows_the_stable_interface(cluster: RunningCluster) -> None:
    write(cluster, "founded", "a")
    assert records(cluster, "founded") == ["a"]
    eventually("all nodes healthy", lambda: all(row["healthy"] for row in cluster.status()["nodes"]))
    status = json.loads(command(cluster, "status", "--json").stdout)
    assert status["leader"] in NODES
    assert status["balancer"].keys() >= {"url", "pid", "healthy"}
    assert status["balancer"]["url"] == cluster.url
    assert status["balancer"]["healthy"] is True
    assert [row["id"] for row in status["nodes"]] == NODES
    assert sorted(row["role"] for row in status["nodes"]) == ["follower", "follower", "leader"]
    for row in status["nodes"]:
        assert {
            name: type(row[name]) for name in ("term", "last_index", "commit_index", "applied_index")
        } == {
            "term": int,
            "last_index": int,
            "commit_index": int,
            "applied_index": int,
        }
        assert row["chroma_path"] == str(cluster.data / row["id"] / "chroma")
        assert row["url"].startswith("http://")
        assert ":" in row["raft_address"]
        assert identify(row["pid"]) is not None
    assert command(cluster, "status").returncode == 0


def test_starting_it_leaves_no_trace_that_a_user_could_see(cluster: RunningCluster) -> None:
    tenant = requests.get(f"{cluster.url}/api/v2/tenants/default_tenant", timeout=30).json()
    assert tenant == {"name": "default_tenant", "resource_name": None}
    databases = requests.get(f"{cluster.url}/api/v2/tenants/default_tenant/databases", timeout=30).json()
    assert [database["name"] for database in databases] == ["default_database"]


def test_up_on_a_complete_cluster_changes_nothing(cluster: RunningCluster) -> None:
    before = pids(cluster)
    again = cluster.up()
    assert "nothing is missing" in again.stdout
    assert pids(cluster) == before


@pytest.mark.parametrize("name", ["node-2", "lb"])
def test_up_starts_just_what_is_missing(cluster: RunningCluster, name: str) -> None:
    write(cluster, "repaired", f"before {name}")
    before = pids(cluster)
    os.kill(before[name] or 0, signal.SIGKILL)
    eventually(f"{name} to be seen down", lambda: pids(cluster)[name] is None)
    if name != "lb":
        row = cluster.node(name)
        assert (row["role"], row["healthy"], row["pid"]) == ("down", False, None)
        assert row["term"] is row["last_index"] is row["commit_index"] is row["applied_index"] is None
        assert command(cluster, "status").returncode == 3
    else:
        assert command(cluster, "status", "--json").returncode == 1
    title = "the balancer" if name == "lb" else name
    assert f"missing and started now: {title}" in cluster.up().stdout
    after = pids(cluster)
    assert after.pop(name) not in (None, before.pop(name))
    assert after == before
    write(cluster, "repaired", f"after {name}")
    assert {f"before {name}", f"after {name}"} <= set(records(cluster, "repaired"))


def test_what_does_not_fit_a_running_cluster_is_refused(cluster: RunningCluster) -> None:
    before, plan = pids(cluster), (cluster.data / "cluster.json").read_bytes()
    more = command(cluster, "up", "--detach", "--nodes", "5")
    assert more.returncode == 1
    assert "holds a cluster of 3 nodes, but --nodes 5 was asked for" in more.stderr
    moved = command(cluster, "up", "--detach", "--port", str(free_port()))
    assert moved.returncode == 1
    assert f"The balancer runs on port {cluster.port}" in moved.stderr
    assert pids(cluster) == before
    assert (cluster.data / "cluster.json").read_bytes() == plan


def test_a_second_process_in_a_nodes_directory_is_refused(cluster: RunningCluster) -> None:
    row = cluster.node("node-1")
    line = [*COMMAND, "node", "--id", "node-1", "--cluster-id", cluster.status()["cluster"]]
    line += ["--data-dir", str(cluster.data / "node-1"), "--http", f"127.0.0.1:{free_port()}"]
    line += ["--raft", f"127.0.0.1:{free_port()}"]
    second = subprocess.run(line, capture_output=True, text=True, timeout=60, check=False)
    assert second.returncode == 1
    assert f"is in use by process {row['pid']}" in second.stderr
    assert cluster.node("node-1")["pid"] == row["pid"]


def test_another_cluster_cannot_take_the_port(cluster: RunningCluster, stopped: RunningCluster) -> None:
    stopped.port = cluster.port
    refused = stopped.up(check=False)
    assert refused.returncode == 1
    assert f"Port {cluster.port}, on which clients are to reach the cluster, is in use" in refused.stderr
    assert not (stopped.data / "cluster.json").exists()


def test_a_view_of_a_running_cluster_leaves_it_running(cluster: RunningCluster) -> None:
    before = pids(cluster)
    with terminal("up", "--data", str(cluster.data)) as view:
        view.wait_for("writes to node-")
        assert view.press_ctrl_c() == 0
        assert "The cluster stays up" in view.shown
    assert pids(cluster) == before


def test_watching_for_programs_gives_a_line_a_look(cluster: RunningCluster) -> None:
    line = [*COMMAND, "status", "--watch", "--json", "--data", str(cluster.data)]
    with subprocess.Popen(line, stdout=subprocess.PIPE, text=True) as watch:
        assert watch.stdout is not None
        looks = [json.loads(watch.stdout.readline()) for _ in range(2)]
        watch.send_signal(signal.SIGINT)
        assert watch.wait(30) == 0
    assert [look["cluster"] for look in looks] == [cluster.status()["cluster"]] * 2


def test_a_foreground_cluster_shows_deaths_and_ctrl_c_stops_all(stopped: RunningCluster) -> None:
    with terminal("up", "--data", str(stopped.data), "--port", str(stopped.port)) as view:
        view.wait_for("New cluster of 3 nodes")
        view.wait_for("writes to node-")
        write(stopped, "foreground", "a")
        first = pids(stopped)
        os.kill(first["node-3"] or 0, signal.SIGKILL)
        view.wait_for(f"node-3 (pid {first['node-3']}) is down")
        # As in another terminal, but without one: it starts the node, and does not stay.
        again = command(stopped, "up")
        assert (again.returncode, again.stderr) == (0, "")
        assert "missing and started now: node-3" in again.stdout
        view.wait_for("node-3 runs (pid")
        there = processes(stopped)
        assert len(there) == 4
        assert view.press_ctrl_c() == 0
        assert "The cluster is down." in view.shown
    assert not any(process.alive for process in there)
    assert set(pids(stopped).values()) == {None}


@pytest.mark.parametrize("how", ["SIGTERM", "the terminal closes"])
def test_the_end_of_a_foreground_up_ends_the_cluster(stopped: RunningCluster, how: str) -> None:
    with terminal("up", "--data", str(stopped.data), "--port", str(stopped.port)) as view:
        view.wait_for("writes to node-")
        there = processes(stopped)
        assert len(there) == 4
        if how == "SIGTERM":
            view.process.terminate()
            assert view.end() == 0
        else:
            view.close()
            assert view.process.wait(60) == 0
    assert not any(process.alive for process in there)


def test_down_ends_all_and_up_resumes_the_same_cluster(stopped: RunningCluster) -> None:
    assert stopped.up().stdout.startswith("New cluster of 3 nodes")
    write(stopped, "kept", "a")
    before, there = stopped.status(), processes(stopped)
    assert len(there) == 4
    os.kill(before["nodes"][0]["pid"], signal.SIGSTOP)  # a suspended node is stopped like the others
    done = command(stopped, "down")
    assert (done.returncode, done.stderr) == (0, "")
    assert not any(process.alive for process in there)
    again = command(stopped, "down")
    assert (again.returncode, again.stdout) == (0, "The cluster is not running: nothing to stop.\n")
    assert command(stopped, "status", "--json").returncode == 1
    assert "Resuming the cluster of 3 nodes" in stopped.up().stdout
    after = stopped.status()
    assert after["cluster"] == before["cluster"]
    assert after["balancer"]["url"] == before["balancer"]["url"]
    assert [(row["url"], row["raft_address"]) for row in after["nodes"]] == [
        (row["url"], row["raft_address"]) for row in before["nodes"]
    ]
    assert records(stopped, "kept") == ["a"]


def test_a_node_that_cannot_start_is_told_and_the_others_serve(stopped: RunningCluster) -> None:
    stopped.up()  # a new cluster is founded by all of its nodes
    assert command(stopped, "down").returncode == 0
    damaged = DataDirectory(stopped.data).node_directory("node-2")
    shutil.rmtree(damaged)
    damaged.write_text("not a directory")
    started = stopped.up(check=False)
    assert started.returncode == 1
    assert "node-2 ended with exit code 1; the end of its log:" in started.stderr
    assert "Cannot use the data directory" in started.stderr
    assert "The cluster answers writes without it." in started.stderr
    write(stopped, "damaged", "a")
    assert records(stopped, "damaged") == ["a"]


def test_what_cannot_answer_writes_is_not_left_running(stopped: RunningCluster) -> None:
    _found_with_damage(stopped, "node-1", "node-2")
    started = stopped.up(check=False)
    assert started.returncode == 1
    assert "The cluster does not answer writes" in started.stderr
    assert "What this command had started is stopped again." in started.stderr
    assert set(pids(stopped).values()) == {None}


def _found_with_damage(cluster: RunningCluster, *names: str) -> None:
    """A new cluster with a file where these nodes' directories are to be."""
    directory = DataDirectory(cluster.data)
    directory.prepare()
    ports = free_ports(6)
    directory.write_plan(new_plan(3, cluster.port, ports))
    for name in names:
        directory.node_directory(name).write_text("not a directory")


def test_the_module_is_the_command() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "cluster", "--help"], capture_output=True, text=True, check=True
    )
    assert "chroma-cluster" in done.stdout
