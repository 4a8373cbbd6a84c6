"""The log as processes over real TCP with real fsync: killed, frozen, cut off, flooded, lied to."""

from __future__ import annotations

import random
import socket
import time
from typing import TYPE_CHECKING

import pytest

from cluster.errors import Fault, NotLeader, Overloaded
from cluster.raft.raft import RaftNode
from cluster.raft.settings import RaftSettings
from evaluation.processes import free_ports
from evaluation.raft.cluster import RaftCluster, eventually
from tests.integration.raft_link import Link

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.slow


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[RaftCluster]:
    made = RaftCluster(tmp_path)
    yield made
    made.close()


def test_no_acknowledged_write_is_lost_by_kills(cluster: RaftCluster) -> None:
    cluster.start()
    acked: list[str] = []
    for round_number in range(3):
        for number in range(10):
            text = f"{round_number}-{number}"
            cluster.write(text)
            acked.append(text)
        leader = cluster.leader()
        cluster.members[leader].ask("propose", text="in flight", count=5, wait=False)
        cluster.kill(leader)
        cluster.write(f"{round_number}-after")
        acked.append(f"{round_number}-after")
        cluster.start(leader)
    cluster.kill(*cluster.ids)
    cluster.start()
    cluster.write("last")
    cluster.agree()
    logs = [cluster.texts(node_id) for node_id in cluster.ids]
    assert logs[0] == logs[1] == logs[2]
    assert set(acked) <= set(logs[0])


def test_a_node_with_a_conflicting_tail_rejoins(cluster: RaftCluster) -> None:
    """Hazard 2b over TCP with journals and nothing but restarts: pysyncobj's node never comes back."""
    cluster.settings["append_bytes"] = 65536
    cluster.start()
    old = cluster.leader()
    cluster.write("first")
    others = [node_id for node_id in cluster.ids if node_id != old]
    cluster.kill(*others)
    cluster.members[old].ask("propose", text="uncommitted", size=6000, count=3, wait=False)
    eventually(lambda: cluster.status(old)["last"] >= 5, 10, "the uncommitted entries")
    cluster.kill(old)
    cluster.start(*others)
    cluster.write("kept", size=6000, count=20)
    second = cluster.leader()
    cluster.kill(second)
    cluster.start(second)
    cluster.leader()
    cluster.start(old)
    cluster.agree(10)
    assert cluster.texts(old) == cluster.texts(second)
    assert "uncommitted" not in cluster.texts(old)


def test_a_rewound_leader_loses_nothing_committed(cluster: RaftCluster) -> None:
    """Hazard 2's load: 1 MiB entries, four in flight, an election timeout of 0.4-0.8 s, a leader killed."""
    cluster.settings.update(election_timeout_ms=[400, 800], append_bytes=65536, inflight_bytes=8 << 20)
    cluster.start()
    for number in range(4):
        cluster.write(f"big-{number}", size=1 << 20, count=4)
        leader = cluster.leader()
        cluster.members[leader].ask("propose", text="flight", size=1 << 20, count=4, wait=False)
        cluster.kill(leader)
        cluster.start(leader)
    cluster.agree()
    for node_id in cluster.ids:
        assert [cluster.texts(node_id).count(f"big-{number}") >= 4 for number in range(4)] == [True] * 4


@pytest.mark.parametrize(("size", "in_flight", "rounds"), [(1 << 20, 4, 5), (16 << 20, 1, 3)])
@pytest.mark.alone
def test_large_entries_cause_no_election(
    cluster: RaftCluster, size: int, in_flight: int, rounds: int
) -> None:
    cluster.start()
    leader = cluster.leader()
    term = cluster.status(leader)["term"]
    for number in range(rounds):
        answer = cluster.members[leader].ask("propose", text=f"n{number}", size=size, count=in_flight)
        assert "index" in answer
    cluster.agree()
    assert cluster.status(leader)["term"] == term


def test_a_stopped_leader_hands_over(cluster: RaftCluster) -> None:
    cluster.start()
    cluster.write("x")
    leader = cluster.leader()
    term = cluster.status(leader)["term"]
    cluster.members[leader].ask("stop")
    cluster.kill(leader)
    rest = tuple(cluster.members)
    assert cluster.status(cluster.leader(rest))["term"] == term + 1
    cluster.write("y")


