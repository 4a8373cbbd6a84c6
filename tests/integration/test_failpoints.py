"""A node is killed at every point between a request and its answer: the write happens exactly once.

One cluster for all. Every process has every point armed behind a file of its own that opens it (see
`cluster.failpoint`), so that a node that was killed starts again with all points closed, ready for the next.
"""

from __future__ import annotations

import os
import re
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import pytest
import requests

from cluster.cli.layout import DataDirectory
from cluster.cli.plan import BALANCER, new_plan
from cluster.cli.processes import identify
from cluster.cli.serving import wait_until_serving
from cluster.cli.supervisor import Supervisor
from cluster.failpoint import NAMES, VARIABLE
from evaluation.processes import free_ports
from tests.integration.harness import RunningCluster
from tests.integration.test_poison import CONTAINMENT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

pytestmark = pytest.mark.slow

COLLECTIONS = "/api/v2/tenants/default_tenant/databases/default_database/collections"
SEEDED, LIMIT, ADDED, BIG = 5, 2, 3, 5_600

Victim = Literal["leader", "follower"]
Kind = Literal["delete", "add", "create", "big"]


@dataclass(frozen=True)
class Case:
    """Who dies where, and in the middle of which write."""

    point: str
    victim: Victim
    kind: Kind

    @property
    def tag(self) -> str:
        return f"{self.point}-{self.victim}-{self.kind}"


CASES = [
    Case("forward.before_send", "follower", "delete"),
    Case("api.decoded", "leader", "delete"),
    Case("proposer.before_join", "leader", "add"),
    Case("proposer.after_join", "leader", "create"),
    Case("proposer.before_propose", "leader", "delete"),
    Case("raft.appended", "leader", "add"),
    Case("raft.before_send", "leader", "delete"),
    Case("raft.after_send", "leader", "create"),
    Case("raft.append_received", "follower", "delete"),
    Case("journal.before_write", "leader", "add"),
    Case("journal.before_fsync", "leader", "delete"),
    Case("journal.before_fsync", "follower", "create"),
    Case("journal.after_fsync", "leader", "create"),
    Case("journal.after_fsync", "follower", "add"),
    Case("journal.after_write", "leader", "delete"),
    Case("raft.before_ack", "follower", "add"),
    Case("raft.after_ack", "follower", "delete"),
    Case("raft.before_commit", "leader", "delete"),
    Case("raft.before_commit", "follower", "add"),
    Case("raft.after_commit", "leader", "create"),
    Case("applier.before_step", "leader", "create"),
    Case("applier.after_resolve", "leader", "delete"),
    Case("applier.after_resolve", "follower", "delete"),
    Case("applier.before_engine", "leader", "delete"),
    Case("engine.before_call", "leader", "delete"),
    Case("applier.half_written", "leader", "big"),
    Case("applier.half_written", "follower", "big"),
    Case("engine.after_call", "leader", "create"),
    Case("applier.after_engine", "leader", "delete"),
    Case("applier.after_engine", "follower", "create"),
    Case("store.before_commit", "leader", "delete"),
    Case("store.before_commit", "follower", "add"),
    Case("store.after_commit", "leader", "create"),
    Case("store.after_commit", "follower", "delete"),
    Case("applier.before_outcome", "leader", "delete"),
    Case("api.before_answer", "leader", "delete"),
    Case("forward.after_receive", "follower", "delete"),
]


@dataclass(frozen=True)
class Write:
    """One request under its own key, and the outcome that it has when it happens exactly once."""

    path: str
    body: dict[str, Any]
    key: str
    method: str = "POST"

    def send(self, url: str, auth: Any = None) -> requests.Response | None:
        """None when the connection broke."""
        try:
            # No proxy of the environment, no connection kept: what is sent is sent once.
            return requests.request(
                self.method,
                f"{url}{COLLECTIONS}{self.path}",
                json=self.body,
                headers={"Idempotency-Key": self.key},
                auth=auth,
                timeout=40,
            )
        except requests.RequestException:
            return None


