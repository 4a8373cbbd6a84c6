"""Which processes make a cluster, what is checked before they start, and how a start is judged."""

from __future__ import annotations

import fcntl
import os
import signal
import socket
import sys
import threading
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import pytest

from cluster.cli.children import Death
from cluster.cli.errors import StartError
from cluster.cli.layout import DataDirectory
from cluster.cli.locks import exclusive, lock_is_held
from cluster.cli.logs import log_tail, open_log
from cluster.cli.plan import ClusterPlan, new_plan
from cluster.cli.processes import Identity
from cluster.cli.serving import StartOutcome, answers_a_write, could_serve, wait_until_serving
from cluster.cli.supervisor import Supervisor, balancer_arguments, node_arguments
from evaluation.processes import free_ports

if TYPE_CHECKING:
    from collections.abc import Iterator

PLAN = new_plan(3, 8000, range(20_000, 20_010))


class Harmless(Supervisor):
    """Runs a Python one-liner in place of each process."""

    programs: ClassVar[dict[str, str]] = {}

    def command(self, name: str) -> list[str]:
        return [sys.executable, "-c", self.programs.get(name, "input()")]


@pytest.fixture
def directory(tmp_path: Path) -> DataDirectory:
    made = DataDirectory(tmp_path / "data")
    made.prepare()
    return made


@pytest.fixture
def plan() -> ClusterPlan:
    ports = free_ports(7)
    return new_plan(3, ports[0], ports[1:])


@pytest.fixture
def supervisor(directory: DataDirectory, plan: ClusterPlan) -> Iterator[Harmless]:
    made = Harmless(directory, plan)
    # They wait for nothing: each ends by a signal only.
    made.programs = dict.fromkeys(made.names, "import signal; signal.pause()")  # type: ignore[misc]
    yield made
    made.stop(list(made.names), hurry=lambda: True)


def test_a_node_gets_everything_but_the_secret_by_flags() -> None:
    arguments = node_arguments(PLAN, PLAN.nodes[1], Path("/data/node-2"))
    assert arguments == [
        *("node", "--id", "node-2", "--cluster-id", PLAN.cluster, "--data-dir", "/data/node-2"),
        *("--http", "127.0.0.1:20002", "--raft", "127.0.0.1:20003"),
        *("--peer", "node-1=127.0.0.1:20001,http://127.0.0.1:20000"),
        *("--peer", "node-3=127.0.0.1:20005,http://127.0.0.1:20004"),
    ]


def test_the_balancer_knows_all_nodes() -> None:
    assert balancer_arguments(PLAN) == [
        *("lb", "--listen", "127.0.0.1:8000", "--cluster-id", PLAN.cluster),
        *("--node", "node-1=http://127.0.0.1:20000"),
        *("--node", "node-2=http://127.0.0.1:20002"),
        *("--node", "node-3=http://127.0.0.1:20004"),
    ]


def test_command_lines_do_not_show_the_secret(directory: DataDirectory) -> None:
    real = Supervisor(directory, PLAN)
    assert all(PLAN.secret not in " ".join(real.command(name)) for name in real.names)


def test_what_is_started_runs_until_it_is_stopped(supervisor: Harmless) -> None:
    assert supervisor.missing() == ["node-1", "node-2", "node-3", "lb"]
    supervisor.start(supervisor.missing())
    assert supervisor.missing() == []
    there = supervisor.running()
    assert all(os.getsid(process.pid) == process.pid for process in there.values())
    assert set(supervisor.stop(list(supervisor.names))) == set(supervisor.names)
    assert not any(process.alive for process in there.values())
    assert supervisor.stop(list(supervisor.names)) == {}


def test_only_what_is_missing_is_missing(supervisor: Harmless, directory: DataDirectory) -> None:
    supervisor.start(supervisor.missing())
    there = supervisor.running()
    os.kill(there["node-2"].pid, signal.SIGKILL)
    supervisor.children["node-2"].process.wait()
    another = Harmless(directory, supervisor.plan)
    assert another.missing() == ["node-2"]
    assert not another.was_stopped("node-2")
    assert another.running()["node-1"] == there["node-1"]
    supervisor.stop(["node-1"])
    assert another.was_stopped("node-1")


def test_a_death_tells_code_and_the_end_of_its_own_log(
    supervisor: Harmless, directory: DataDirectory
) -> None:
    directory.log_file("node-1").write_text("from an earlier run\n")
    supervisor.programs["node-1"] = "import sys; print('the disk is full'); sys.exit(3)"
    supervisor.start(["node-1"])
    supervisor.children["node-1"].process.wait()
    (death,) = supervisor.deaths()
    assert death == Death("node-1", 3, "the disk is full")
    assert str(death) == "node-1 ended with exit code 3; the end of its log:\nthe disk is full"


def test_a_killed_process_is_told_with_its_signal() -> None:
    assert str(Death("lb", -9, "")) == "The balancer was killed by SIGKILL"


def test_a_port_in_use_is_told_before_anything_starts(directory: DataDirectory, plan: ClusterPlan) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        taken = Supervisor(directory, replace(plan, port=port))
        with pytest.raises(
            StartError, match=rf"Port {port}, .* Nothing was started\. Choose another with --port"
        ):
            taken.check(["lb"])
        node = replace(plan.nodes[0], raft=f"127.0.0.1:{port}")
        taken = Supervisor(directory, replace(plan, nodes=(node,)))
        with pytest.raises(StartError, match=r"node-1 talks to the other nodes, is in use"):
            taken.check(["node-1"])


