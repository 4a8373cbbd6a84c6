"""Faults that are an operator's work, done under traffic: clients must not notice it."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol, cast, runtime_checkable

from evaluation.faulting import targets
from evaluation.faulting.interface import Struck, take_back, undone_on_failure
from evaluation.faulting.processes import kill

if TYPE_CHECKING:
    from collections.abc import Callable

    from evaluation.faulting.interface import Context
    from evaluation.systems.interface import System

_WORK_S: Final = 600.0


class RestartsRolling(Protocol):
    """Restarts members one after the other."""

    async def restart_rolling(self, say: Callable[[str], None]) -> None:
        """All of them, each when the one before it serves again; `say` is told of each.

        Raises:
            SystemFailure: it did not get to its end.
        """
        ...


@runtime_checkable
class HasOperator(Protocol):
    """A system with commands for such work."""

    @property
    def operator(self) -> RestartsRolling: ...


@runtime_checkable
class Replaces(Protocol):
    """A system whose members can be replaced by new ones while it serves."""

    async def replace(self, member: str, say: Callable[[str], None]) -> str:
        """A new one takes the place of this member, which is dead, and serves its clients; its own name.

        Raises:
            SystemFailure: it could not be done.
        """
        ...


@dataclass(frozen=True, slots=True)
class RollingRestart:
    """A `Fault`: all members are restarted in order, once. The heal waits for the end of that."""

    name: str = "rolling-restart"
    summary: str = (
        "all members are stopped in order and started again, one after the other, by the command for it"
    )
    min_seconds: float = 2.0

    def why_not(self, system: System) -> str:
        return "" if isinstance(system, HasOperator) else "it has no command that restarts members in turn"

    def applies_to(self, system: System) -> bool:
        return not self.why_not(system)

    async def apply(self, context: Context) -> Struck:
        system = context.system
        struck = Struck(
            members=system.members,
            sides=dict.fromkeys(targets.everybody(system), "all"),
            detail={"restarted": [], "took_s": None},
        )
        struck.task = asyncio.create_task(self._restart(context, struck))
        return struck

    async def heal(self, context: Context, struck: Struck) -> None:
        await _end(struck)

    async def _restart(self, context: Context, struck: Struck) -> None:
        began = time.monotonic()

        def say(text: str) -> None:
            context.note(text)
            struck.detail["restarted"].append(text)

        await cast("HasOperator", context.system).operator.restart_rolling(say)
        struck.detail["took_s"] = round(time.monotonic() - began, 1)


@dataclass(frozen=True, slots=True)
class Replacement:
    """A `Fault`: a member is dead for good, a new one takes its place. The heal waits for the end of that."""

    name: str = "replace-node"
    summary: str = "a member that does not lead is killed for good, and replaced by a new one with no data"
    min_seconds: float = 5.0

    def why_not(self, system: System) -> str:
        return "" if isinstance(system, Replaces) else "its members cannot be replaced while it serves"

    def applies_to(self, system: System) -> bool:
        return not self.why_not(system)

    async def apply(self, context: Context) -> Struck:
        victim = await targets.follower(context.system, context.rng)
        struck = Struck(members=(victim,), sides=targets.sides(context.system, (victim,)))
        async with undone_on_failure(struck):
            context.note(f"kill -9 of {victim}, for good")
            await kill(context, (victim,))
            struck.task = asyncio.create_task(self._replace(context, struck))
        return struck

    async def heal(self, context: Context, struck: Struck) -> None:
        await _end(struck)

    async def _replace(self, context: Context, struck: Struck) -> None:
        began = time.monotonic()
        (victim,) = struck.members
        new = await cast("Replaces", context.system).replace(victim, context.note)
        struck.detail |= {"by": new, "took_s": round(time.monotonic() - began, 1)}
        context.note(f"{new} has taken the place of {victim}")


async def _end(struck: Struck) -> None:
    """Such work is brought to its end: its own deadlines, one for each member, are the bound."""
    if struck.task is not None:
        await asyncio.wait({struck.task}, timeout=_WORK_S)
    await take_back(struck)


def faults() -> list[RollingRestart | Replacement]:
    """All of them."""
    return [RollingRestart(), Replacement()]