@dataclass
class Lab:
    """The cluster, what was written to it, and what every node must hold now."""

    supervisor: Supervisor
    gates: Path
    cluster: RunningCluster
    collection_id: str = ""
    records: dict[str, Any] = field(default_factory=dict[str, Any])
    collections: dict[str, str] = field(default_factory=dict[str, str])
    outcomes: list[tuple[Write, tuple[int, Any]]] = field(default_factory=list[Any])

    @property
    def nodes(self) -> list[str]:
        return [node.id for node in self.supervisor.plan.nodes]

    def url(self, name: str) -> str:
        return self.supervisor.plan.url if name == BALANCER else self.supervisor.plan.node(name).url

    def start(self, names: list[str]) -> None:
        before = os.environ.get(VARIABLE)
        for name in names:
            (self.gates / name).mkdir(exist_ok=True)
            points = (f"{point}=kill:1@{self.gates / name / point}" for point in NAMES)
            os.environ[VARIABLE] = ";".join(points)
            self.supervisor.start([name])
        if before is None:
            del os.environ[VARIABLE]
        else:
            os.environ[VARIABLE] = before

    def heal(self) -> None:
        """No point is open, everything runs."""
        for gate in self.gates.glob("*/*"):
            gate.unlink()
        for name, child in list(self.supervisor.children.items()):
            if child.process.poll() is not None:
                self.start([name])

    def kill(self, name: str) -> None:
        child = self.supervisor.children[name]
        child.process.kill()
        child.process.wait()

    def status(self, name: str) -> dict[str, Any]:
        """What a node says of itself; empty while it says nothing."""
        try:
            answer: dict[str, Any] = requests.get(
                f"{self.url(name)}/cluster/status", auth=self.cluster.member, timeout=5
            ).json()
            return answer
        except (requests.RequestException, ValueError):
            return {}

    def wait_whole(self) -> str:
        """Every node is healthy and has applied everything; the leader's id."""

        def leader() -> str | None:
            rows = [self.status(name) for name in self.nodes]
            lead = next((row for row in rows if row.get("role") == "leader"), None)
            if lead is None or not all(row.get("healthy") for row in rows):
                return None
            last = lead["last_index"]
            # What a leader has verified since the connection was made: no probe is under way.
            held = list(lead["match_index"].values())
            same = all(row["applied_index"] == last and row["leader"] == lead["id"] for row in rows)
            return str(lead["id"]) if same and held == [last] * (len(rows) - 1) else None

        return self.wait("a whole cluster", leader) or ""

    def wait(self, what: str, condition: Callable[[], Any], deadline_s: float = 60.0) -> Any:
        end = time.monotonic() + deadline_s
        while not (value := condition()):
            states = {name: self.status(name) for name in self.nodes} if time.monotonic() > end else None
            assert states is None, f"waited {deadline_s} s for {what}: {states}\n{self.cluster.logs()}"
            time.sleep(0.05)
        return value

    def outcome(self, write: Write) -> tuple[int, Any]:
        """The answer to the write, sent again under its key until it is not 'try again'."""

        def answered() -> tuple[int, Any] | None:
            answer = write.send(self.url(BALANCER))
            if answer is None or answer.status_code in (429, 502, 503, 504):
                return None
            return answer.status_code, answer.json()

        found: tuple[int, Any] = self.wait("an answer", answered)
        return found

    def assert_replicas_hold_exactly_this(self) -> None:
        """Records one by one and collections with their ids, on every node."""
        self.wait_whole()
        for name in self.nodes:
            row = {"id": name, "url": self.url(name)}
            assert self.cluster.records(row, self.collection_id) == self.records, name
            listed = requests.get(
                self.url(name) + COLLECTIONS,
                headers={"X-Chroma-Consistency": "eventual"},
                auth=self.cluster.member,
                timeout=20,
            ).json()
            assert {each["name"]: each["id"] for each in listed} == self.collections, name


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    directory = DataDirectory(tmp_path_factory.mktemp("failpoints") / "data")
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
        verdict = wait_until_serving(supervisor, timeout_s=120, interrupted=lambda: False)
        assert verdict.answers, verdict
        _seed(made)
        yield made
    finally:
        supervisor.stop(list(supervisor.names), hurry=lambda: True)


