"""Faults of what runs Chroma inside a member: frozen again and again, or made to fail on one write."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol, cast, runtime_checkable

import aiohttp

from evaluation.failure import SystemFailure
from evaluation.faulting import targets
from evaluation.faulting.interface import Struck, take_back, undone_on_failure
from evaluation.faulting.processes import state
from evaluation.faulting.records import Own

if TYPE_CHECKING:
    from pathlib import Path

    from evaluation.faulting.interface import Context
    from evaluation.systems.interface import System

_REPLACED_S: Final = 30.0
_CONTAINED_S: Final = 120.0
_WAYS: Final = ("raise", "die", "hang")


@runtime_checkable
class HasEngines(Protocol):
    """A system whose members run Chroma in a process of its own."""

    async def engine(self, member: str) -> int | None:
        """Its pid, None if there is none at the moment."""
        ...


@runtime_checkable
class Poisonable(Protocol):
    """A system whose members' engines can be made to fail on certain writes."""

    @property
    def poison(self) -> Path:
        """While a file `raise`, `die` or `hang` is in this directory, all engines fail in that way on a write
        of a record whose id begins with `poison-`."""
        ...


@dataclass(frozen=True, slots=True)
class Hung:
    """A `Fault`: SIGSTOP of one member's engine, and of each one that takes its place."""

    name: str
    summary: str
    who: Literal["leader", "follower"]
    min_seconds: float = 8.0

    def why_not(self, system: System) -> str:
        return "" if isinstance(system, HasEngines) else "its members have no engine process of their own"

    def applies_to(self, system: System) -> bool:
        return not self.why_not(system)

    async def apply(self, context: Context) -> Struck:
        system = context.system
        leads = self.who == "leader"
        victim = await (targets.leader(system) if leads else targets.follower(system, context.rng))
        struck = Struck(
            members=(victim,),
            sides=dict.fromkeys(targets.everybody(system), "all"),
            detail={"stopped": 0, "replaced_after_s": []},
        )
        stopped: list[int] = []

        async def undo() -> None:
            for pid in stopped:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)

        struck.undo.append(undo)
        async with undone_on_failure(struck):
            await self._stop(context, struck, stopped)
            struck.task = asyncio.create_task(self._again(context, struck, stopped))
        return struck

    async def heal(self, context: Context, struck: Struck) -> None:
        await take_back(struck)
        pid = await self._engine(context, struck.members[0], ())
        if state(pid) == "T":
            raise SystemFailure(f"{self.name}: process {pid} is still stopped")

    async def _engine(self, context: Context, member: str, but: tuple[int, ...]) -> int:
        end = time.monotonic() + _REPLACED_S
        engines = cast("HasEngines", cast("Any", context.system))
        while (pid := await engines.engine(member)) is None or pid in but or not state(pid):
            if time.monotonic() > end:
                raise SystemFailure(f"{self.name}: {member} has no (other) engine after {_REPLACED_S} s")
            await asyncio.sleep(0.1)
        return pid

    async def _stop(self, context: Context, struck: Struck, stopped: list[int]) -> None:
        """Stop the engine as it is now."""
        member = struck.members[0]
        pid = await self._engine(context, member, tuple(stopped))
        stopped.append(pid)
        context.note(f"SIGSTOP of the engine of {member}")
        os.kill(pid, signal.SIGSTOP)
        end = time.monotonic() + 5.0
        while state(pid) not in ("T", "Z", ""):
            if time.monotonic() > end:
                raise SystemFailure(f"{self.name} does not bite: process {pid} goes on")
            await asyncio.sleep(0.02)
        struck.detail["stopped"] += 1

    async def _again(self, context: Context, struck: Struck, stopped: list[int]) -> None:
        """Each is replaced by its member, and the next one stopped a little later."""
        while not struck.stop.is_set():
            began = time.monotonic()
            await self._engine(context, struck.members[0], tuple(stopped))
            struck.detail["replaced_after_s"].append(round(time.monotonic() - began, 1))
            if await struck.stopped_within(context.rng.uniform(0.5, 2.0)):
                return
            with contextlib.suppress(ProcessLookupError):
                await self._stop(context, struck, stopped)


@dataclass(frozen=True, slots=True)
class Poisoned:
    """A `Fault`: one write, in a collection of its own, on which the engines of all members fail."""

    name: str = "poison-entry"
    summary: str = (
        "the engines of all members fail (an error, a death or a hang) on one write: it alone is refused"
    )
    min_seconds: float = 5.0

    def why_not(self, system: System) -> str:
        return "" if isinstance(system, Poisonable) else "its engines cannot be made to fail on one write"

    def applies_to(self, system: System) -> bool:
        return not self.why_not(system)

    async def apply(self, context: Context) -> Struck:
        system = context.system
        way = context.rng.choice(_WAYS)
        gate = cast("Poisonable", cast("Any", system)).poison / way
        session = aiohttp.ClientSession()
        own = Own(session, system.entries[0].url, f"poisoned-{context.rng.getrandbits(32):08x}")
        struck = Struck(
            members=system.members,
            sides=dict.fromkeys(targets.everybody(system), "all"),
            detail={"way": way, "broken": []},
        )

        async def undo() -> None:
            gate.unlink(missing_ok=True)
            await self._look(context, struck, own)
            await own.drop()

        struck.undo += [session.close, undo]
        async with undone_on_failure(struck):
            await own.create()
            await self._write(own, struck, "before")
            gate.touch()
            context.note(f"a write on which every engine fails: {way}")
            began = time.monotonic()
            status, told = await own.add(["poison-1"], within_s=_CONTAINED_S)
            struck.detail["answered_after_s"] = round(time.monotonic() - began, 1)
            struck.detail["answer"] = f"{status} {told.get('error', '')}"
            context.note(f"it is answered {struck.detail['answer']}")
            if 200 <= status < 300:
                raise SystemFailure(f"{self.name} does not bite: the write was answered {status}")
            if told.get("error") != "ContainedWriteError":
                struck.detail["broken"].append(f"the poisoned write was answered {status} {told}"[:300])
            # The engines still fail on such a write: all others go on.
            await self._write(own, struck, "after")
        return struck

    async def heal(self, context: Context, struck: Struck) -> None:
        await take_back(struck)

    async def _write(self, own: Own, struck: Struck, name: str) -> None:
        status, told = await own.add([name])
        if status not in (200, 201):
            struck.detail["broken"].append(f"a good write beside it was answered {status} {told}"[:300])

    async def _look(self, context: Context, struck: Struck, own: Own) -> None:
        """Every member has what is good, and nothing of what was refused."""
        for entry in context.system.entries:
            found = await own.read_within(entry.url, "linearizable")
            ids = None if found is None else sorted(found)
            if ids != ["after", "before"]:
                struck.detail["broken"].append(f"{entry.name} reads {ids} where a write was refused")


def faults() -> list[Hung | Poisoned]:
    """All of them."""
    return [
        Hung(
            "hung-engine-leader",
            "the process that runs the leader's Chroma is frozen, each time anew",
            "leader",
        ),
        Hung(
            "hung-engine-follower",
            "the process that runs the Chroma of a member that does not lead is frozen, each time anew",
            "follower",
        ),
        Poisoned(),
    ]
