"""Courses of the real transport, over sockets in memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.simulation.invariants import Violation
from tests.simulation.links import LinkRun, judged
from tests.simulation.mutations import parts_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from cluster.raft.transport import TcpTransport


def hung_link(mutation: str | None = None) -> Violation | None:
    """See `HungLink`."""
    return judged(HungLink(parts_of(mutation).transport))


class HungLink(LinkRun):
    """A course: the last step of a handshake hangs in the network; the dialer gives that link up, dials anew,
    and speaks; then what hung arrives. It must not take the place of the link that is there."""

    def __init__(self, kind: type[TcpTransport]) -> None:
        super().__init__(0, kind)

    def run(self) -> None:
        with self.world.patched():
            for host in self.hosts:
                self._start(host)
            self._until(self._is_whole)
            acceptor, _, dialer = self.hosts
            link, other = self.programs[dialer].links[acceptor], self.programs[acceptor].links[dialer]
            self.world.reset(dialer, acceptor)
            self._until(lambda: not link.is_up and not other.is_up)
            self._until(lambda: link.is_up)
            assert not other.is_up, "the acceptor has the proof already"
            self.world.block(dialer, acceptor)
            self.world.block(acceptor, dialer)
            self._until(lambda: not link.is_up)
            self.world.unblock(dialer, acceptor, 1.0)
            self.world.unblock(acceptor, dialer, 1.0)
            number = link.number
            self._until(lambda: other.got == (1, number + 1) and other.heard[0] > 3)
            self._check_rest()

    def _until(self, done: Callable[[], bool]) -> None:
        if not self.scheduler.run_until(self.scheduler.now + 5, done):
            raise Violation("liveness", "the course does not come about")
