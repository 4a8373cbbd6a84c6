"""Chroma fails on a write (an error, a death, a hang), on one, two or three of three nodes.

One cluster for all. Each node's Chroma fails on records whose ids begin with `poison-` while a file is there
(`cluster.chroma.poison`), and each node can be killed at the points of the containment.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import pytest
import requests

from cluster.chroma.poison import VARIABLE
from cluster.cli.layout import DataDirectory
from cluster.cli.plan import new_plan
from cluster.cli.serving import wait_until_serving
from cluster.cli.supervisor import Supervisor
from cluster.failpoint import VARIABLE as FAILPOINTS
from evaluation.processes import free_ports
from tests.integration.harness import RunningCluster

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

pytestmark = pytest.mark.slow

CONTAINMENT: Final = (
    "applier.before_stuck",
    "deliberation.before_propose",
    "deliberation.after_propose",
    "applier.before_refusal",
)
COLLECTIONS = "/api/v2/tenants/default_tenant/databases/default_database/collections"
DEADLINE_S = 60


@dataclass
class Lab:
    supervisor: Supervisor
    gates: Path
    cluster: RunningCluster

    @property
    def nodes(self) -> list[str]:
        return [node.id for node in self.supervisor.plan.nodes]

    def start(self, names: list[str]) -> None:
        for name in names:
            gate = self.gates / name
            gate.mkdir(exist_ok=True)
            os.environ[VARIABLE] = str(gate)
            os.environ[FAILPOINTS] = ";".join(f"{point}=kill:1@{gate / point}" for point in CONTAINMENT)
            self.supervisor.start([name])
        del os.environ[VARIABLE], os.environ[FAILPOINTS]

    def poison(self, names: list[str], way: str) -> None:
        for name in names:
            (self.gates / name / way).touch()

    def cure(self) -> None:
        for gate in self.gates.rglob("*"):
            if gate.is_file():
                gate.unlink()

    def status(self, name: str) -> dict[str, Any]:
        try:
            url = self.supervisor.plan.node(name).url
            answer: dict[str, Any] = requests.get(
                f"{url}/cluster/status", auth=self.cluster.member, timeout=5
            ).json()
        except (requests.RequestException, ValueError):
            return {}
        return answer

    def wait(self, what: str, condition: Callable[[], Any], deadline_s: float = DEADLINE_S) -> Any:
        end = time.monotonic() + deadline_s
        while not (value := condition()):
            if time.monotonic() > end:
                states = {name: self.status(name) for name in self.nodes}
                raise AssertionError(f"waited {deadline_s} s for {what}: {states}\n{self.cluster.logs()}")
            time.sleep(0.05)
        return value

    def wait_whole(self) -> str:
        """Every node is healthy and has applied everything; the leader's id."""

        def leader() -> str | None:
            rows = [self.status(name) for name in self.nodes]
            lead = next((row for row in rows if row.get("role") == "leader"), None)
            if lead is None or not all(row.get("healthy") and row.get("stuck") is None for row in rows):
                return None
            same = all(row["applied_index"] == lead["last_index"] for row in rows)
            return str(lead["id"]) if same else None

        return str(self.wait("a whole cluster", leader))

    def send(self, path: str, body: dict[str, Any], key: str) -> requests.Response:
        """Through the balancer, again under its key while the answer is 'try again'."""

        def answered() -> tuple[requests.Response] | None:
            url = f"{self.cluster.url}{COLLECTIONS}{path}"
            try:
                answer = requests.post(url, json=body, headers={"Idempotency-Key": key}, timeout=60)
            except requests.RequestException:
                return None
            # A tuple, for an answer of 500 is false.
            return None if answer.status_code in (429, 502, 503, 504) else (answer,)

        found: tuple[requests.Response] = self.wait(f"an answer to {key}", answered, 90)
        return found[0]

    def collection(self, name: str) -> str:
        answer = self.send("", {"name": name, "get_or_create": True}, f"create-{name}")
        assert answer.status_code == 200, answer.text
        return str(answer.json()["id"])

    def add(self, collection_id: str, *ids: str) -> requests.Response:
        body = {
            "ids": list(ids),
            "embeddings": [[1.0, float(at)] for at in range(len(ids))],
            "documents": [f"text of {name}" for name in ids],
        }
        return self.send(f"/{collection_id}/add", body, "-".join(("add", collection_id, *ids)))

    def ids(self, name: str, collection_id: str) -> set[str]:
        row = {"id": name, "url": self.supervisor.plan.node(name).url}
        return set(self.cluster.records(row, collection_id))

    def assert_equal(self, collection_id: str, expected: set[str]) -> None:
        self.wait_whole()
        for name in self.nodes:
            assert self.ids(name, collection_id) == expected, name


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    directory = DataDirectory(tmp_path_factory.mktemp("poison") / "data")
    directory.prepare()
    ports = free_ports(7)
    plan = new_plan(3, ports[0], ports[1:])
    directory.write_plan(plan)
    supervisor = Supervisor(directory, plan)
    gates = directory.root / "gates"
    gates.mkdir()
    made = Lab(supervisor, gates, RunningCluster(directory.root, plan.port))
    try:
        made.start(list(supervisor.names))
        assert wait_until_serving(supervisor, timeout_s=120, interrupted=lambda: False).answers
        yield made
    finally:
        supervisor.stop(list(supervisor.names), hurry=lambda: True)


@pytest.fixture(autouse=True)
def cured(lab: Lab) -> Iterator[None]:
    lab.cure()
    lab.wait_whole()
    yield
    lab.cure()


