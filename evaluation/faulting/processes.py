"""Faults of processes: killed, frozen, killed again and again."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, Protocol, cast, runtime_checkable

from evaluation.failure import SystemFailure
from evaluation.faulting import targets
from evaluation.faulting.interface import Struck, take_back, undone_on_failure

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from evaluation.faulting.interface import Context
    from evaluation.systems.interface import System

BALANCER: Final = "balancer"
Who = Literal["leader", "follower", "balancer", "all", "agent"]
_SOON_S: Final = 20.0


@runtime_checkable
class HasAgents(Protocol):
    """A system with a process beside each member that decides whether this member leads."""

    def agent(self, member: str) -> str:
        """The participant that decides for the member."""
        ...


@dataclass(frozen=True, slots=True)
class _OnProcesses:
    name: str
    summary: str
    who: Who
    min_seconds: float = 5.0

    def why_not(self, system: System) -> str:
        match self.who:
            case "leader":
                return "" if targets.has_leader(system) else "no member leads"
            case "follower":
                return "" if len(system.members) > 1 else "there is only one member"
            case "balancer":
                known = targets.known(system)
                there = not known or any(BALANCER in (link.dialer, link.acceptor) for link in known)
                return "" if there else "it has no balancer"
            case "agent":
                return "" if isinstance(system, HasAgents) else "its members decide for themselves"
            case "all":
                return ""

    def applies_to(self, system: System) -> bool:
        return not self.why_not(system)

    async def _victims(self, context: Context) -> tuple[str, ...]:
        system = context.system
        match self.who:
            case "leader":
                return (await targets.leader(system),)
            case "follower":
                return (await targets.follower(system, context.rng),)
            case "balancer":
                return (BALANCER,)
            case "agent":
                return (cast("HasAgents", system).agent(await targets.leader(system)),)
            case "all":
                return system.members


class Kill(_OnProcesses):
    """A `Fault`: kill -9, started again at the end."""

    async def apply(self, context: Context) -> Struck:
        victims = await self._victims(context)
        pids = {name: context.system.pids(name) for name in victims}
        struck = Struck(members=victims, sides=targets.sides(context.system, victims), detail={"pids": pids})
        restarts = [restart_later(context, name) for name in reversed(victims)]
        # Members with a leader may need it before they can start (a replica that is rewound): one by one.
        struck.undo += restarts if targets.has_leader(context.system) else [together(restarts)]
        context.note(f"kill -9 of {', '.join(victims)}")
        async with undone_on_failure(struck):
            await kill(context, victims)
        return struck

    async def heal(self, context: Context, struck: Struck) -> None:
        await take_back(struck)
        dead = [name for name in struck.members if not context.system.pids(name)]
        if dead:
            raise SystemFailure(f"{self.name}: {', '.join(dead)} did not come back")


class Pause(_OnProcesses):
    """A `Fault`: SIGSTOP of all processes of a member, SIGCONT at the end."""

    async def apply(self, context: Context) -> Struck:
        victims = await self._victims(context)
        pids = [pid for name in victims for pid in context.system.pids(name)]
        if not pids:
            raise SystemFailure(f"{self.name}: {', '.join(victims)} has no process")
        struck = Struck(members=victims, sides=targets.sides(context.system, victims), detail={"pids": pids})

        async def undo() -> None:
            _signal(pids, signal.SIGCONT)
            await _until(
                f"{self.name}: the processes run again",
                lambda: not any(state(pid) == "T" for pid in pids),
            )

        struck.undo.append(undo)
        context.note(f"SIGSTOP of {', '.join(victims)}")
        async with undone_on_failure(struck):
            _signal(pids, signal.SIGSTOP)
            await _until(
                f"{self.name}: the processes are stopped",
                lambda: (
                    all(state(pid) in ("T", "") for pid in pids) and any(state(pid) == "T" for pid in pids)
                ),
            )
        return struck

    async def heal(self, context: Context, struck: Struck) -> None:
        context.note(f"SIGCONT of {', '.join(struck.members)}")
        await take_back(struck)


class Storm(_OnProcesses):
    """A `Fault`: members are killed and started one after the other, without rest."""

    async def apply(self, context: Context) -> Struck:
        system = context.system
        struck = Struck(
            members=system.members,
            sides=dict.fromkeys(targets.everybody(system), "all"),
            detail={"kills": 0},
        )
        struck.undo += [restart_later(context, name) for name in system.members]
        await self._one(context, struck)
        struck.task = asyncio.create_task(self._storm(context, struck))
        return struck

    async def heal(self, context: Context, struck: Struck) -> None:
        await take_back(struck)

    async def _storm(self, context: Context, struck: Struck) -> None:
        while not await struck.stopped_within(context.rng.uniform(0.2, 1.5)):
            await self._one(context, struck)

    async def _one(self, context: Context, struck: Struck) -> None:
        victim = context.rng.choice(context.system.members)
        context.note(f"kill -9 of {victim}")
        await kill(context, (victim,))
        struck.detail["kills"] += 1
        await context.system.restart(victim)


async def kill(context: Context, victims: Sequence[str]) -> None:
    """kill -9 of all processes of these participants; returns when none of them lives.

    Raises:
        SystemFailure: there was nothing to kill, or it outlives the kill.
    """
    system = context.system
    found = [pid for name in victims for pid in system.pids(name)]
    if not found:
        raise SystemFailure(f"{', '.join(victims)}: there is no process to kill")

    def dead() -> bool:
        # Again and again: a process may have made another one just before.
        left = [pid for name in victims for pid in system.pids(name)]
        _signal(left, signal.SIGKILL)
        return not left

    _signal(found, signal.SIGKILL)
    await _until(f"{', '.join(victims)} are dead", dead)


def state(pid: int) -> str:
    """The state letter of a process (T: stopped), or "" if there is none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (OSError, IndexError):
        return ""


def _signal(pids: Sequence[int], signum: int) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signum)


def restart_later(context: Context, name: str) -> Callable[[], Awaitable[None]]:
    async def undo() -> None:
        context.note(f"{name} is started")
        await context.system.restart(name)

    return undo


def together(steps: Sequence[Callable[[], Awaitable[None]]]) -> Callable[[], Awaitable[None]]:
    """All at once; the first error is raised when all are over."""

    async def undo() -> None:
        done = await asyncio.gather(*(step() for step in steps), return_exceptions=True)
        for error in done:
            if error is not None:
                raise error

    return undo


async def _until(what: str, condition: Callable[[], bool]) -> None:
    end = time.monotonic() + _SOON_S
    while not condition():
        if time.monotonic() > end:
            raise SystemFailure(f"not within {_SOON_S} s: {what}")
        await asyncio.sleep(0.02)


def faults() -> list[Kill | Pause | Storm]:
    """All of them."""
    return [
        Kill("kill-leader", "kill -9 of the leader", "leader"),
        Kill("kill-follower", "kill -9 of a member that does not lead", "follower"),
        Kill("kill-balancer", "kill -9 of the balancer", "balancer"),
        Kill("kill-all", "kill -9 of all members at once", "all"),
        Pause("pause-leader", "the leader is frozen (SIGSTOP) for longer than an election takes", "leader"),
        Pause("pause-follower", "a member that does not lead is frozen (SIGSTOP)", "follower"),
        Pause(
            "pause-leader-agent",
            "the process that decides whether the leader leads is frozen (SIGSTOP); the leader goes on",
            "agent",
        ),
        Storm("restart-storm", "members are killed and started at random, without rest", "all", 8.0),
    ]
