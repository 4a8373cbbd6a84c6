"""Faults of disks: full, slow, gone, and not holding what was written."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol, cast, runtime_checkable

import aiohttp

from evaluation.failure import SystemFailure
from evaluation.faulting import targets
from evaluation.faulting.interface import Struck, take_back, undone_on_failure
from evaluation.faulting.processes import kill, restart_later
from evaluation.limits import file_size_limits, limit_file_size
from evaluation.systems import http

if TYPE_CHECKING:
    from evaluation.faulting.interface import Context
    from evaluation.systems.interface import Entry, System

_LIMIT_BYTES: Final = 4096
_BITES_S: Final = 30.0
_HEALTHY_S: Final = 5.0
_SLOW_S: Final = 0.3


@runtime_checkable
class SlowsFsync(Protocol):
    """A system whose members' syncs to disk can be held up."""

    async def slow_fsync(self, member: str, slow: bool) -> None: ...


@runtime_checkable
class DetectsDamage(Protocol):
    """A system that promises to notice a flipped bit."""

    async def damage(self, member: str) -> str:
        """Flip a bit in the stopped member's data; says where."""
        ...

    async def refusal(self, member: str) -> str:
        """Start the damaged member; why it refuses to run.

        Raises:
            SystemFailure: it runs.
        """
        ...


@dataclass(frozen=True, slots=True)
class _OnDisk:
    name: str
    summary: str
    min_seconds: float = 5.0

    def applies_to(self, system: System) -> bool:
        return not self.why_not(system)

    def why_not(self, system: System) -> str:
        del system
        return ""


def _entry_of(system: System, member: str) -> Entry:
    return next((each for each in system.entries if each.member == member), system.entries[0])


class Full(_OnDisk):
    """A `Fault`: no file of one member's processes may grow beyond 4 KiB. The leader, if there is one."""

    async def apply(self, context: Context) -> Struck:
        system = context.system
        victim = await (
            targets.leader(system) if targets.has_leader(system) else targets.follower(system, context.rng)
        )
        pids = system.pids(victim)
        struck = Struck(members=(victim,), sides=targets.sides(system, (victim,)), detail={"pids": pids})
        before: dict[int, int] = {}

        async def undo() -> None:
            # Also those that have come since: they have the limit of their parent.
            for pid in {*before, *system.pids(victim)}:
                with contextlib.suppress(ProcessLookupError):
                    _, hard = file_size_limits(pid)
                    limit_file_size(pid, before.get(pid, hard))
            await self._revive(context, victim)

        struck.undo.append(undo)
        context.note(f"the disk of {victim} is full")
        async with undone_on_failure(struck):
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    before[pid], _ = file_size_limits(pid)
                    limit_file_size(pid, _LIMIT_BYTES)
            await self._prove(context, victim)
        return struck

    async def heal(self, context: Context, struck: Struck) -> None:
        await take_back(struck)

    async def _prove(self, context: Context, victim: str) -> None:
        """A write through its entry fails, or the member says that it is ill or is not there any more."""
        entry = _entry_of(context.system, victim)
        end = time.monotonic() + _BITES_S
        async with aiohttp.ClientSession() as session:
            while time.monotonic() < end:
                if not await http.takes_writes(session, entry.url, 5.0):
                    return
                seen = {each.member: each for each in await context.system.observe()}
                if not seen[victim].healthy:
                    return
                await asyncio.sleep(0.1)
        raise SystemFailure(f"{self.name} does not bite: {victim} goes on writing")

    async def _revive(self, context: Context, victim: str) -> None:
        """With room again: if it is not well by itself, its operator starts it anew."""
        end = time.monotonic() + _HEALTHY_S
        entry = _entry_of(context.system, victim)
        async with aiohttp.ClientSession() as session:
            while time.monotonic() < end and context.system.pids(victim):
                seen = {each.member: each for each in await context.system.observe()}
                # A Chroma whose disk was full may answer again, and still store nothing.
                if seen[victim].healthy and await http.takes_writes(session, entry.url, 5.0):
                    return
                await asyncio.sleep(0.2)
        if context.system.pids(victim):
            await kill(context, (victim,))
        context.note(f"{victim} is started anew")
        await context.system.restart(victim)