def test_a_frozen_leader_is_replaced_and_follows_when_it_wakes(cluster: RaftCluster) -> None:
    cluster.start()
    cluster.write("x")
    leader = cluster.leader()
    rest = tuple(node_id for node_id in cluster.ids if node_id != leader)
    cluster.freeze(leader)
    second = cluster.leader(rest)
    assert cluster.members[second].ask("read").get("index", 0) > 0
    cluster.thaw(leader)
    assert cluster.members[leader].ask("read") == {"error": "NotLeader"}
    cluster.write("y")
    cluster.agree()


@pytest.mark.alone
def test_a_black_hole_is_left_and_healed(cluster: RaftCluster) -> None:
    """The links of one node go silent without a reset: it is given up, and it is back soon after the heal."""
    cluster.start()
    cluster.write("x")
    cluster.close()
    links = [Link(cluster.ports[target]) for target in ("a", "b")]
    try:
        for link, target in zip(links, ("a", "b"), strict=True):
            cluster.dialled[("c", target)] = link.port
        cluster.start()
        cluster.write("y")
        cluster.agree()
        for link in links:
            link.is_silent = True
        eventually(lambda: cluster.status("c")["connected"] == [], 20, "c notices that nobody answers")
        eventually(lambda: cluster.status("c")["role"] != "leader", 20, "c does not lead")
        term = cluster.status(cluster.leader(("a", "b")))["term"]
        assert cluster.members["c"].ask("read") == {"error": "NotLeader"}
        cluster.members[cluster.leader(("a", "b"))].ask("propose", text="z")
        for link in links:
            link.is_silent = False
        eventually(lambda: len(cluster.status("c")["connected"]) == 2, 20, "c is back")
        cluster.agree()
        assert cluster.status(cluster.leader())["term"] == term
    finally:
        cluster.close()
        for link in links:
            link.close()


@pytest.mark.alone
def test_a_long_entry_on_a_slow_link_causes_no_election(cluster: RaftCluster) -> None:
    """12 MiB at 4 MiB/s take longer than any election timeout; the quorum needs this very link."""
    link = Link(cluster.ports["b"])
    try:
        cluster.dialled[("c", "b")] = link.port
        cluster.start()
        cluster.write("x")
        cluster.kill("a")
        cluster.write("y")
        cluster.agree()
        leader = cluster.leader()
        term = cluster.status(leader)["term"]
        link.bytes_per_s = 4 << 20
        began = time.monotonic()
        assert "index" in cluster.members[leader].ask("propose", text="long", size=12 << 20)
        assert time.monotonic() - began > cluster_timeout_s()
        assert cluster.status(leader)["term"] == term
    finally:
        cluster.close()
        link.close()


def cluster_timeout_s() -> float:
    return RaftSettings().election_timeout_ms[1] / 1000


def test_a_wrong_secret_stays_outside(cluster: RaftCluster) -> None:
    cluster.start()
    cluster.write("x")
    cluster.agree()
    cluster.kill("c")
    cluster.start("c", secret="another")
    held = cluster.status("c")["last"]
    log = cluster.folder
    eventually(lambda: "does not have this cluster's secret" in (log / "c.log").read_text(), 20, "c's log")
    cluster.write("y")
    assert cluster.status("c")["connected"] == []
    assert cluster.status("c")["last"] == held


@pytest.mark.alone
def test_garbage_on_the_port_hurts_nobody(cluster: RaftCluster) -> None:
    cluster.start()
    leader = cluster.leader()
    term = cluster.status(leader)["term"]
    rng = random.Random(6)
    slow = [socket.create_connection(("127.0.0.1", cluster.ports[node_id])) for node_id in cluster.ids]
    slow += [socket.create_connection(("127.0.0.1", cluster.ports[leader])) for _ in range(100)]
    for number in range(60):
        with socket.create_connection(("127.0.0.1", cluster.ports[rng.choice(cluster.ids)])) as sock:
            data = rng.randbytes(rng.choice([1, 10, 1000, 50_000]))
            if number % 3 == 0:
                data = rng.choice([5, 900, 2**31]).to_bytes(4, "big") + b"\x00" + data
            try:
                sock.sendall(data)
            except OSError:
                continue
        if number % 10 == 0:
            slow[number % len(slow)].send(b"\x00")
            cluster.write(f"w{number}")
    cluster.agree()
    assert cluster.status(leader)["term"] == term
    for sock in slow:
        sock.close()


# ---------------------------------------------------------------- one process


def alone(tmp_path: Path, settings: RaftSettings | None = None) -> RaftNode:
    (port,) = free_ports(1)
    node = RaftNode(
        "a", {"a": ("127.0.0.1", port)}, ("127.0.0.1", port), tmp_path / "a.sqlite", "c", b"s", settings
    )
    node.start()
    eventually(lambda: node.status().role == "leader", 10, "it leads")
    return node