def test_a_directory_in_use_is_told_with_its_holder(directory: DataDirectory, plan: ClusterPlan) -> None:
    lock = directory.node_lock("node-2")
    lock.parent.mkdir()
    lock.write_text("4711\n")
    real = Supervisor(directory, plan)
    real.check(["node-2"])
    with lock.open() as holder:
        fcntl.flock(holder, fcntl.LOCK_EX)
        assert lock_is_held(lock)
        with pytest.raises(StartError, match=r"in use by process 4711.*Nothing was started"):
            real.check(["node-2"])
    assert not lock_is_held(lock)


def test_one_up_or_down_at_a_time(directory: DataDirectory) -> None:
    with (
        exclusive(directory),
        pytest.raises(StartError, match="Nothing was changed"),
        exclusive(directory, timeout_s=0),
    ):
        pass
    with exclusive(directory, timeout_s=0):
        pass


def test_children_do_not_inherit_the_lock(supervisor: Harmless, directory: DataDirectory) -> None:
    with exclusive(directory):
        supervisor.start(["node-1"])
    with exclusive(directory, timeout_s=0):
        pass


def test_a_log_is_appended_to_until_it_is_too_big(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cluster.cli.logs.MAX_LOG_BYTES", 10)
    path = tmp_path / "node-1.log"
    for text, size in ((b"12345678", 0), (b"9012", 8), (b"new", 0)):
        with open_log(path) as file:
            assert file.tell() == size
            file.write(text)
    assert (tmp_path / "node-1.log.1").read_bytes() == b"123456789012"
    assert log_tail(path, 0) == "new"
    assert log_tail(tmp_path / "none.log", 0) == ""


@pytest.mark.parametrize(
    ("names", "nodes", "possible"),
    [
        (("node-1", "node-2", "lb"), 3, True),
        (("node-1", "node-2", "node-3"), 3, False),
        (("node-1", "lb"), 3, False),
        (("node-1", "lb"), 1, True),
        (("node-1", "node-2", "lb"), 4, False),
    ],
)
def test_writes_need_the_balancer_and_a_majority(names: tuple[str, ...], nodes: int, possible: bool) -> None:
    assert could_serve({name: Identity(1, "x") for name in names}, nodes) is possible


def wait(
    supervisor: Supervisor, answer: str | None, *, timeout_s: float = 30, stop: bool = False
) -> StartOutcome:
    return wait_until_serving(
        supervisor, timeout_s=timeout_s, interrupted=lambda: stop, probe=lambda url, key: answer
    )


def test_a_cluster_that_cannot_serve_any_more_is_not_waited_for(supervisor: Harmless) -> None:
    for name in ("node-1", "node-2"):
        supervisor.programs[name] = "raise SystemExit('no disk')"
    supervisor.start(supervisor.missing())
    outcome = wait(supervisor, "no leader")
    assert (outcome.answers, outcome.hopeless, outcome.reason) == (False, True, "no leader")
    assert {death.name: (death.code, death.tail) for death in outcome.deaths}["node-1"] == (1, "no disk")


def test_a_deadline_is_kept_and_its_reason_told(supervisor: Harmless) -> None:
    supervisor.start(supervisor.missing())
    mute = tuple(f"node-{number}: nothing listens on its port" for number in (1, 2, 3))
    assert wait(supervisor, "503", timeout_s=0) == StartOutcome(False, (), "503", unready=mute)
    assert wait(supervisor, None, timeout_s=0) == StartOutcome(True, (), None, unready=mute)


def test_an_interrupted_wait_ends(supervisor: Harmless) -> None:
    supervisor.start(supervisor.missing())
    assert wait(supervisor, "503", stop=True).reason == "interrupted"


def test_a_dead_node_does_not_keep_a_serving_cluster_from_being_up(supervisor: Harmless) -> None:
    supervisor.programs["node-3"] = "raise SystemExit('no disk')"
    supervisor.start(["lb", "node-3"])
    outcome = wait(supervisor, None)
    assert outcome.answers
    assert [death.name for death in outcome.deaths] == ["node-3"]


class Chroma(BaseHTTPRequestHandler):
    """Answers PATCH as told and remembers what it was asked."""

    status: ClassVar[int] = 200
    seen: ClassVar[list[tuple[str, str | None]]] = []

    def do_PATCH(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.seen.append((self.path, self.headers["Idempotency-Key"]))
        self.send_response(self.status)
        self.end_headers()
        self.wfile.write(b"{}" if self.status == 200 else b"no leader")

    def log_message(self, format: str, *args: object) -> None:
        """Quiet."""


def test_the_probe_is_a_write_with_a_key_that_leaves_no_trace(plan: ClusterPlan) -> None:
    refused = answers_a_write(plan.url, "key-1")
    assert refused == "a write got no answer: nothing listens on its port"
    with HTTPServer(("127.0.0.1", plan.port), Chroma) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            assert answers_a_write(plan.url, "key-1") is None
            Chroma.status = 503
            assert answers_a_write(plan.url, "key-1") == "a write was answered with 503: no leader"
        finally:
            server.shutdown()
            thread.join()
    assert Chroma.seen == [("/api/v2/tenants/default_tenant", "key-1")] * 2