def beside(work: Callable[[], requests.Response]) -> tuple[threading.Thread, list[requests.Response]]:
    answers: list[requests.Response] = []
    thread = threading.Thread(target=lambda: answers.append(work()), daemon=True)
    thread.start()
    return thread, answers


@pytest.mark.parametrize("way", ["raise", "die", "hang"])
def test_on_all_nodes_the_write_is_the_casualty(lab: Lab, way: str) -> None:
    bad, good = lab.collection(f"bad-{way}"), lab.collection(f"good-{way}")
    assert lab.add(bad, "before").status_code == 201
    lab.poison(lab.nodes, way)
    _, answers = beside(lambda: lab.add(bad, "innocent", f"poison-{way}"))
    # Whoever asks for a status has documents counted: such reads must not hide a write that hangs.
    lab.wait("an answer", lambda: [lab.status(name) for name in lab.nodes] and answers)
    [refused] = answers
    assert refused.status_code == 500, refused.text
    assert refused.json()["error"] == "ContainedWriteError"
    assert "Nothing was changed" in refused.json()["message"]
    # The poison stays; everything else goes on, in the same collection too.
    assert lab.add(good, "a").status_code == 201
    assert lab.add(bad, "after").status_code == 201
    lab.assert_equal(bad, {"before", "after"})
    lab.assert_equal(good, {"a"})


def test_after_a_restart_of_all_nodes_it_is_still_refused(lab: Lab) -> None:
    bad = lab.collection("restarted")
    lab.poison(lab.nodes, "die")
    assert lab.add(bad, "poison-restart").status_code == 500
    for name in lab.nodes:
        lab.supervisor.children[name].process.kill()
    for name in lab.nodes:
        lab.supervisor.children[name].process.wait()
    lab.start(lab.nodes)
    lab.wait_whole()
    assert lab.add(bad, "later").status_code == 201
    assert lab.add(bad, "poison-restart").status_code == 500  # the same key: the same answer
    lab.assert_equal(bad, {"later"})


def test_what_was_done_before_the_engine_died_counts(lab: Lab) -> None:
    bad = lab.collection("done")
    lab.poison(lab.nodes, "die-after")
    assert lab.add(bad, "poison-done").status_code == 201
    lab.assert_equal(bad, {"poison-done"})


@pytest.mark.parametrize("way", ["raise", "die", pytest.param("hang", marks=pytest.mark.soak)])
def test_on_one_node_it_is_that_node_s_own_fault(lab: Lab, way: str) -> None:
    bad = lab.collection(f"one-{way}")
    victim = lab.wait_whole() if way == "raise" else next(n for n in lab.nodes if n != lab.wait_whole())
    lab.poison([victim], way)
    assert lab.add(bad, f"poison-one-{way}").status_code == 201
    lab.wait("the node to say so", lambda: (lab.status(victim).get("stuck") or {}).get("local"))
    assert not lab.status(victim)["healthy"]
    assert lab.add(bad, "meanwhile").status_code == 201
    lab.cure()
    lab.assert_equal(bad, {f"poison-one-{way}", "meanwhile"})


def test_on_two_nodes_the_third_serves(lab: Lab) -> None:
    bad = lab.collection("two")
    third = lab.wait_whole()
    lab.poison([name for name in lab.nodes if name != third], "raise")
    assert lab.add(bad, "poison-two").status_code == 201
    assert lab.add(bad, "meanwhile").status_code == 201
    assert lab.ids(third, bad) == {"poison-two", "meanwhile"}
    lab.cure()
    lab.assert_equal(bad, {"poison-two", "meanwhile"})


def test_three_in_a_row_set_the_collection_aside(lab: Lab) -> None:
    bad = lab.collection("aside")
    lab.poison(lab.nodes, "raise")
    for number in range(3):
        assert lab.add(bad, f"poison-aside-{number}").status_code == 500
    aside = lab.add(bad, "fine")
    assert (aside.status_code, aside.json()["error"]) == (500, "CollectionSetAsideError")
    lab.assert_equal(bad, set())
    gone = requests.delete(f"{lab.cluster.url}{COLLECTIONS}/aside", timeout=60)
    assert gone.status_code == 200
    assert lab.add(lab.collection("aside"), "fine").status_code in (201, 500)  # the key is the first one's


@pytest.mark.parametrize("point", CONTAINMENT)
def test_exactly_one_outcome_though_the_leader_is_killed_at(lab: Lab, point: str) -> None:
    bad = lab.collection(f"killed-{point}")
    leader = lab.wait_whole()
    lab.poison(lab.nodes, "raise")
    # Only a leader proposes, and who leads may change; the other points are met by every node.
    killed = lab.nodes if point.startswith("deliberation.") else [leader]
    for name in killed:
        (lab.gates / name / point).touch()
    thread, answers = beside(lambda: lab.add(bad, f"poison-{point}"))
    processes = {name: lab.supervisor.children[name].process for name in killed}
    lab.wait("a death", lambda: any(process.poll() is not None for process in processes.values()))
    for name in killed:
        (lab.gates / name / point).unlink()
    [dead] = [name for name in killed if processes[name].poll() is not None]
    assert processes[dead].returncode == -signal.SIGKILL
    lab.start([dead])
    thread.join(120)
    assert [answer.status_code for answer in answers] == [500]
    assert lab.add(bad, "after").status_code == 201
    lab.assert_equal(bad, {"after"})
