"""TLS between nodes: its settings, its contexts, and its socket over a socket pair."""

from __future__ import annotations

import socket
import ssl
import subprocess
import threading
from typing import TYPE_CHECKING, Any

import pytest
from pydantic import ValidationError

from cluster.config import NodeSettings
from cluster.errors import Fault
from cluster.raft.tls import NotTls, Tls, TlsSocket, explain, looks_like_tls
from cluster.server import hang_up
from tests.certificates import Authority

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("certificates")


@pytest.fixture(scope="module")
def authority(folder: Path) -> Authority:
    return Authority(folder, "authority")


@pytest.fixture(scope="module")
def files(authority: Authority) -> tuple[Path, Path, Path]:
    return (*authority.node("one"), authority.cert)


# ---------------------------------------------------------------- settings


def settings(**values: Any) -> NodeSettings:
    return NodeSettings(node_id="n", cluster_id="c", data_dir="d", **values)  # type: ignore[arg-type]


def test_without_settings_there_is_no_tls() -> None:
    assert settings().raft_tls_files is None


@pytest.mark.parametrize("left_out", ["raft_tls_cert", "raft_tls_key", "raft_tls_ca"])
def test_all_three_or_none(left_out: str) -> None:
    three = {"raft_tls_cert": "a", "raft_tls_key": "b", "raft_tls_ca": "c"}
    assert [str(path) for path in settings(**three).raft_tls_files or ()] == ["a", "b", "c"]
    del three[left_out]
    with pytest.raises(ValidationError, match=f"all or none; missing: {left_out}"):
        settings(**three)


