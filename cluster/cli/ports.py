"""TCP ports of this machine for the processes of a cluster."""

from __future__ import annotations

import fcntl
import os
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Final

from cluster.cli.errors import LayoutError

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Iterable

LOOPBACK: Final = "127.0.0.1"

# Below the ports that Linux and the BSDs hand to outgoing connections: a client's connection must not sit
# on a node's port while the node is down, or the node could not come back.
PORT_RANGE: Final = range(18_000, 32_000)

# The same for all processes of the machine, whatever TMPDIR each has. The empty file stays there.
_PLACE: Final = Path("/tmp")


def port_of(address: str) -> int:
    """The port in `host:port`."""
    return int(address.rpartition(":")[2])


def choose_ports(count: int, candidates: Iterable[int], is_free: Callable[[int], bool]) -> list[int]:
    """The first `count` candidates that are free.

    Raises:
        LayoutError: there are not so many.
    """
    found: list[int] = []
    for port in candidates:
        if len(found) == count:
            break
        if port not in found and is_free(port):
            found.append(port)
    if len(found) < count:
        raise LayoutError(f"Only {len(found)} free TCP ports of the {count} that the nodes need were found.")
    return found


def shuffled_ports(rng: random.Random) -> list[int]:
    """All ports that nodes may get, from a random place on: clusters on one machine seldom come close."""
    start = rng.randrange(len(PORT_RANGE))
    return [*PORT_RANGE[start:], *PORT_RANGE[:start]]


def port_is_free(port: int, host: str = LOOPBACK) -> bool:
    """Could a server listen on this port now?"""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # As servers do: connections of a server that just stopped must not count as "in use".
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


def take_port(port: int) -> bool:
    """Is this port free, and now kept for this process until it ends? It may ask again for what it keeps.

    Between the choice of a port and the server that listens there, or while a server is down, the port is
    free for everybody: of two who choose at the same time, each could choose the other's. Whoever chooses
    with this function gets none that another process of this user took with it and that still runs.
    """
    if not keep_port(port):
        return False
    if port_is_free(port):
        return True
    leave_port(port)
    return False


def keep_port(port: int) -> bool:
    """Let nobody else take this port, free or not, until this process ends; False if another keeps it."""
    return _ledger.write(port)


def leave_port(port: int) -> None:
    """Keep it no longer."""
    _ledger.strike(port)


class _Ledger:
    """Who keeps which port: a lock on one byte of a file, which the kernel lifts when the process ends."""

    def __init__(self) -> None:
        self._owner = 0
        self._descriptor = -1

    def write(self, port: int) -> bool:
        """Keep `port`; False if another process keeps it."""
        descriptor = self._open()
        if descriptor < 0:
            return True  # no file to agree in: as if nobody else chose
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, port)
        except OSError:
            return False
        return True

    def strike(self, port: int) -> None:
        """Keep `port` no longer."""
        descriptor = self._open()
        if descriptor >= 0:
            fcntl.lockf(descriptor, fcntl.LOCK_UN, 1, port)

    def _open(self) -> int:
        """The file's descriptor, opened once by each process (a fork's locks are its own); -1 without one."""
        if self._owner != os.getpid():
            self._owner = os.getpid()
            # One for each user: a file of another user cannot be trusted.
            path = _PLACE / f"chroma-cluster-ports-{os.getuid()}"
            try:
                self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            except OSError:
                self._descriptor = -1
                return -1
            if os.fstat(self._descriptor).st_uid != os.getuid():  # who owns it could lock all of it for ever
                os.close(self._descriptor)
                self._descriptor = -1
        return self._descriptor


_ledger: Final = _Ledger()
