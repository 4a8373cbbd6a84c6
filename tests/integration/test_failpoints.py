"""A node is killed at every point between a request and its answer: the write happens exactly once.

One cluster for all.
"""

from __future__ import annotations

import signal
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import pytest

from cluster.cli.plan import BALANCER
from cluster.cli.processes import identify
from cluster.failpoint import NAMES
from tests.integration.lab import Lab, Write, death, running_lab
from tests.integration.test_poison import CONTAINMENT

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.slow

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


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with running_lab(tmp_path_factory.mktemp("failpoints") / "data") as made:
        _seed(made)
        yield made


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
    # No write meets those of a snapshot: they have theirs in test_snapshot_kills.py.
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
        died = lab.wait("the death", lambda: death(child.log, log_start, case.point))
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
