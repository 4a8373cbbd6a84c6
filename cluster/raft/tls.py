"""Mutual TLS 1.3 under the Raft transport: one certificate a node, one authority for all, both sides checked.

Host names are not compared: nodes are dialled at addresses that may be proxies, the authority says who may
speak at all, and the challenge-response with the cluster secret on top says which node it is. Reads and
writes look like those of a plain non-blocking socket, so that the transport has one way for both.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cluster.errors import Fault

if TYPE_CHECKING:
    from pathlib import Path

_RECORD_BYTES = 16 * 1024
"""The most that one TLS record holds: a read of this size leaves nothing decrypted behind."""
_ALL_OR_NONE = "give every node raft_tls_cert, raft_tls_key and raft_tls_ca, or none of them to any"
_NOT_TLS = ("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "HTTPS_PROXY_REQUEST", "UNKNOWN_PROTOCOL")
_RECORD_TYPES = (b"\x16\x03", b"\x15\x03")
"""How a TLS handshake and a TLS alert begin."""
_CLOSED_EARLY = (
    f"it closed the connection during the TLS handshake; it may have no TLS settings ({_ALL_OR_NONE}), "
    "or its log says why it refuses this node"
)

TLS_REQUIRED = f"this node requires TLS; {_ALL_OR_NONE}"
PEER_SPEAKS_TLS = f"it speaks TLS and this node has no TLS settings; {_ALL_OR_NONE}"


class NotTls(OSError):
    """What the peer sent is no TLS; it can still be told so in plain bytes."""


@dataclass(slots=True)
class Tls:
    """What this node shows as dialer and as acceptor, and whom it lets in."""

    files: tuple[Path, Path, Path]
    client: ssl.SSLContext
    server: ssl.SSLContext

    @classmethod
    def load(cls, cert: Path, key: Path, ca: Path) -> Tls:
        """Contexts from PEM files: this node's chain, its unencrypted private key, the authority.

        Raises:
            Fault: a file is missing, unreadable or not what it must be; the message names it.
        """
        _check_readable(cert, key, ca)
        return cls(
            (cert, key, ca),
            _context(ssl.PROTOCOL_TLS_CLIENT, cert, key, ca),
            _context(ssl.PROTOCOL_TLS_SERVER, cert, key, ca),
        )

    def reload(self) -> None:
        """Read the files again, for connections made from now on; may be called from any thread.

        Raises:
            Fault: as `load`; what was read before is kept.
        """
        fresh = Tls.load(*self.files)
        self.client, self.server = fresh.client, fresh.server

    def wrap(self, sock: socket.socket, *, is_dialer: bool) -> TlsSocket:
        """Takes over the connected, non-blocking `sock`; nothing is sent yet.

        Raises:
            OSError: the connection is gone.
        """
        context = self.client if is_dialer else self.server
        return TlsSocket(context.wrap_socket(sock, server_side=not is_dialer, do_handshake_on_connect=False))


class TlsSocket:
    """Like a non-blocking socket: BlockingIOError when it must wait, OSError with the reason in words."""

    def __init__(self, sock: ssl.SSLSocket) -> None:
        self._sock = sock
        self._broke: OSError | None = None
        self.wants_write = False
        """The handshake or a read cannot go on before the socket takes bytes."""

    def handshake(self) -> bool:
        """Go on with the handshake; True when it is done.

        Raises:
            NotTls: the peer sent something else.
            OSError: it failed, with the reason in words.
        """
        try:
            self._sock.do_handshake()
        except ssl.SSLWantReadError:
            self.wants_write = False
            return False
        except ssl.SSLWantWriteError:
            self.wants_write = True
            return False
        except (ssl.SSLEOFError, ConnectionError) as error:
            raise OSError(_CLOSED_EARLY) from error
        except OSError as error:
            kind = NotTls if getattr(error, "reason", None) in _NOT_TLS else OSError
            raise kind(explain(error)) from error
        self.wants_write = False
        return True

    def recv(self, limit: int) -> bytes:
        """At least one byte and about `limit`, b"" at the end. Nothing stays decrypted and unread.

        A selector sees only the socket: bytes left behind here would wait until others arrive.
        """
        if self._broke is not None:
            raise self._broke
        self.wants_write = False
        chunks: list[bytes] = []
        size = 0
        while size < limit or self._sock.pending():
            try:
                data = self._sock.recv(_RECORD_BYTES)
            except ssl.SSLWantReadError:
                break
            except ssl.SSLWantWriteError:
                self.wants_write = True
                break
            except ssl.SSLError as error:
                # What came before it is dropped too, as a reset does: the peer or the way to it is bad.
                raise OSError(explain(error)) from error
            except OSError as error:
                # The socket stays readable, so this is told at the next call, after what came before.
                self._broke = error
                break
            if not data:
                if chunks:
                    break
                return b""
            chunks.append(data)
            size += len(data)
        if chunks:
            return b"".join(chunks)
        if self._broke is not None:
            raise self._broke
        raise BlockingIOError

    def send(self, data: memoryview) -> int:
        """How many bytes were taken. After BlockingIOError the same bytes must be offered again."""
        try:
            return self._sock.send(data)
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError) as error:
            raise BlockingIOError from error
        except ssl.SSLError as error:
            raise OSError(explain(error)) from error

    def send_plain(self, data: bytes) -> None:
        """Try to send past TLS, to a peer that turned out not to speak it."""
        with contextlib.suppress(OSError):
            socket.socket.send(self._sock, data)

    def fileno(self) -> int:
        return self._sock.fileno()

    def getpeername(self) -> object:
        return self._sock.getpeername()

    def close(self) -> None:
        self._sock.close()


def explain(error: OSError) -> str:
    """Why TLS with a peer failed, in words that say which side to look at."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is refused: {error.verify_message}"
    if isinstance(error, ssl.SSLEOFError):
        return "it closed the connection"
    reason = str(getattr(error, "reason", None) or error)
    if reason in _NOT_TLS:
        return f"it does not speak TLS, which this node requires; {_ALL_OR_NONE}"
    if "ALERT" in reason:
        return f"it refuses this node's certificate or TLS version ({_words(reason)})"
    return f"TLS failed ({_words(reason)})"


