"""Whom a fault can strike in a system: its leader, one of the others, its links, its processes."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from evaluation.failure import SystemFailure
from evaluation.faulting import links

if TYPE_CHECKING:
    import random

    from evaluation.systems.interface import Link, System

_ELECTION_S = 30.0


def has_leader(system: System) -> bool:
    """Whether one member leads (is primary): said by `has_leader`, or else by what joins its members."""
    said = getattr(system, "has_leader", None)
    if isinstance(said, bool):
        return said
    return system.promises.one_leader or any(link.plane in ("raft", "replication") for link in known(system))


def known(system: System) -> tuple[Link, ...]:
    """Its links, or none as long as they are not known before its start."""
    try:
        return tuple(system.links)
    except (AttributeError, KeyError, IndexError):
        return ()


def everybody(system: System) -> tuple[str, ...]:
    return links.participants(system.links, system.members)


async def leader(system: System) -> str:
    """The member that leads now, waiting for an election's end.

    Raises:
        SystemFailure: there is none for too long.
    """
    end = time.monotonic() + _ELECTION_S
    while (found := await system.leader()) is None:
        if time.monotonic() > end:
            raise SystemFailure(f"{system.name} has no leader for {_ELECTION_S} s: {await system.health()}")
        await asyncio.sleep(0.1)
    return found


async def follower(system: System, rng: random.Random) -> str:
    """One that does not lead; any member where none leads."""
    others = list(system.members)
    if has_leader(system):
        others.remove(await leader(system))
    return rng.choice(others)


def sides(system: System, struck: tuple[str, ...]) -> dict[str, str]:
    """When these are dead or frozen: they and who stands beside them are a minority."""
    names = everybody(system)
    if not set(struck) & set(system.members):
        return dict.fromkeys(names, "all")
    rest = tuple(name for name in names if name not in struck)
    cuts = links.between([*((name,) for name in struck), rest])
    found = links.sides(names, system.members, cuts, system.beside)
    # Whatever they would reach: one member of one is no majority when it is dead.
    return found | {name: "minority" for name in names if system.beside.get(name, name) in struck}
