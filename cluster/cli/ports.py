"""TCP ports of this machine for the processes of a cluster."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Final

from cluster.cli.errors import LayoutError

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Iterable

LOOPBACK: Final = "127.0.0.1"

# Below the ports that Linux and the BSDs hand to outgoing connections: a client's connection must not sit
# on a node's port while the node is down, or the node could not come back.
PORT_RANGE: Final = range(18_000, 32_000)


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
    """All ports that nodes may get, from a random place on: two clusters founded at once seldom collide."""
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
