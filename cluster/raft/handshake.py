"""Who is at the other end: mutual proof of the cluster secret, bound to both ids and two fresh nonces.

    dialer                                           acceptor
      hello: versions, cluster, ids, nonce, run, levels ->
                                                    <- challenge: nonce, run, version, levels; its proof
      proof of the dialer                               ->

Each proof is an HMAC-SHA256 with the secret over the role and all that both sides said before, so no proof
fits another connection, direction, node or cluster, and nobody between them can have them speak an older
version than both know. The keys of the frames are made the same way. A run names one life of a process: two
processes that run on one directory and its copy have one id, but not one run.

The dialer says which versions of the protocol it speaks, and the acceptor takes the newest that both do. What
a later version says besides, at the end of its fields, is passed over here, and proven all the same. Levels
are those of `cluster.levels`. Pure: bytes and nonces in, bytes out.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

import msgpack

from cluster.levels import Levels, levels_of_fields, quarrel

if TYPE_CHECKING:
    from collections.abc import Callable

PROTOCOL = "chroma-cluster-raft"
VERSIONS = (5, 5)
"""The oldest and the newest version of the protocol that this build speaks. A build that changes a message
raises the newest, and goes on speaking the one before as long as clusters are upgraded from there by node."""
NONCE_BYTES = 32
MAX_ID = 64


class Refused(Exception):
    """The other side is not who it must be. `reason` goes to the log and, before any proof, to the peer."""

    def __init__(self, reason: str, peer: str | None = None) -> None:
        """`peer` is the node that it is about, where an operator has to know: see `RaftStatus.refused`."""
        super().__init__(reason)
        self.reason = reason
        self.peer = peer


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
    versions: tuple[int, int] = VERSIONS
    levels: Callable[[], Levels] = field(default=Levels)
    """What this node says of command levels at the moment at which it is asked."""


@dataclass(frozen=True, slots=True)
class Link:
    """What both sides of a connection know of the other once it has proven itself."""

    peer_run: str
    version: int
    """The version of the protocol that both speak from here on."""
    peer_levels: Levels


def _derive(secret: bytes, label: str, hello: bytes, challenge: bytes) -> bytes:
    text: bytes = msgpack.packb([PROTOCOL, label, hello, challenge])
    return hmac.digest(secret, text, "sha256")


def _keys(secret: bytes, hello: bytes, challenge: bytes) -> Keys:
    return Keys(
        _derive(secret, "key of the dialer", hello, challenge),
        _derive(secret, "key of the acceptor", hello, challenge),
    )


class Dialer:
    """The side that opened the connection, to reach node `peer`."""

    def __init__(self, identity: Identity, peer: str, nonce: bytes) -> None:
        self._identity = identity
        self._peer = peer
        self._levels = identity.levels()
        ids = [identity.cluster_id, identity.node_id, peer]
        said = [*ids, nonce, identity.run, self._levels.as_fields()]
        self._hello: bytes = msgpack.packb(["hello", PROTOCOL, list(identity.versions), *said])
        self.link: Link | None = None
        """What is known of the acceptor, once it has proven itself."""

    def hello(self) -> bytes:
        return self._hello

    def on_challenge(self, data: bytes) -> tuple[bytes, Keys]:
        """The answer to the acceptor's challenge: the own proof and the keys.

        Raises:
            Refused: the acceptor could not prove itself, or refused this node.
        """
        fields = _unpack(data)
        if len(fields) == 2 and fields[0] == "refused" and isinstance(fields[1], str):
            raise Refused(f"it refused this node: {fields[1][:400]}", self._peer)
        if len(fields) != 3 or fields[0] != "challenge" or not isinstance(fields[1], bytes):
            raise Refused("it does not speak this protocol")
        secret = self._identity.secret
        if not _equal(fields[2], _derive(secret, "proof of the acceptor", self._hello, fields[1])):
            raise Refused("it does not have this cluster's secret")
        said = _unpack(fields[1])
        if len(said) < 4 or not _is_nonce(said[0]) or not _is_run(said[1]):
            raise Refused("it does not speak this protocol")
        oldest, newest = self._identity.versions
        levels = levels_of_fields(said[3])
        if type(said[2]) is not int or not oldest <= said[2] <= newest or levels is None:
            raise Refused("it does not speak this protocol")
        if (why := quarrel(self._levels, self._peer, levels)) is not None:
            raise Refused(why, self._peer)
        self.link = Link(said[1], said[2], levels)
        proof = _derive(secret, "proof of the dialer", self._hello, fields[1])
        return msgpack.packb(["proof", proof]), _keys(secret, self._hello, fields[1])


class Acceptor:
    """The side that was called. `refuses` says of an id and a run why it is not let in, or None."""

    def __init__(self, identity: Identity, refuses: Callable[[str, str], str | None], nonce: bytes) -> None:
        self._identity = identity
        self._refuses = refuses
        self._nonce = nonce
        self._dialer = ""
        self._hello = self._challenge = b""
        self.link: Link | None = None
        """What the dialer says of itself; it is proven once `on_proof` returns."""

    @property
    def wants_hello(self) -> bool:
        return self.link is None

    def on_hello(self, data: bytes) -> bytes:
        """The challenge.

        Raises:
            Refused: another cluster, an unknown or wrong node, not this protocol, a build that does not fit.
        """
        fields = _unpack(data)
        if len(fields) < 7 or fields[:2] != ["hello", PROTOCOL]:
            raise Refused("it does not speak this protocol")
        versions, cluster_id, dialer, wanted, nonce, *rest = fields[2:]
        said = dialer if isinstance(dialer, str) else None
        version = self._version(versions, said)
        levels = levels_of_fields(rest[1]) if len(rest) > 1 else None
        if levels is None or not _is_run(rest[0]):
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
        own = self._identity.levels()
        if (why := quarrel(own, dialer, levels)) is not None:
            # Both sides log it: "this node" would be another one there.
            raise Refused(why.replace("this node", self._identity.node_id), dialer)
        self._dialer, self._hello = dialer, data
        self.link = Link(rest[0], version, levels)
        self._challenge = msgpack.packb([self._nonce, self._identity.run, version, own.as_fields()])
        proof = _derive(self._identity.secret, "proof of the acceptor", data, self._challenge)
        return msgpack.packb(["challenge", self._challenge, proof])

    def _version(self, versions: Any, dialer: str | None) -> int:
        """The newest version of the protocol that both sides speak.

        Raises:
            Refused: there is none.
        """
        oldest, newest = self._identity.versions
        # Before version 5 the one version that a node spoke stood here.
        found = cast("list[Any]", versions) if type(versions) is list else [versions, versions]
        if len(found) < 2 or not all(type(version) is int for version in found[:2]):
            raise Refused("it does not speak this protocol")
        low, high = found[:2]
        common = min(high, newest)
        if common < max(low, oldest):
            raise Refused(
                f"it speaks {_in_words(low, high)} of the protocol between nodes, {self._identity.node_id} "
                f"{_in_words(oldest, newest)}: run builds that have one in common (upgrade through a build "
                "in between, or stop all nodes and start them with one build)",
                dialer,
            )
        return common

    def on_proof(self, data: bytes) -> tuple[str, Keys]:
        """The id of the proven dialer and the keys.

        Raises:
            Refused: it does not have the secret.
        """
        fields = _unpack(data)
        if self.link is None or len(fields) != 2 or fields[0] != "proof":
            raise Refused("it does not speak this protocol")
        secret = self._identity.secret
        if not _equal(fields[1], _derive(secret, "proof of the dialer", self._hello, self._challenge)):
            raise Refused(f"it says it is {self._dialer!r} but does not have this cluster's secret")
        return self._dialer, _keys(secret, self._hello, self._challenge)


def refusal(reason: str) -> bytes:
    """What an acceptor sends before it closes."""
    return msgpack.packb(["refused", reason])


def _in_words(oldest: int, newest: int) -> str:
    return f"version {newest}" if oldest == newest else f"versions {oldest} to {newest}"


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