def test_a_node_alone(tmp_path: Path) -> None:
    node = alone(tmp_path)
    position = node.propose(b"x").result(10)
    assert node.wait_commit(position.index - 1, 10) >= position.index
    assert node.read_index().result(10) >= position.index
    assert [entry.payload for entry in node.entries(position.index, 100)] == [b"x"]
    assert node.wait_commit(position.index, 0.01) == position.index
    status = node.status()
    assert (status.leader, status.commit_index, status.quorum_contact_ms < 1000) == (
        "a",
        position.index,
        True,
    )
    node.stop()
    assert node.status().role == "stopped"
    with pytest.raises(NotLeader):
        node.propose(b"y").result(1)
    again = alone(tmp_path)
    assert [entry.payload for entry in again.entries(1, 1 << 20) if entry.payload] == [b"x"]
    again.stop()


def test_too_much_in_the_queue_is_refused_at_once(tmp_path: Path) -> None:
    node = alone(tmp_path, RaftSettings(pending_bytes=2048))
    futures = [node.propose(bytes(2000)) for _ in range(200)]
    results = [future.exception(10) for future in futures]
    assert any(result is None for result in results)
    assert {type(result) for result in results} <= {type(None), Overloaded}
    with pytest.raises(ValueError, match="empty payload"):
        node.propose(b"")
    with pytest.raises(ValueError, match="the log takes up to"):
        node.propose(bytes(node.settings.max_payload_bytes + 1))
    node.stop()


def test_a_full_disk_is_a_fault_and_the_process_lives(tmp_path: Path) -> None:
    told: list[str] = []
    (port,) = free_ports(1)
    node = RaftNode(
        "a",
        {"a": ("127.0.0.1", port)},
        ("127.0.0.1", port),
        tmp_path / "a.sqlite",
        "c",
        b"s",
        on_fault=told.append,
    )
    node.start()
    eventually(lambda: node.status().role == "leader", 10, "it leads")
    kept = node.propose(b"kept").result(10)
    storage = node._journal._storage  # type: ignore[union-attr]
    storage._writer.execute("PRAGMA max_page_count=1")  # type: ignore[attr-defined]
    error = node.propose(bytes(3_000_000)).exception(10)
    assert type(error).__name__ == "OutcomeUnknown"
    assert node.fault is not None
    assert "full" in node.fault
    eventually(lambda: told == [node.fault], 5, "the fault is told")
    assert node.status().role == "stopped"
    assert [entry.payload for entry in node.entries(kept.index, 100)] == [b"kept"]
    assert isinstance(node.propose(b"y").exception(5), NotLeader)
    node.stop()


def test_a_taken_port_and_a_foreign_journal_are_explained(tmp_path: Path) -> None:
    node = alone(tmp_path)
    other = RaftNode(
        "b", {"b": ("127.0.0.1", 1)}, ("127.0.0.1", node.bound_port), tmp_path / "b.sqlite", "c", b"s"
    )
    with pytest.raises(Fault, match="cannot listen"):
        other.start()
    node.stop()
    foreign = RaftNode("b", {"b": ("127.0.0.1", 1)}, ("127.0.0.1", 0), tmp_path / "a.sqlite", "c", b"s")
    with pytest.raises(Fault, match="belongs to node a"):
        foreign.start()


def test_host_names_are_resolved_and_a_bad_one_blocks_nothing(tmp_path: Path) -> None:
    ports = dict(zip("ab0", free_ports(3), strict=True))

    def started(names: str, host_of_0: str) -> list[RaftNode]:
        members = {name: (host_of_0 if name == "0" else "localhost", port) for name, port in ports.items()}
        nodes = [
            RaftNode(name, members, ("127.0.0.1", ports[name]), tmp_path / f"{name}.sqlite", "c", b"s")
            for name in names
        ]
        for node in nodes:
            node.start()
        return nodes

    founders = started("ab0", "localhost")
    eventually(lambda: [node for node in founders if node.status().role == "leader"], 20, "they are founded")
    eventually(lambda: all(node.status().hint is None for node in founders), 20, "each has a vote")
    for node in founders:
        node.stop()
    nodes = started("ab", "no-such-host.invalid")
    leader = eventually(lambda: [node for node in nodes if node.status().role == "leader"], 20, "a leader")[0]
    began = time.monotonic()
    assert leader.propose(b"x").result(10).index > 0
    assert time.monotonic() - began < 10
    for node in nodes:
        node.stop()
