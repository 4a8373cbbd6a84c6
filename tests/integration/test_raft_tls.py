"""The log over mutual TLS: as processes that are killed, and with peers that must stay outside."""

from __future__ import annotations

import socket
import ssl
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from cluster.raft.raft import RaftNode
from cluster.raft.tls import Tls
from evaluation.processes import free_ports
from evaluation.raft.cluster import RaftCluster, eventually
from tests.certificates import Authority
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


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path, "authority")


def files(authority: Authority, name: str, *, ca: Authority | None = None, days: int = 2) -> list[str]:
    cert, key = authority.node(name, days=days)
    return [str(path) for path in (cert, key, (ca or authority).cert)]


def start(cluster: RaftCluster, authority: Authority, *ids: str) -> None:
    for node_id in ids or cluster.ids:
        cluster.start(node_id, tls=files(authority, node_id))


def start_rest(cluster: RaftCluster, authority: Authority | None, outsider: str) -> None:
    """All but one of a cluster that was founded by all of them; nothing is left of that one."""
    if authority is None:
        cluster.start()
    else:
        start(cluster, authority)
    cluster.write("founded")
    cluster.agree()
    cluster.kill(outsider)
    for path in [*cluster.folder.glob(f"{outsider}.sqlite*"), cluster.folder / f"{outsider}.log"]:
        path.unlink()


def logged(cluster: RaftCluster, text: str, *ids: str) -> None:
    """At least one of the logs of `ids` comes to hold `text`."""
    logs = [cluster.folder / f"{node_id}.log" for node_id in ids]
    eventually(lambda: any(text in log.read_text() for log in logs), 20, f"{text!r} in the log of {ids}")


def stays_outside(cluster: RaftCluster, outsider: str) -> None:
    """The others go on, and nothing reaches the outsider."""
    cluster.write("still")
    assert cluster.status(outsider)["connected"] == []
    assert cluster.status(outsider)["last"] == 0
    for node_id in cluster.members:
        assert outsider not in cluster.status(node_id)["connected"]


def test_no_acknowledged_write_is_lost_by_kills(cluster: RaftCluster, authority: Authority) -> None:
    start(cluster, authority)
    acked: list[str] = []
    for round_number in range(3):
        for number in range(10):
            cluster.write(f"{round_number}-{number}")
            acked.append(f"{round_number}-{number}")
        leader = cluster.leader()
        cluster.members[leader].ask("propose", text="in flight", count=5, wait=False)
        cluster.kill(leader)
        cluster.write(f"{round_number}-after")
        acked.append(f"{round_number}-after")
        start(cluster, authority, leader)
    cluster.kill(*cluster.ids)
    start(cluster, authority)
    cluster.write("last")
    cluster.agree()
    logs = [cluster.texts(node_id) for node_id in cluster.ids]
    assert logs[0] == logs[1] == logs[2]
    assert set(acked) <= set(logs[0])


@pytest.mark.parametrize(("size", "in_flight", "rounds"), [(1 << 20, 4, 5), (16 << 20, 1, 3)])
@pytest.mark.alone
def test_large_entries_cause_no_election(
    cluster: RaftCluster, authority: Authority, size: int, in_flight: int, rounds: int
) -> None:
    start(cluster, authority)
    leader = cluster.leader()
    term = cluster.status(leader)["term"]
    for number in range(rounds):
        answer = cluster.members[leader].ask("propose", text=f"n{number}", size=size, count=in_flight)
        assert "index" in answer
    cluster.agree()
    assert cluster.status(leader)["term"] == term


@pytest.mark.alone
def test_a_long_entry_on_a_slow_link_causes_no_election(cluster: RaftCluster, authority: Authority) -> None:
    """Writes and reads that must wait in the middle of a TLS record, again and again."""
    link = Link(cluster.ports["b"])
    try:
        cluster.dialled[("c", "b")] = link.port
        start_rest(cluster, authority, "a")
        cluster.write("x")
        cluster.agree()
        leader = cluster.leader()
        term = cluster.status(leader)["term"]
        link.bytes_per_s = 4 << 20
        assert "index" in cluster.members[leader].ask("propose", text="long", size=12 << 20)
        assert cluster.status(leader)["term"] == term
    finally:
        cluster.close()
        link.close()


@pytest.mark.parametrize("outsider", ["a", "c"])
def test_a_node_of_another_authority_stays_outside(
    cluster: RaftCluster, authority: Authority, outsider: str
) -> None:
    """`a` is dialled by the others, `c` dials them."""
    rest = [node_id for node_id in cluster.ids if node_id != outsider]
    start_rest(cluster, authority, outsider)
    cluster.write("x")
    cluster.start(outsider, tls=files(Authority(cluster.folder, "other"), outsider))
    logged(cluster, "its certificate is refused: ", *(rest if outsider == "a" else [outsider]))
    logged(cluster, "it refuses this node's certificate", *([outsider] if outsider == "a" else rest))
    stays_outside(cluster, outsider)


