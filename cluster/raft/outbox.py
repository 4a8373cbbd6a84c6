"""What leaves at once, and what leaves only after the next flush of the journal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cluster.failpoint import failpoint
from cluster.raft.messages import Accepted

if TYPE_CHECKING:
    from collections.abc import Callable

    from pysyncobj.node import Node
    from pysyncobj.transport import Transport

    from cluster.raft.journal import Journal
    from cluster.raft.messages import Message


class Outbox:
    """A message that promises something is held until what it promises is durable."""

    def __init__(self, transport: Transport, journal: Journal, node_for: Callable[[str], Node]) -> None:
        self.transport = transport
        self.journal = journal
        self.node_for = node_for
        self._held: list[tuple[str, Message]] = []

    def send(self, peer: str, message: Message) -> bool:
        """At once: only for what promises nothing. False when the transport did not take it."""
        return self.transport.send(self.node_for(peer), message)

    def reply(self, peer: str, message: Message) -> None:
        """At once if nothing waits for the disk: the term that a reply states is durable before it leaves."""
        if self.journal.dirty:
            self.hold(peer, message)
        else:
            self.send(peer, message)

    def hold(self, peer: str, message: Message) -> None:
        """After the next flush."""
        self._held.append((peer, message))

    def release(self) -> None:
        """Called after a flush. Of several acks to one leader only the newest leaves: it says it all."""
        held, self._held = self._held, []
        newest = {peer: message for peer, message in held if type(message) is Accepted}
        for peer, message in held:
            if type(message) is not Accepted:
                self.send(peer, message)
            elif newest[peer] is message:
                failpoint("raft.before_ack")
                self.send(peer, message)
                failpoint("raft.after_ack")

    def clear(self) -> None:
        """Nothing that is held leaves any more."""
        self._held.clear()