def looks_like_tls(data: bytes) -> bool:
    """Whether these first bytes of a connection are those of a TLS record."""
    return data.startswith(_RECORD_TYPES)


def _words(reason: str) -> str:
    return reason.replace("_", " ").lower()


def _context(protocol: int, cert: Path, key: Path, ca: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(protocol)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False
    context.verify_mode = ssl.CERT_REQUIRED
    if protocol == ssl.PROTOCOL_TLS_SERVER:
        context.num_tickets = 0  # connections are long: resumption would be bytes for nothing
    _load_certificates(context, ca, "raft_tls_ca")
    if context.cert_store_stats()["x509_ca"] == 0:
        raise _fault(f"raft_tls_ca: {ca} holds no certificate of an authority (basicConstraints CA:TRUE)")
    _load_certificates(ssl.SSLContext(protocol), cert, "raft_tls_cert")
    try:
        context.load_cert_chain(cert, key, password=lambda: _no_passphrase(key))
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise _fault(
                f"raft_tls_key: {key} is not the private key of the certificate in {cert}"
            ) from error
        raise _fault(
            f"raft_tls_key: {key} is not a private key in PEM form that fits {cert} ({error})"
        ) from error
    return context


def _load_certificates(context: ssl.SSLContext, path: Path, name: str) -> None:
    try:
        context.load_verify_locations(path)
    except ssl.SSLError as error:
        raise _fault(f"{name}: {path} holds no certificate in PEM form ({error})") from error


def _no_passphrase(key: Path) -> str:
    """Without this OpenSSL would ask on the terminal, and the node would hang."""
    raise _fault(f"raft_tls_key: {key} is encrypted with a passphrase; give the key unencrypted, mode 0600")


def _check_readable(cert: Path, key: Path, ca: Path) -> None:
    for name, path in (("raft_tls_cert", cert), ("raft_tls_key", key), ("raft_tls_ca", ca)):
        try:
            with path.open("rb"):
                pass
        except OSError as error:
            raise _fault(f"{name}: cannot read {path}: {error.strerror}") from error


def _fault(what: str) -> Fault:
    return Fault(f"{what}. Nothing was changed; correct the file or the setting and start again.")
