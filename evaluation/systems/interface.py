"""What every system under test offers, so that traffic, faults and checker are the same for all of them.

A system is made of *members* (the places that hold data: node-1, pg-1, chroma-1, worker-1), reached through
*entries* (where clients connect), joined by *links* (who dials whom, each through a Toxiproxy proxy of its
own). Whatever dials without being a member (balancer, sync agent, supervisor, clients) is a *participant*; in
a partition it stands beside a member if `beside` says so, else with the larger side.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from evaluation.systems.proxies import Proxies


@dataclass(frozen=True, slots=True)
class Entry:
    """A base URL that speaks Chroma's HTTP API (v2)."""

    name: str
    """`lb` for the balancer or what stands for it; else the member that it leads to directly."""
    url: str
    member: str | None = None
    """The member whose clients use it (they stand on that member's side); None for the balancer."""


@dataclass(frozen=True, slots=True)
class Link:
    """One proxied TCP direction of dialling. Bytes flow both ways: `upstream` is dialer -> acceptor."""

    proxy: str
    """The name of the proxy in Toxiproxy; URL-safe."""
    dialer: str
    acceptor: str
    plane: str
    """client, balancer, http, raft, sync, replication, sql ..."""


@dataclass(frozen=True, slots=True)
class Observation:
    """What one member says of itself at one moment."""

    member: str
    at_ns: int
    role: str
    """leader, follower, candidate, primary, replica, peer (writes its own data), worker, stopped, silent."""
    term: int | None = None
    """Term or timeline, where there is one."""
    applied: int | None = None
    healthy: bool = True
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Promises:
    """What the system itself promises. Only these can be broken; other properties are shown as measured."""

    durable: bool = False
    """An acknowledged write is never lost, once all faults are healed."""
    levels: Mapping[str, str] = field(default_factory=dict[str, str])
    """Read level -> what it promises: linearizable, session, eventual, none."""
    one_leader: bool = False
    """Two members never acknowledge writes as leader or primary at overlapping times."""
    converges: bool = False
    """After healing, all members hold the same records."""
    atomic_batches: bool = False
    """No read sees part of one request's records."""
    available_majority: bool = False
    """Writes go on while a majority of members can reach each other."""


class System(Protocol):
    """One system under test. Methods are called from one event loop, one at a time, except `observe`.

    All waiting has deadlines; a missed one raises `evaluation.failure.SystemFailure`: what was
    expected, and the logs' ends.
    """

    @property
    def name(self) -> str: ...

    @property
    def members(self) -> tuple[str, ...]: ...

    @property
    def promises(self) -> Promises: ...

    @property
    def levels(self) -> tuple[str, ...]:
        """Read levels a client may ask for by X-Chroma-Consistency; ("default",) where there are none."""
        ...

    @property
    def entries(self) -> tuple[Entry, ...]:
        """After `start`. The balancer (or what stands for it) first."""
        ...

    @property
    def links(self) -> tuple[Link, ...]: ...

    @property
    def beside(self) -> Mapping[str, str]:
        """Participant -> the member whose side of a partition it shares."""
        ...

    async def start(self, folder: Path, proxies: Proxies) -> None:
        """Start everything with its data below `folder` (new, empty), all links through `proxies`; return
        when a write through each entry that takes writes would be answered."""
        ...

    async def stop(self) -> None:
        """Stop and reap every process, also after a failed start, also paused ones."""
        ...

    async def leader(self) -> str | None:
        """The member that leads (is primary) now, if the system has such a thing and it is known."""
        ...

    async def health(self) -> str | None:
        """None when all is as after `start`: every member up, replication caught up. Else what is wrong."""
        ...

    async def observe(self) -> list[Observation]:
        """Every member asked once, with a short timeout, not through proxies. `at_ns`: time.monotonic_ns."""
        ...

    def pids(self, participant: str) -> list[int]:
        """All live processes of a member or other participant (balancer, agent ...), children included."""
        ...

    async def restart(self, participant: str) -> None:
        """Start it again after it was killed, as its operator would (a Postgres primary that was replaced is
        rewound and follows). Does nothing if it lives."""
        ...

    async def settle(self) -> None:
        """After healing, before the final reads: whatever an operator or the system's own schedule would do
        until it is quiet (a last round of a sync agent, replicas caught up)."""
        ...

    def disk(self, member: str) -> Path:
        """The folder that holds this member's data."""
        ...
