"""A fault of one replica: it silently differs."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol, cast, runtime_checkable

import aiohttp

from evaluation.failure import SystemFailure
from evaluation.faulting import targets
from evaluation.faulting.interface import Struck, take_back, undone_on_failure
from evaluation.faulting.processes import kill, restart_later
from evaluation.faulting.records import Own

if TYPE_CHECKING:
    from evaluation.faulting.interface import Context
    from evaluation.systems.interface import Entry, System

_LOOK_S: Final = 0.2
_RECORDS: Final = 40
_SAME, _DIFFERS = 0, 1


class Verifies(Protocol):
    """Compares members, and mends one."""

    async def verify(self) -> tuple[int, dict[str, Any]]:
        """0: all the same, 1: something differs; and what."""
        ...

    async def repair(self, member: str) -> None:
        """Raises:
        SystemFailure: it could not be done.
        """
        ...


@runtime_checkable
class Verified(Protocol):
    """A system whose operator can have members compared and repaired."""

    @property
    def operator(self) -> Verifies: ...

    async def corrupt(self, member: str, collection: str, record: str, part: str) -> str:
        """Change the `metadata` value n or the `vector` of a record of the stopped member; says what."""
        ...


@dataclass(frozen=True, slots=True)
class Silent:
    """A `Fault`: a record in a killed member's data is changed, in a collection of its own; verify, repair.

    Killed, for a member that stops in order notes how its files are, and sees the change when it starts.
    """

    name: str = "silent-corruption"
    summary: str = (
        "a value or a vector in the data of a member that does not lead is changed while it is down; a "
        "verification must find it, and a repair mend it"
    )
    min_seconds: float = 3.0

    def why_not(self, system: System) -> str:
        return "" if isinstance(system, Verified) else "it has no command that compares its members"

    def applies_to(self, system: System) -> bool:
        return not self.why_not(system)

    async def apply(self, context: Context) -> Struck:
        system = context.system
        verified = cast("Verified", cast("Any", system))
        victim = await targets.follower(system, context.rng)
        part = context.rng.choice(("metadata", "vector"))
        entry = next(each for each in system.entries if each.member == victim)
        session = aiohttp.ClientSession()
        own = Own(session, system.entries[0].url, f"silent-{context.rng.getrandbits(32):08x}")
        struck = Struck(
            members=(victim,),
            sides=dict.fromkeys(targets.everybody(system), "all"),
            detail={"broken": [], "reads_after_alarm": 0, "refused_after_alarm": 0},
        )
        struck.undo += [session.close, own.drop]
        async with undone_on_failure(struck):
            ids = [f"r-{number}" for number in range(_RECORDS)]
            await own.create()
            await own.add(ids)
            good = await own.read_within(entry.url, "linearizable")
            if good is None or sorted(good) != sorted(ids):
                raise SystemFailure(f"{self.name}: {victim} does not hold what it should before the fault")
            struck.undo.append(restart_later(context, victim))
            await kill(context, (victim,))
            struck.detail["changed"] = await verified.corrupt(victim, own.name, context.rng.choice(ids), part)
            context.note(f"{victim}: {struck.detail['changed']} is changed")
            await struck.undo.pop()()
            struck.undo.append(lambda: self._repair(context, struck, own, entry, good))
            await self._prove(own, entry, good, struck)
            await self._alarm(context, struck, own.id)
            struck.task = asyncio.create_task(self._watch(own, entry, good, struck))
        return struck

    async def heal(self, context: Context, struck: Struck) -> None:
        await take_back(struck)

    async def _prove(self, own: Own, entry: Entry, good: dict[str, Any], struck: Struck) -> None:
        """Nobody noticed: the member serves what is wrong, or it has seen by itself that it differs."""
        found = await own.read_within(entry.url, "eventual", 30.0)
        if found == good:
            raise SystemFailure(f"{self.name} does not bite: {entry.name} reads as before")
        struck.detail["served_before_alarm"] = found is not None

    async def _alarm(self, context: Context, struck: Struck, collection_id: str) -> None:
        victim = struck.members[0]
        began = time.monotonic()
        code, told = await cast("Verified", cast("Any", context.system)).operator.verify()
        struck.detail["verified_s"] = round(time.monotonic() - began, 1)
        findings = [(each["node"], each["collection"], each["parts"]) for each in told.get("findings", ())]
        struck.detail["findings"] = [f"{node}: {', '.join(parts)}" for node, _, parts in findings]
        context.note(f"verify: {code}, {struck.detail['findings']}")
        named = [(node, name) for node, name, _ in findings]
        if code != _DIFFERS or named != [(victim, collection_id)]:
            struck.detail["broken"].append(f"verify did not find it: {code} {told}"[:400])

    async def _watch(self, own: Own, entry: Entry, good: dict[str, Any], struck: Struck) -> None:
        """After the alarm the member refuses, or it answers what is right."""
        while not await struck.stopped_within(_LOOK_S):
            found = await own.read(entry.url, "eventual")
            struck.detail["reads_after_alarm" if found else "refused_after_alarm"] += 1
            if found is not None and found != good:
                struck.detail["broken"].append(f"{entry.name} served what is wrong after the alarm")
                return

    async def _repair(
        self, context: Context, struck: Struck, own: Own, entry: Entry, good: dict[str, Any]
    ) -> None:
        operator = cast("Verified", cast("Any", context.system)).operator
        began = time.monotonic()
        await operator.repair(struck.members[0])
        struck.detail["repaired_s"] = round(time.monotonic() - began, 1)
        context.note(f"{struck.members[0]} is repaired")
        if await own.read_within(entry.url, "linearizable") != good:
            struck.detail["broken"].append(f"{entry.name} is repaired and reads something else")
        code, told = await operator.verify()
        if code != _SAME:
            struck.detail["broken"].append(f"after the repair something differs: {code} {told}"[:400])


def faults() -> list[Silent]:
    """All of them."""
    return [Silent()]
