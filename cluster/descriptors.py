"""How many files and sockets a process may have open, and how they are shared out."""

from __future__ import annotations

import resource
from typing import Final

#: Below this a node or balancer does not start: it could not hold its own files and a few clients.
FLOOR: Final = 256
#: More is of no use to one process here.
_ENOUGH: Final = 65_536

#: Kept for what is neither a client nor an index: databases, links between nodes, logs, child processes.
RESERVE: Final = 96


def raise_limit() -> int:
    """Let this process and its children open as many files as the system allows; how many that are.

    Raises:
        ValueError: fewer than `FLOOR`, with what to do.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _ENOUGH if hard == resource.RLIM_INFINITY else min(hard, _ENOUGH)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    limit = open_files()
    if limit < FLOOR:
        raise ValueError(
            f"this process may have only {limit} files open, and {FLOOR} are needed. Nothing was started; "
            "raise the limit (`ulimit -n`, LimitNOFILE= of systemd, `ulimits` of compose)"
        )
    return limit


def open_files() -> int:
    """How many files this process may have open."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return _ENOUGH if soft == resource.RLIM_INFINITY else min(soft, _ENOUGH)


def indexes(limit: int) -> int:
    """How many vector indexes, of five files each, Chroma may hold in memory."""
    return max((limit - RESERVE) // 5, 8)


def backlog(limit: int) -> int:
    """How many connections may wait: asyncio accepts so many in one go, before any is counted."""
    return min(limit // 8, 1024)


def clients(limit: int) -> int:
    """How many connections of clients are taken: each may need another one, to the node that answers."""
    return max((limit - RESERVE) // 2, 8)
