"""Faults of a member that is gone when the log has lost its beginning: another one's state must fill it.

Once more while the clock of the one that fills it jumps.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol, cast, runtime_checkable

import aiohttp

from evaluation.failure import SystemFailure
from evaluation.faulting import clock, targets
from evaluation.faulting.disk import lose
from evaluation.faulting.interface import Struck, take_back, undone_on_failure
from evaluation.faulting.processes import restart_later
from evaluation.faulting.records import Own

if TYPE_CHECKING:
    from collections.abc import Callable

    from evaluation.faulting.interface import Context
    from evaluation.systems.interface import System

_FILLED_S: Final = 120.0
_BEGINS_S: Final = 60.0
_LOOK_S: Final = 0.2
_GROWTH: Final = 1 << 20
_MOST_GROWTH: Final = 24
#: A state of some MiB takes longer than the clock needs to jump.
_SLOWLY: Final = 1 << 20


@runtime_checkable
class DropsLog(Protocol):
    """A system whose members keep a log of bounded length and fill one that it does not reach back for."""

    async def keep_short_logs(self, say: Callable[[str], None], snapshot_bytes_per_s: int = 0) -> None:
        """From now on it is one MiB, and a member is filled no faster than that (0: no limit); it may restart
        members one after the other."""
        ...

    async def first_entry(self, member: str) -> int:
        """The oldest index that is in the member's log; 0: there is none."""
        ...

    async def donor(self, member: str) -> str | None:
        """Who is filling the member at this moment; None: nobody."""
        ...


def _why_not(system: System) -> str:
    return "" if isinstance(system, DropsLog) else "its members do not fill one that their log left behind"


@dataclass(frozen=True, slots=True)
class LostAfterCompaction:
    """A `Fault`: as `disk-lost`, when no member's log reaches back to its beginning any more."""

    name: str
    summary: str
    who: Literal["leader", "follower"]
    min_seconds: float = 5.0

    def why_not(self, system: System) -> str:
        return _why_not(system)

    def applies_to(self, system: System) -> bool:
        return not self.why_not(system)

    async def apply(self, context: Context) -> Struck:
        system = context.system
        first = await _shorten(context)
        leads = self.who == "leader"
        victim = await (targets.leader(system) if leads else targets.follower(system, context.rng))
        struck = Struck(
            members=(victim,), sides=targets.sides(system, (victim,)), detail={"first_entries": first}
        )
        struck.undo += [lambda: _filled(context, struck, victim), restart_later(context, victim)]
        async with undone_on_failure(struck):
            await lose(context, victim, struck)
        return struck

    async def heal(self, context: Context, struck: Struck) -> None:
        await take_back(struck)


@dataclass(frozen=True, slots=True)
class ClockWhileFilled:
    """A `Fault`: `disk-lost-compacted`, and the clock of another follower, from which it is filled, jumps."""

    name: str = "clock-step-filling"
    summary: str = "while a member that lost its disk is filled, the clock of another one, its donor, jumps"
    min_seconds: float = 5.0

    def why_not(self, system: System) -> str:
        return _why_not(system) or clock.Step().why_not(system)

    def applies_to(self, system: System) -> bool:
        return not self.why_not(system)

    async def apply(self, context: Context) -> Struck:
        system = context.system
        library = clock.find_library()
        if library is None:
            raise SystemFailure(self.why_not(system))
        first = await _shorten(context, _SLOWLY)
        leader = await targets.leader(system)
        others = [member for member in system.members if member != leader]
        context.rng.shuffle(others)
        victim, donor = others[:2]
        step = clock.Step()
        jumping = await step.strike(context, donor, library, lead=False)
        struck = Struck(
            members=(victim, donor),
            # Both run all the while: one has nothing yet, the other answers.
            sides=dict.fromkeys(targets.everybody(system), "all"),
            detail={**jumping.detail, "first_entries": first},
        )
        struck.undo += [
            lambda: step.heal(context, jumping),
            lambda: _filled(context, struck, victim),
            restart_later(context, victim),
        ]
        async with undone_on_failure(struck):
            await lose(context, victim, struck)
            await struck.undo.pop()()
            struck.detail["jumps_while_filled"] = await self._jumps(context, victim, donor, jumping)
        return struck

    async def heal(self, context: Context, struck: Struck) -> None:
        await take_back(struck)

    async def _jumps(self, context: Context, victim: str, donor: str, jumping: Struck) -> int:
        """How often the clock has jumped while the member was being filled; returns at the first jump."""
        system = cast("DropsLog", cast("Any", context.system))
        end = time.monotonic() + _BEGINS_S
        while (giving := await system.donor(victim)) != donor:
            if time.monotonic() > end:
                raise SystemFailure(f"{self.name}: {victim} is not filled by {donor}, but by {giving}")
            await asyncio.sleep(_LOOK_S / 4)
        before = len(jumping.detail["jumps"])
        while len(jumping.detail["jumps"]) == before:
            if await system.donor(victim) != donor:
                raise SystemFailure(f"{self.name} does not bite: {victim} was filled before the clock jumped")
            await asyncio.sleep(_LOOK_S / 4)
        return len(jumping.detail["jumps"]) - before


async def _shorten(context: Context, snapshot_bytes_per_s: int = 0) -> dict[str, int]:
    """Let the log grow until each member has dropped its front; member -> its oldest entry."""
    system = context.system
    dropping = cast("DropsLog", cast("Any", system))
    await dropping.keep_short_logs(context.note, snapshot_bytes_per_s)
    first: dict[str, int] = {}
    async with aiohttp.ClientSession() as session:
        own = Own(session, system.entries[0].url, f"grown-{context.rng.getrandbits(32):08x}")
        await own.create()
        await own.add(["here"])
        for number in range(_MOST_GROWTH):
            await own.grow(number, _GROWTH)
            first = {member: await dropping.first_entry(member) for member in system.members}
            if min(first.values()) > 1:
                context.note(f"the logs begin at {first}")
                return first
    raise SystemFailure(f"no log was shortened: {first}")


async def _filled(context: Context, struck: Struck, victim: str) -> None:
    """It is well again, and what it has it has not from the log alone."""
    began = time.monotonic()
    while True:
        seen = {each.member: each for each in await context.system.observe()}[victim]
        if seen.healthy:
            break
        if time.monotonic() - began > _FILLED_S:
            raise SystemFailure(f"{victim} is not filled: {seen.detail}")
        await asyncio.sleep(_LOOK_S)
    struck.detail["filled_s"] = round(time.monotonic() - began, 1)
    first = await cast("DropsLog", cast("Any", context.system)).first_entry(victim)
    if first == 1:
        raise SystemFailure(f"{victim} was filled from a log that has its beginning")
    context.note(f"{victim} is filled, its log begins at {first}")


def faults() -> list[LostAfterCompaction | ClockWhileFilled]:
    """All of them."""
    lost = (
        "is killed and its data are removed, when the others have dropped their log's front; it starts empty"
    )
    return [
        LostAfterCompaction("disk-lost-leader", f"the leader {lost}", "leader"),
        LostAfterCompaction("disk-lost-compacted", f"a member that does not lead {lost}", "follower"),
        ClockWhileFilled(),
    ]