def _seed(lab: Lab) -> None:
    """What the deletes are to delete: the limit takes two of five, a repeat would take two more."""
    status, made = lab.outcome(Write("", {"name": "records"}, "seed-collection"))
    assert status == 200, made
    lab.collection_id = lab.collections["records"] = made["id"]
    seeds = {f"{case.tag}-{at}": _record(case.tag, at) for case in CASES for at in range(SEEDED)}
    assert lab.outcome(_adding(lab, seeds, "seed")) == (201, {})
    lab.records.update(seeds)


def _record(tag: str, at: int) -> tuple[list[float], str, dict[str, Any]]:
    return [at + 0.5, len(tag) + 0.25], f"{tag} number {at}", {"tag": tag, "at": at}


def _adding(lab: Lab, records: dict[str, Any], key: str) -> Write:
    embeddings, documents, metadatas = map(list, zip(*records.values(), strict=True))
    body = {"ids": list(records), "embeddings": embeddings, "documents": documents, "metadatas": metadatas}
    return Write(f"/{lab.collection_id}/add", body, key)


def _write(lab: Lab, case: Case) -> Write:
    """The case's write; the model already has its effect."""
    tag = case.tag
    match case.kind:
        case "create":
            return Write("", {"name": tag, "metadata": {"tag": tag}}, tag)
        case "delete":
            for at in range(LIMIT):
                del lab.records[f"{tag}-{at}"]
            return Write(f"/{lab.collection_id}/delete", {"where": {"tag": tag}, "limit": LIMIT}, tag)
        case "add" | "big":
            size = BIG if case.kind == "big" else ADDED
            added = {f"{tag}-added-{at}": _record(f"{tag}-added", at) for at in range(size)}
            lab.records.update(added)
            return _adding(lab, added, tag)


def _assert_first(lab: Lab, case: Case, outcome: tuple[int, Any]) -> None:
    status, body = outcome
    match case.kind:
        case "create":
            assert status == 200, body
            assert body["name"] == case.tag
            lab.collections[case.tag] = body["id"]
        case "delete":
            assert outcome == (200, {"deleted": LIMIT})
        case "add" | "big":
            assert outcome == (201, {})


def test_every_point_has_a_case() -> None:
    # What is reached only when engines fail on a write has its cases in test_poison.py.
    # No write meets those of a snapshot: tests/integration/test_snapshots.py does.
    others = {point for point in NAMES if point.startswith(("snapshot.", "fetch.", "install."))}
    assert {case.point for case in CASES} == set(NAMES) - set(CONTAINMENT) - others
    assert len({case.tag for case in CASES}) == len(CASES)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.tag)