def test_environment_file_and_flags(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tmp_path / "node.toml"
    config.write_text(
        'node_id = "n"\ncluster_id = "c"\ndata_dir = "d"\n'
        'raft_tls_cert = "file"\nraft_tls_key = "file"\nraft_tls_ca = "file"\n'
    )
    monkeypatch.setenv("CHROMA_CLUSTER_RAFT_TLS_KEY", "environment")
    found = NodeSettings.load(config, raft_tls_ca="flag").raft_tls_files
    assert [str(path) for path in found or ()] == ["file", "environment", "flag"]


def test_tls_lets_raft_but_not_http_listen_beyond_loopback() -> None:
    three = {"raft_tls_cert": "a", "raft_tls_key": "b", "raft_tls_ca": "c", "secret": "s"}
    assert settings(raft="0.0.0.0:9001", **three).raft == "0.0.0.0:9001"
    with pytest.raises(ValidationError, match=r"`raft` would listen on .*, without TLS"):
        settings(raft="0.0.0.0:9001", secret="s")
    with pytest.raises(ValidationError, match=r"`http` would listen on .*, without TLS"):
        settings(http="0.0.0.0:8001", **three)


# ---------------------------------------------------------------- contexts


def test_both_sides_demand_a_certificate_and_tls_1_3(files: tuple[Path, Path, Path]) -> None:
    tls = Tls.load(*files)
    for context in (tls.client, tls.server):
        assert context.minimum_version == ssl.TLSVersion.TLSv1_3
        assert context.verify_mode == ssl.CERT_REQUIRED
        assert not context.check_hostname


@pytest.mark.parametrize("number", [0, 1, 2])
def test_a_missing_or_senseless_file_is_named(
    files: tuple[Path, Path, Path], tmp_path: Path, number: int
) -> None:
    name = ("raft_tls_cert", "raft_tls_key", "raft_tls_ca")[number]
    changed = list(files)
    changed[number] = tmp_path / "bad.pem"
    with pytest.raises(Fault, match=f"{name}: cannot read .*bad.pem: No such file"):
        Tls.load(*changed)
    changed[number].write_text("nonsense")
    with pytest.raises(Fault, match=f"{name}: .*bad.pem (holds no certificate|is not a private key)"):
        Tls.load(*changed)
    changed[number].unlink()
    changed[number].mkdir()
    with pytest.raises(Fault, match=f"{name}: cannot read .*bad.pem: Is a directory"):
        Tls.load(*changed)


def test_a_key_of_another_certificate(files: tuple[Path, Path, Path], authority: Authority) -> None:
    _, key = authority.node("two")
    with pytest.raises(Fault, match=r"two.key is not the private key of the certificate in .*one.pem"):
        Tls.load(files[0], key, files[2])


def test_an_authority_that_is_none(files: tuple[Path, Path, Path]) -> None:
    with pytest.raises(Fault, match=r"one.pem holds no certificate of an authority"):
        Tls.load(files[0], files[1], files[0])


def test_an_encrypted_key_asks_nobody(files: tuple[Path, Path, Path], tmp_path: Path) -> None:
    locked = tmp_path / "locked.key"
    subprocess.run(
        ["openssl", "ec", "-in", files[1], "-aes256", "-passout", "pass:secret", "-out", locked],
        check=True,
        capture_output=True,
    )
    with pytest.raises(Fault, match=r"locked.key is encrypted"):
        Tls.load(files[0], locked, files[2])


# ---------------------------------------------------------------- the socket


def shake_hands(dialer: TlsSocket, acceptor: TlsSocket) -> None:
    waiting = [dialer, acceptor]
    for _ in range(20):
        waiting = [side for side in waiting if not side.handshake()]
        if not waiting:
            return
    raise AssertionError("no handshake")


@pytest.fixture
def plain() -> Iterator[tuple[socket.socket, socket.socket]]:
    one, other = socket.socketpair()
    one.setblocking(False)
    other.setblocking(False)
    yield one, other
    one.close()
    other.close()


@pytest.fixture
def pair(
    plain: tuple[socket.socket, socket.socket], files: tuple[Path, Path, Path]
) -> Iterator[tuple[TlsSocket, TlsSocket]]:
    tls = Tls.load(*files)
    dialer, acceptor = tls.wrap(plain[0], is_dialer=True), tls.wrap(plain[1], is_dialer=False)
    shake_hands(dialer, acceptor)
    yield dialer, acceptor
    dialer.close()
    acceptor.close()


def test_bytes_arrive_and_waiting_is_as_on_a_plain_socket(pair: tuple[TlsSocket, TlsSocket]) -> None:
    dialer, acceptor = pair
    with pytest.raises(BlockingIOError):
        acceptor.recv(1000)
    assert dialer.send(memoryview(b"hello")) == 5
    assert acceptor.recv(1000) == b"hello"
    dialer.close()
    assert acceptor.recv(1000) == b""


def test_nothing_stays_decrypted_and_unread(pair: tuple[TlsSocket, TlsSocket]) -> None:
    dialer, acceptor = pair
    data = bytes(range(256)) * 160
    assert dialer.send(memoryview(data)) == len(data)
    got = acceptor.recv(1)
    while len(got) < len(data):
        # Whatever is not handed out is still in the kernel, where a selector sees it.
        assert acceptor._sock.pending() == 0
        got += acceptor.recv(1)
    assert got == data


def test_a_full_socket_takes_the_same_bytes_later(pair: tuple[TlsSocket, TlsSocket]) -> None:
    dialer, acceptor = pair
    data = memoryview(bytes(range(256)) * 16384)
    got, sent, was_full = bytearray(), 0, False
    while len(got) < len(data):
        try:
            if sent < len(data):
                sent += dialer.send(data[sent:])
        except BlockingIOError:
            was_full = True
        try:
            got += acceptor.recv(65536)
        except BlockingIOError:
            continue
    assert was_full
    assert got == data


def test_changed_bytes_end_the_connection(files: tuple[Path, Path, Path]) -> None:
    tls = Tls.load(*files)
    socks = [side for _ in range(2) for side in socket.socketpair()]
    for sock in socks:
        sock.setblocking(False)
    dialer, acceptor = tls.wrap(socks[0], is_dialer=True), tls.wrap(socks[3], is_dialer=False)

    def relay() -> None:
        for here, there in ((socks[1], socks[2]), (socks[2], socks[1])):
            try:
                there.send(here.recv(65536))
            except BlockingIOError:
                continue

    done: set[TlsSocket] = set()
    for _ in range(20):
        done |= {side for side in (dialer, acceptor) if side not in done and side.handshake()}
        relay()
    assert len(done) == 2
    dialer.send(memoryview(b"hello"))
    record = bytearray(socks[1].recv(65536))
    record[-1] ^= 1
    socks[2].send(record)
    with pytest.raises(OSError, match="TLS failed"):
        acceptor.recv(1000)
    for sock in (dialer, acceptor, socks[1], socks[2]):
        sock.close()


def test_the_reasons_are_words(
    plain: tuple[socket.socket, socket.socket], files: tuple[Path, Path, Path]
) -> None:
    acceptor = Tls.load(*files).wrap(plain[1], is_dialer=False)
    plain[0].send(b"\0\0\0\x60\0" + bytes(95))
    with pytest.raises(NotTls, match="it does not speak TLS, which this node requires"):
        acceptor.handshake()
    acceptor.send_plain(b"no")
    assert plain[0].recv(5) == b"no"
    acceptor.close()
    assert explain(ssl.SSLEOFError()) == "it closed the connection"
    assert looks_like_tls(b"\x16\x03\x01\x02\x00")
    assert not looks_like_tls(b"\0\0\0\x60\0")


# ---------------------------------------------------------------- certificates that are renewed


def test_a_hangup_reads_renewed_certificates_and_keeps_the_old_ones_if_they_are_wrong(
    authority: Authority, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    mine = (tmp_path / "cert.pem", tmp_path / "key.pem", tmp_path / "ca.pem")

    def renew(name: str) -> bytes:
        for source, place in zip((*authority.node(name), authority.cert), mine, strict=True):
            place.write_bytes(source.read_bytes())
        return ssl.PEM_cert_to_DER_cert(mine[0].read_text())

    def shown(tls: Tls, peer: Tls) -> bytes | None:
        """The certificate that `tls` shows to who dials it."""
        ours, theirs = socket.socketpair()
        with ours, theirs:
            for one in (ours, theirs):
                one.settimeout(20)
            dialled = ssl.create_default_context(cafile=str(authority.cert))
            dialled.check_hostname = False
            dialled.load_cert_chain(*peer.files[:2])
            found: list[bytes | None] = []

            def dial() -> None:
                with dialled.wrap_socket(theirs) as secured:
                    found.append(secured.getpeercert(binary_form=True))

            thread = threading.Thread(target=dial)
            thread.start()
            with tls.server.wrap_socket(ours, server_side=True):
                thread.join(20)
        return found[0]

    first = renew("before")
    tls = Tls.load(*mine)
    peer = Tls.load(*authority.node("peer"), authority.cert)
    assert shown(tls, peer) == first
    second = renew("after")
    assert shown(tls, peer) == first, "not before it is told"
    hang_up(tls)
    assert shown(tls, peer) == second != first
    mine[0].write_text("no certificate")
    hang_up(tls)
    assert "goes on with the certificates that it has" in caplog.text
    assert "cert.pem" in caplog.text
    assert shown(tls, peer) == second
