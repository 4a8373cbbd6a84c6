"""A fault of clocks: one member's wall clock is wrong. Real: libfaketime in its processes."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import itertools
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol, cast, runtime_checkable

from evaluation.failure import SystemFailure
from evaluation.faulting import probes, processes, targets
from evaluation.faulting.interface import Struck, take_back, undone_on_failure
from evaluation.processes import wait_until

if TYPE_CHECKING:
    from collections.abc import Mapping

    from evaluation.faulting.interface import Context
    from evaluation.systems.interface import System

_SOON_S: Final = 30.0
_ELECTIONS: Final = 6
_PLACES: Final = ("/usr/lib/*/faketime", "/usr/lib/faketime", "/usr/local/lib/faketime")


#: Python's time.sleep waits for a moment of the monotonic clock; libfaketime 0.9.10 shifts that too, so
#: that it fails (clock ahead) or waits for as long as the clock is behind. select() knows durations only.
_PATCH: Final = """\
import select, time

time.sleep = lambda seconds: select.select([], [], [], seconds) and None
"""


@runtime_checkable
class HasEnvironment(Protocol):
    """A system whose members can be restarted with further environment variables."""

    async def environment(self, member: str, variables: Mapping[str, str] | None) -> None: ...


def find_library() -> Path | None:
    """libfaketime for processes with threads: $LIBFAKETIME or where distributions put it."""
    named = os.environ.get("LIBFAKETIME")
    if named:
        return Path(named) if Path(named).is_file() else None
    for place in _PLACES:
        found = sorted(Path("/").glob(f"{place.lstrip('/')}/libfaketimeMT.so.1"))
        if found:
            return found[0]
    return None


@dataclass(frozen=True, slots=True)
class Step:
    """A `Fault`: the wall clock of one member (the leader, if there is one) jumps, again and again."""

    name: str = "clock-step"
    summary: str = "the leader's (or one member's) wall clock jumps between an hour behind and two days ahead"
    min_seconds: float = 8.0
    offsets_s: tuple[int, int] = (-3600, 2 * 86400)

    def why_not(self, system: System) -> str:
        if not isinstance(system, HasEnvironment):
            return "its members cannot be started with another clock"
        if find_library() is None:
            return (
                "libfaketime is not installed (Debian: apt-get install faketime; or name it in LIBFAKETIME)"
            )
        return ""

    def applies_to(self, system: System) -> bool:
        return not self.why_not(system)

    async def apply(self, context: Context) -> Struck:
        system = context.system
        library = find_library()
        if library is None:
            raise SystemFailure(self.why_not(system))
        victim = await (
            targets.leader(system) if targets.has_leader(system) else targets.follower(system, context.rng)
        )
        return await self.strike(context, victim, library, lead=targets.has_leader(system))

    async def strike(self, context: Context, victim: str, library: Path, *, lead: bool) -> Struck:
        """The clock of this member; `lead`: it is made to lead first.

        Raises:
            SystemFailure: as `apply`.
        """
        system = context.system
        startable = cast("HasEnvironment", cast("Any", system))
        folder = system.disk(victim).parent / f"clock-of-{victim}"
        offset = _prepare(folder)
        _write(offset, 0)
        struck = Struck(
            members=(victim,),
            sides=dict.fromkeys(targets.everybody(system), "all"),
            # Measured with no offset at all: a leader under libfaketime answers a tenth as much.
            detail={
                "slowed": "libfaketime stays loaded after the heal and slows its member, whatever the clock"
            },
        )

        async def undo() -> None:
            # The library stays loaded until the run is over: another restart would be another fault.
            _write(offset, 0)
            await self._until(context, victim, 0)

        struck.undo.append(undo)
        async with undone_on_failure(struck):
            variables = {
                "PYTHONPATH": os.pathsep.join(filter(None, (str(folder), os.environ.get("PYTHONPATH")))),
                "LD_PRELOAD": str(library),
                "FAKETIME_TIMESTAMP_FILE": str(offset),
                "FAKETIME_CACHE_DURATION": "1",
                "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            }
            await startable.environment(victim, variables)
            if lead:
                struck.detail["leads"] = await self._make_lead(context, victim)
            struck.detail["jumps"] = []
            await self._jump(context, struck, offset, self.offsets_s[0])
            struck.task = asyncio.create_task(self._strobe(context, struck, offset))
        return struck

    async def heal(self, context: Context, struck: Struck) -> None:
        await take_back(struck)

    async def _make_lead(self, context: Context, victim: str) -> bool:
        """It handed leadership over when it was restarted: freeze whoever leads until it is this one."""
        for _ in range(_ELECTIONS):
            leader = await targets.leader(context.system)
            if leader == victim:
                return True
            pause = processes.Pause("pause-leader", "", "leader")
            paused = await pause.apply(context)
            with contextlib.suppress(TimeoutError):
                await wait_until("another leader", functools.partial(self._other, context, leader), _SOON_S)
            await pause.heal(context, paused)
        return await targets.leader(context.system) == victim

    async def _other(self, context: Context, than: str) -> bool:
        return await context.system.leader() not in (None, than)

    async def _jump(self, context: Context, struck: Struck, offset: Path, offset_s: int) -> None:
        victim = struck.members[0]
        context.note(f"the clock of {victim} jumps to {offset_s:+d} s")
        _write(offset, offset_s)
        struck.detail["jumps"].append(round(await self._until(context, victim, offset_s)))

    async def _strobe(self, context: Context, struck: Struck, offset: Path) -> None:
        for offset_s in itertools.cycle(reversed(self.offsets_s)):
            if await struck.stopped_within(context.rng.uniform(1.0, 3.0)):
                return
            await self._jump(context, struck, offset, offset_s)

    async def _until(self, context: Context, victim: str, offset_s: int) -> float:
        """Until the member's answers are dated so far off; how far they are."""
        entry = next(each for each in context.system.entries if each.member == victim)
        end = time.monotonic() + _SOON_S
        while True:
            off = await probes.server_date(f"{entry.url}/api/v2/heartbeat") - time.time()
            if abs(off - offset_s) < 60:
                return off
            if time.monotonic() > end:
                raise SystemFailure(
                    f"{self.name}: the clock of {victim} is off by {off:.0f} s, not {offset_s}"
                )
            await asyncio.sleep(0.2)


def _prepare(folder: Path) -> Path:
    """The file that will hold the offset, beside what Python processes load when they start."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "sitecustomize.py").write_text(_PATCH)
    return folder / "offset"


def _write(offset: Path, offset_s: int) -> None:
    offset.write_text(f"{offset_s:+d}")


def faults() -> list[Step]:
    """All of them."""
    return [Step()]