@pytest.mark.parametrize("outsider", ["a", "c"])
def test_a_certificate_of_another_authority_is_not_enough(
    cluster: RaftCluster, authority: Authority, outsider: str
) -> None:
    """It trusts this cluster's authority, so only the others can refuse it."""
    rest = [node_id for node_id in cluster.ids if node_id != outsider]
    start_rest(cluster, authority, outsider)
    cluster.write("x")
    cluster.start(outsider, tls=files(Authority(cluster.folder, "other"), outsider, ca=authority))
    logged(cluster, "its certificate is refused: ", *rest)
    logged(cluster, "it refuses this node's certificate", outsider)
    stays_outside(cluster, outsider)


@pytest.mark.parametrize("outsider", ["a", "c"])
def test_an_expired_certificate_is_refused(cluster: RaftCluster, authority: Authority, outsider: str) -> None:
    rest = [node_id for node_id in cluster.ids if node_id != outsider]
    start_rest(cluster, authority, outsider)
    cluster.write("x")
    cluster.start(outsider, tls=files(authority, outsider, days=-1))
    logged(cluster, "its certificate is refused: certificate has expired", *rest)
    logged(cluster, "it refuses this node's certificate or TLS version (", outsider)
    stays_outside(cluster, outsider)


@pytest.mark.parametrize("outsider", ["a", "c"])
def test_a_node_without_tls_stays_outside(cluster: RaftCluster, authority: Authority, outsider: str) -> None:
    rest = [node_id for node_id in cluster.ids if node_id != outsider]
    start_rest(cluster, authority, outsider)
    cluster.write("x")
    cluster.start(outsider)
    logged(cluster, "it does not speak TLS, which this node requires", *rest)
    said = "it speaks TLS and this node has no TLS settings" if outsider == "a" else "this node requires TLS"
    logged(cluster, said, outsider)
    stays_outside(cluster, outsider)


@pytest.mark.parametrize("outsider", ["a", "c"])
def test_a_node_with_tls_stays_out_of_a_cluster_without(
    cluster: RaftCluster, authority: Authority, outsider: str
) -> None:
    rest = [node_id for node_id in cluster.ids if node_id != outsider]
    start_rest(cluster, None, outsider)
    cluster.write("x")
    start(cluster, authority, outsider)
    said = "this node requires TLS" if outsider == "a" else "it speaks TLS and this node has no TLS settings"
    logged(cluster, said, *rest)
    logged(cluster, "it does not speak TLS, which this node requires", outsider)
    stays_outside(cluster, outsider)


def test_a_certificate_is_no_secret(cluster: RaftCluster, authority: Authority) -> None:
    start_rest(cluster, authority, "c")
    cluster.write("x")
    cluster.start("c", tls=files(authority, "c"), secret="another")
    logged(cluster, "does not have this cluster's secret", "c")
    stays_outside(cluster, "c")


@pytest.mark.alone
def test_silence_and_garbage_on_the_port_hurt_nobody(cluster: RaftCluster, authority: Authority) -> None:
    start(cluster, authority)
    leader = cluster.leader()
    term = cluster.status(leader)["term"]
    port = cluster.ports[leader]
    silent = [socket.create_connection(("127.0.0.1", port)) for _ in range(80)]
    for sock in silent[:10]:
        sock.send(b"\x16\x03\x01")  # the beginning of a handshake that never goes on
    for size in (1, 5, 1000, 50_000):
        with socket.create_connection(("127.0.0.1", port)) as sock:
            sock.sendall(bytes(size))
    cluster.write("y")
    cluster.agree()
    for sock in silent:
        # The deadline of the handshake: each is hung up on.
        sock.settimeout(20)
        with sock:
            try:
                assert sock.recv(100) == b""
            except ConnectionResetError:
                continue
    assert cluster.status(leader)["term"] == term


def test_a_missing_file_is_a_start_error_that_names_it(tmp_path: Path, authority: Authority) -> None:
    cert, _ = authority.node("a")
    http, raft = free_ports(2)
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "cluster",
            "node",
            "--node-id",
            "a",
            "--cluster-id",
            "c",
            "--data-dir",
            tmp_path / "a",
            "--http",
            f"127.0.0.1:{http}",
            "--raft",
            f"127.0.0.1:{raft}",
            "--raft-tls-cert",
            cert,
            "--raft-tls-key",
            tmp_path / "gone.key",
            "--raft-tls-ca",
            authority.cert,
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert "raft_tls_key: cannot read " in done.stderr
    assert "gone.key: No such file or directory. Nothing was changed" in done.stderr


def test_an_older_tls_is_refused(tmp_path: Path, authority: Authority) -> None:
    cert, key = authority.node("a")
    (port,) = free_ports(1)
    members = {"a": ("127.0.0.1", port), "b": ("127.0.0.1", free_ports(1)[0])}
    tls = Tls.load(cert, key, authority.cert)
    node = RaftNode("a", members, ("127.0.0.1", port), tmp_path / "a.sqlite", "c", b"s", tls=tls)
    node.start()
    old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    old.check_hostname = False
    old.load_verify_locations(authority.cert)
    old.load_cert_chain(cert, key)
    try:
        with (
            socket.create_connection(("127.0.0.1", port), 10) as sock,
            pytest.raises(ssl.SSLError, match=r"(?i)protocol.version"),
        ):
            old.wrap_socket(sock)
    finally:
        node.stop()