class Slow(_OnDisk):
    """A `Fault`: each sync to disk of one member takes longer. The leader, if there is one."""

    def why_not(self, system: System) -> str:
        return "" if isinstance(system, SlowsFsync) else "its syncs to disk cannot be held up"

    async def apply(self, context: Context) -> Struck:
        system = context.system
        victim = await (
            targets.leader(system) if targets.has_leader(system) else targets.follower(system, context.rng)
        )
        slow = cast("SlowsFsync", cast("Any", system))
        struck = Struck(members=(victim,), sides=dict.fromkeys(targets.everybody(system), "all"))

        async def undo() -> None:
            await slow.slow_fsync(victim, False)

        struck.undo.append(undo)
        context.note(f"the disk of {victim} is slow")
        async with undone_on_failure(struck):
            fast_s = await self._sync_s(context)
            await slow.slow_fsync(victim, True)
            slow_s = await self._sync_s(context)
            if slow_s < _SLOW_S and not context.lenient:
                raise SystemFailure(f"{self.name} does not bite: a write takes {slow_s:.3f} s")
            struck.detail = {"write_s_before": round(fast_s, 3), "write_s": round(slow_s, 3)}
        return struck

    async def heal(self, context: Context, struck: Struck) -> None:
        await take_back(struck)

    async def _sync_s(self, context: Context) -> float:
        """How long a write through the balancer takes. With two fast members of three it may not wait."""
        begin = time.monotonic()
        async with aiohttp.ClientSession() as session:
            if not await http.takes_writes(session, context.system.entries[0].url, 60.0):
                raise SystemFailure(f"{self.name}: no write was answered")
        return time.monotonic() - begin


class Lost(_OnDisk):
    """A `Fault`: kill -9 and all data of a member that does not lead gone; it is started empty at the end.

    Never a leader, and one at a time: a replicated log cannot defend itself against members that forgot what
    they had acknowledged.
    """

    def why_not(self, system: System) -> str:
        if len(system.members) < 2:
            return "there is no second copy"
        with contextlib.suppress(KeyError, AttributeError):
            if len({system.disk(member) for member in system.members}) < len(system.members):
                return "its members share one disk"
        return ""

    async def apply(self, context: Context) -> Struck:
        victim = await targets.follower(context.system, context.rng)
        struck = Struck(members=(victim,), sides=targets.sides(context.system, (victim,)))
        struck.undo.append(restart_later(context, victim))
        await lose(context, victim, struck)
        return struck

    async def heal(self, context: Context, struck: Struck) -> None:
        await take_back(struck)


class Flipped(_OnDisk):
    """A `Fault`: a stopped member's data has a flipped bit. It must refuse to start; then it is replaced."""

    def why_not(self, system: System) -> str:
        return "" if isinstance(system, DetectsDamage) else "it does not promise to notice a flipped bit"

    async def apply(self, context: Context) -> Struck:
        system = context.system
        damaged = cast("DetectsDamage", cast("Any", system))
        victim = await targets.follower(system, context.rng)
        struck = Struck(members=(victim,), sides=targets.sides(system, (victim,)))

        async def replace() -> None:
            if not system.pids(victim):
                await lose(context, victim, struck)
                context.note(f"{victim} is started empty")
                await system.restart(victim)

        struck.undo.append(replace)
        async with undone_on_failure(struck):
            await kill(context, (victim,))
            where = await damaged.damage(victim)
            context.note(f"{victim}: {where}")
            reason = await damaged.refusal(victim)
            if "damaged" not in reason:
                raise SystemFailure(f"{self.name}: {victim} refuses to start and does not say why: {reason}")
            struck.detail = {"flipped": where, "refusal": _said(reason, str(system.disk(victim)))}
        return struck

    async def heal(self, context: Context, struck: Struck) -> None:
        await take_back(struck)


def _said(log: str, folder: str) -> str:
    """The last line of a log, without where on this machine the data are."""
    return log.splitlines()[-1].replace(folder + "/", "")


async def lose(context: Context, victim: str, struck: Struck) -> None:
    """Kill a member if it lives, and remove all that it has."""
    if context.system.pids(victim):
        await kill(context, (victim,))
    folder = context.system.disk(victim)
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    if size == 0:
        raise SystemFailure(f"{folder} holds nothing that could be lost")
    struck.detail["bytes_lost"] = size
    context.note(f"{victim} loses its disk")
    await asyncio.to_thread(shutil.rmtree, folder)


def faults() -> list[Full | Slow | Lost | Flipped]:
    """All of them."""
    return [
        Full("disk-full", "one member (the leader, if there is one) has no room left on its disk"),
        Slow("slow-fsync", "each sync of the leader's log takes 0.4 s longer"),
        Lost("disk-lost", "a member that does not lead is killed, its data are removed, it starts empty"),
        Flipped(
            "flipped-byte", "a bit flips in a stopped member's log: it must refuse to start; it is replaced"
        ),
    ]