def test_a_write_happens_once_though_a_node_is_killed_at(lab: Lab, case: Case) -> None:
    lab.heal()
    leader = lab.wait_whole()
    followers = [name for name in lab.nodes if name != leader]
    victim = leader if case.victim == "leader" else followers[CASES.index(case) % 2]
    child = lab.supervisor.children[victim]
    write = _write(lab, case)
    log_start = child.log.stat().st_size
    (lab.gates / victim / case.point).touch()

    # What a follower is to forward has to be sent to it; all else goes through the balancer.
    to = lab.url(victim if case.point.startswith("forward.") else BALANCER)
    with ThreadPoolExecutor(1) as threads:
        sending = threads.submit(write.send, to, lab.cluster.member)
        died = lab.wait("the death", lambda: _death(child.log, log_start, case.point))
        # A node repeats what its Chroma did not survive: it is to die of it once.
        (lab.gates / victim / case.point).unlink()
        first = sending.result()
    if case.point.startswith("engine."):
        assert died != child.process.pid
        lab.wait("the end of Chroma's process", lambda: identify(died) is None)
        lab.wait("a new one", lambda: (lab.status(victim).get("engine") or {}).get("pid") not in (None, died))
        assert child.process.poll() is None, "a node survives its Chroma"
    else:
        assert child.process.wait(timeout=30) == -signal.SIGKILL
        assert died == child.process.pid
        lab.start([victim])
    outcome = lab.outcome(write)
    _assert_first(lab, case, outcome)
    if first is not None and first.status_code < 300:
        assert (first.status_code, first.json()) == outcome
    assert first is None or first.status_code in (outcome[0], 429, 503, 504)
    lab.outcomes.append((write, outcome))
    lab.assert_replicas_hold_exactly_this()


def _death(log: Path, start: int, point: str) -> int | None:
    """The process that died at `point`, as it said itself in what was logged from `start` on."""
    with log.open("rb") as file:
        file.seek(start)
        text = file.read().decode(errors="replace")
    died = re.search(rf"failpoint {re.escape(point)}: SIGKILL to process (\d+)", text)
    return int(died[1]) if died else None


@pytest.mark.parametrize("after", ["leader-change", "cold-restart"])
def test_keys_give_their_first_outcome_after(lab: Lab, after: str) -> None:
    lab.heal()
    leader = lab.wait_whole()
    # What came later must stand: an add that is done again would bring these back.
    gone = [record for record in lab.records if "-added-" in record][::40]
    if gone:
        deletion = Write(f"/{lab.collection_id}/delete", {"ids": gone}, f"gone-before-{after}")
        assert lab.outcome(deletion) == (200, {"deleted": len(gone)})
        for record in gone:
            del lab.records[record]
    for name in [leader] if after == "leader-change" else lab.nodes:
        lab.kill(name)
    if after == "cold-restart":
        lab.heal()
    for write, outcome in lab.outcomes:
        assert lab.outcome(write) == outcome, write.key
    lab.heal()
    lab.assert_replicas_hold_exactly_this()


def test_a_key_gives_its_first_outcome_also_when_what_it_named_is_gone(lab: Lab) -> None:
    lab.heal()
    lab.wait_whole()
    _, made = lab.outcome(Write("", {"name": "passing"}, "passing-create"))
    path = f"/{made['id']}"
    body = {"ids": ["a", "b"], "embeddings": [[1.0], [2.0]], "metadatas": [{"n": 1}, {"n": 2}]}
    assert lab.outcome(Write(f"{path}/add", body, "passing-add")) == (201, {})
    _, texts = lab.outcome(Write("", {"name": "passing-texts"}, "passing-texts"))
    document = {"ids": ["b"], "documents": ["text"]}
    writes = [
        Write(f"{path}/delete", {"where": {"n": 1}}, "passing-delete"),
        Write(f"{path}/update", {"ids": ["b"], "metadatas": [{"n": 3}]}, "passing-update"),
        Write(f"{path}/update", document, "passing-update-text"),
        Write(f"/{texts['id']}/add", document, "passing-add-text"),
        Write(f"/{texts['id']}/update", document, "passing-embed-text"),
        Write(path, {"new_name": "renamed"}, "passing-rename", "PUT"),
        Write("/renamed", {}, "passing-drop", "DELETE"),
        Write("/passing-texts", {}, "passing-texts-drop", "DELETE"),
    ]
    outcomes = [lab.outcome(write) for write in writes]
    assert outcomes == [(200, {"deleted": 1}), (200, {}), (200, {}), (201, {}), *[(200, {})] * 4]
    assert [lab.outcome(write) for write in writes] == outcomes
    lab.assert_replicas_hold_exactly_this()
