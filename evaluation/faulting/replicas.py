"""Faults of one replica: it silently differs, or it is gone when the log has lost its beginning."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol, cast, runtime_checkable

import aiohttp

from evaluation.failure import SystemFailure
from evaluation.faulting import targets
from evaluation.faulting.disk import lose
from evaluation.faulting.interface import Struck, take_back, undone_on_failure
from evaluation.faulting.processes import kill, restart_later
from evaluation.faulting.records import Own

if TYPE_CHECKING:
    from collections.abc import Callable

    from evaluation.faulting.interface import Context
    from evaluation.systems.interface import Entry, System

_FILLED_S: Final = 120.0
_LOOK_S: Final = 0.2
_RECORDS: Final = 40
_GROWTH: Final = 1 << 20
_MOST_GROWTH: Final = 24
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


@runtime_checkable
class DropsLog(Protocol):
    """A system whose members keep a log of bounded length and fill one that it does not reach back for."""

    async def keep_short_logs(self, say: Callable[[str], None]) -> None:
        """From now on it is one MiB; it may restart members one after the other."""
        ...

    async def first_entry(self, member: str) -> int:
        """The oldest index that is in the member's log; 0: there is none."""
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
            await self._prove(own, entry, good, struck)
            await self._alarm(context, struck, own.id)
            struck.undo.append(lambda: self._repair(context, struck, own, entry, good))
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


@dataclass(frozen=True, slots=True)
class LostAfterCompaction:
    """A `Fault`: as `disk-lost`, when no member's log reaches back to its beginning any more."""

    name: str
    summary: str
    who: Literal["leader", "follower"]
    min_seconds: float = 5.0

    def why_not(self, system: System) -> str:
        return (
            "" if isinstance(system, DropsLog) else "its members do not fill one that their log left behind"
        )

    def applies_to(self, system: System) -> bool:
        return not self.why_not(system)

    async def apply(self, context: Context) -> Struck:
        system = context.system
        dropping = cast("DropsLog", cast("Any", system))
        await dropping.keep_short_logs(context.note)
        async with aiohttp.ClientSession() as session:
            own = Own(session, system.entries[0].url, f"grown-{context.rng.getrandbits(32):08x}")
            await own.create()
            await own.add(["here"])
            first = await self._compacted(context, own)
        leads = self.who == "leader"
        victim = await (targets.leader(system) if leads else targets.follower(system, context.rng))
        struck = Struck(
            members=(victim,), sides=targets.sides(system, (victim,)), detail={"first_entries": first}
        )
        struck.undo += [lambda: self._filled(context, struck), restart_later(context, victim)]
        async with undone_on_failure(struck):
            await lose(context, victim, struck)
        return struck

    async def heal(self, context: Context, struck: Struck) -> None:
        await take_back(struck)

    async def _compacted(self, context: Context, own: Own) -> dict[str, int]:
        """Let the log grow until each member has dropped its front; member -> its oldest entry."""
        system = context.system
        first: dict[str, int] = {}
        for number in range(_MOST_GROWTH):
            await own.grow(number, _GROWTH)
            first = {member: await cast("DropsLog", system).first_entry(member) for member in system.members}
            if min(first.values()) > 1:
                context.note(f"the logs begin at {first}")
                return first
        raise SystemFailure(f"{self.name}: no log was shortened: {first}")

    async def _filled(self, context: Context, struck: Struck) -> None:
        """It is well again, and what it has it has not from the log alone."""
        victim = struck.members[0]
        began = time.monotonic()
        while True:
            seen = {each.member: each for each in await context.system.observe()}[victim]
            if seen.healthy:
                break
            if time.monotonic() - began > _FILLED_S:
                raise SystemFailure(f"{self.name}: {victim} is not filled: {seen.detail}")
            await asyncio.sleep(_LOOK_S)
        struck.detail["filled_s"] = round(time.monotonic() - began, 1)
        first = await cast("DropsLog", context.system).first_entry(victim)
        if first == 1:
            raise SystemFailure(f"{self.name}: {victim} was filled from a log that has its beginning")
        context.note(f"{victim} is filled, its log begins at {first}")


def faults() -> list[Silent | LostAfterCompaction]:
    """All of them."""
    lost = (
        "is killed and its data are removed, when the others have dropped their log's front; it starts empty"
    )
    return [
        Silent(),
        LostAfterCompaction("disk-lost-leader", f"the leader {lost}", "leader"),
        LostAfterCompaction("disk-lost-compacted", f"a member that does not lead {lost}", "follower"),
    ]
