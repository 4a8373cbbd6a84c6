"""Bugs of the transport: links that are not let go, or of which the node is not told."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cluster.raft.dialing import Dialing
from cluster.raft.transport import TcpTransport

if TYPE_CHECKING:
    from pysyncobj.node import Node

    from cluster.raft.connection import Connection, Peer


class OldLinkStays(TcpTransport):
    """When a peer dials again, its old connection is not closed."""

    def _establish(self, connection: Connection, peer: str) -> None:
        self._peers[peer].connection = None
        super()._establish(connection, peer)


class OldLinkTaken(TcpTransport):
    """A connection that hung in the network since before the present one takes its place."""

    def _establish(self, connection: Connection, peer: str) -> None:
        self._peers[peer].newest = 0
        super()._establish(connection, peer)


class LossIsNotTold(TcpTransport):
    """The node is not told that a link broke."""

    def _onNodeDisconnected(self, node: Node) -> None:
        return None


class SilenceIsNoLoss(TcpTransport):
    """A link on which nothing comes any more is kept."""

    def _look_after(self, connection: Connection, now: float) -> None:
        connection.received_s = now
        super()._look_after(connection, now)


class NoPings(TcpTransport):
    """A link on which the node says nothing is silent."""

    def _look_after(self, connection: Connection, now: float) -> None:
        held, connection.sent_s = connection.sent_s, now
        super()._look_after(connection, now)
        connection.sent_s = held


class OtherDialsStay(TcpTransport):
    """Attempts that are under way when one succeeds go on."""

    def _establish(self, connection: Connection, peer: str) -> None:
        held, self._peers[peer].dials = self._peers[peer].dials, set()
        super()._establish(connection, peer)
        self._peers[peer].dials = held - {connection}


class _DialOnce(Dialing):
    def soon_again(self, peer: Peer) -> None:
        peer.dial_due_s = float("inf")


class NoRedial(TcpTransport):
    """A link that broke is not dialled again."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._dialing.__class__ = _DialOnce
