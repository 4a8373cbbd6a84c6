"""Who is at the other end: mutual proof of the cluster secret, bound to both ids and two fresh nonces.

    dialer                                        acceptor
      hello: cluster, ids, nonce, run  ->
                                       <-           challenge: nonce, run, proof of the acceptor
      proof of the dialer              ->

Each proof is an HMAC-SHA256 with the secret over the role, the cluster id, both node ids, nonces and runs,
so no proof fits another connection, direction, node or cluster. The keys of the frames are made the same
way. A run names one life of a process: two processes that run on one directory and its copy have one id, but
not one run. Pure: bytes and nonces in, bytes out.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import msgpack

if TYPE_CHECKING:
    from collections.abc import Callable

PROTOCOL = "chroma-cluster-raft"
VERSION = 4
NONCE_BYTES = 32
MAX_ID = 64


class Refused(Exception):
    """The other side is not who it must be. `reason` goes to the log and, before any proof, to the peer."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Keys:
    """One key for each direction."""

    dialer: bytes
    acceptor: bytes


@dataclass(frozen=True, slots=True)
class Identity:
    """What this node knows about itself."""

    cluster_id: str
    node_id: str
    secret: bytes
    run: str = ""


@dataclass(frozen=True, slots=True)
class _Session:
    cluster_id: str
    dialer: str
    acceptor: str
    dialer_nonce: bytes
    acceptor_nonce: bytes
    dialer_run: str
    acceptor_run: str

    def derive(self, secret: bytes, label: str) -> bytes:
        text: bytes = msgpack.packb(
            [
                PROTOCOL,
                VERSION,
                label,
                self.cluster_id,
                self.dialer,
                self.acceptor,
                self.dialer_nonce,
                self.acceptor_nonce,
                self.dialer_run,
                self.acceptor_run,
            ]
        )
        return hmac.digest(secret, text, "sha256")

    def keys(self, secret: bytes) -> Keys:
        return Keys(self.derive(secret, "key of the dialer"), self.derive(secret, "key of the acceptor"))


class Dialer:
    """The side that opened the connection, to reach node `peer`."""

    def __init__(self, identity: Identity, peer: str, nonce: bytes) -> None:
        self._identity = identity
        self._peer = peer
        self._nonce = nonce
        self.peer_run = ""
        """The run of the acceptor, once it has proven itself."""

    def hello(self) -> bytes:
        identity = self._identity
        ids = [identity.cluster_id, identity.node_id, self._peer]
        return msgpack.packb(["hello", PROTOCOL, VERSION, *ids, self._nonce, identity.run])

    def on_challenge(self, data: bytes) -> tuple[bytes, Keys]:
        """The answer to the acceptor's challenge: the own proof and the keys.

        Raises:
            Refused: the acceptor could not prove itself, or refused this node.
        """
        fields = _unpack(data)
        if len(fields) == 2 and fields[0] == "refused" and isinstance(fields[1], str):
            raise Refused(f"it refused this node: {fields[1][:200]}")
        is_challenge = len(fields) == 4 and fields[0] == "challenge"
        if not is_challenge or not _is_nonce(fields[1]) or not _is_run(fields[2]):
            raise Refused("it does not speak this protocol")
        identity, run = self._identity, fields[2]
        ids = (identity.cluster_id, identity.node_id, self._peer)
        session = _Session(*ids, self._nonce, fields[1], identity.run, run)
        if not _equal(fields[3], session.derive(identity.secret, "proof of the acceptor")):
            raise Refused("it does not have this cluster's secret")
        self.peer_run = run
        proof = session.derive(identity.secret, "proof of the dialer")
        return msgpack.packb(["proof", proof]), session.keys(identity.secret)


class Acceptor:
    """The side that was called. `refuses` says of an id and a run why it is not let in, or None."""

    def __init__(self, identity: Identity, refuses: Callable[[str, str], str | None], nonce: bytes) -> None:
        self._identity = identity
        self._refuses = refuses
        self._nonce = nonce
        self._session: _Session | None = None

    @property
    def wants_hello(self) -> bool:
        return self._session is None

    def on_hello(self, data: bytes) -> bytes:
        """The challenge.

        Raises:
            Refused: another cluster, an unknown or wrong node, or not this protocol.
        """
        fields = _unpack(data)
        if len(fields) < 7 or fields[:2] != ["hello", PROTOCOL]:
            raise Refused("it does not speak this protocol")
        version, cluster_id, dialer, wanted, nonce, *rest = fields[2:]
        if version != VERSION:
            raise Refused(f"it speaks version {version!r} of the protocol, this node version {VERSION}")
        if len(rest) != 1 or not _is_run(rest[0]):
            raise Refused("it does not speak this protocol")
        if cluster_id != self._identity.cluster_id:
            raise Refused(f"it belongs to another cluster ({str(cluster_id)[:80]!r})")
        if wanted != self._identity.node_id:
            raise Refused(f"it wanted node {str(wanted)[:80]!r}, this is {self._identity.node_id!r}")
        if not isinstance(dialer, str) or not 0 < len(dialer) <= MAX_ID or dialer == wanted:
            raise Refused(f"{str(dialer)[:80]!r} cannot be a member of this cluster beside {wanted!r}")
        if not _is_nonce(nonce):
            raise Refused("its nonce is malformed")
        reason = self._refuses(dialer, rest[0])
        if reason is not None:
            raise Refused(reason)
        ids = (cluster_id, dialer, wanted)
        self._session = _Session(*ids, nonce, self._nonce, rest[0], self._identity.run)
        proof = self._session.derive(self._identity.secret, "proof of the acceptor")
        return msgpack.packb(["challenge", self._nonce, self._identity.run, proof])

    @property
    def peer_run(self) -> str:
        """The run of the dialer."""
        return "" if self._session is None else self._session.dialer_run

    def on_proof(self, data: bytes) -> tuple[str, Keys]:
        """The id of the proven dialer and the keys.

        Raises:
            Refused: it does not have the secret.
        """
        session = self._session
        fields = _unpack(data)
        if session is None or len(fields) != 2 or fields[0] != "proof":
            raise Refused("it does not speak this protocol")
        if not _equal(fields[1], session.derive(self._identity.secret, "proof of the dialer")):
            raise Refused(f"it says it is {session.dialer!r} but does not have this cluster's secret")
        return session.dialer, session.keys(self._identity.secret)


def refusal(reason: str) -> bytes:
    """What an acceptor sends before it closes."""
    return msgpack.packb(["refused", reason])


def _unpack(data: bytes) -> list[Any]:
    try:
        fields: Any = msgpack.unpackb(data)
    except Exception as error:  # msgpack raises several unrelated types on foreign bytes
        raise Refused("it does not speak this protocol") from error
    return cast("list[Any]", fields) if isinstance(fields, list) else []


def _is_nonce(value: Any) -> bool:
    return isinstance(value, bytes) and len(value) == NONCE_BYTES


def _is_run(value: Any) -> bool:
    return isinstance(value, str) and len(value) <= MAX_ID


def _equal(value: Any, wanted: bytes) -> bool:
    return isinstance(value, bytes) and hmac.compare_digest(value, wanted)
