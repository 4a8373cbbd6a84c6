"""Several faults at once: links and processes struck at random, by a seeded schedule."""

from __future__ import annotations

import asyncio
import dataclasses
import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from evaluation.failure import SystemFailure
from evaluation.faulting import schedules, targets
from evaluation.faulting.interface import Struck, take_back, undone_on_failure

if TYPE_CHECKING:
    from collections.abc import Sequence

    from evaluation.faulting.interface import Context, Fault
    from evaluation.systems.interface import System

#: Within a lane one follows the other; the lanes go on at the same time.
LANES = {
    "links": (
        "leader-isolated",
        "leader-blackhole",
        "leader-refused",
        "minority-isolated",
        "one-way-out",
        "one-way-in",
        "bridge",
        "flapping-link",
        "latency-50",
        "reset-peer",
    ),
    "processes": (
        "kill-leader",
        "kill-follower",
        "kill-balancer",
        "pause-leader",
        "pause-follower",
        "slow-fsync",
    ),
}


@dataclass(frozen=True, slots=True)
class Compound:
    """A `Fault` made of others. `mean_for_s` of each, after `mean_wait_s` of calm in its lane."""

    faults: Sequence[Fault]
    name: str = "compound"
    summary: str = "links and processes are struck at the same time, by a random schedule from the seed"
    min_seconds: float = 20.0
    mean_wait_s: float = 1.5
    mean_for_s: float = 3.0
    first_s: float = 60.0
    """Within this time one of its parts must have struck."""

    def why_not(self, system: System) -> str:
        usable = [lane for lane in LANES if self._usable(system, lane)]
        return "" if usable else "none of its parts can strike it"

    def applies_to(self, system: System) -> bool:
        return not self.why_not(system)

    def _usable(self, system: System, lane: str) -> dict[str, Fault]:
        return {
            fault.name: fault
            for fault in self.faults
            if fault.name in LANES[lane] and fault.applies_to(system)
        }

    async def apply(self, context: Context) -> Struck:
        system = context.system
        done: list[dict[str, Any]] = []
        struck = Struck(
            members=system.members,
            sides=dict.fromkeys(targets.everybody(system), "all"),
            detail={"steps": done},
        )
        lanes = {lane: usable for lane in LANES if (usable := self._usable(system, lane))}
        # A seed for each lane: how long one takes must not change what the other does.
        seeds = {lane: context.rng.getrandbits(32) for lane in lanes}
        first: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        async def go_on() -> None:
            async with asyncio.TaskGroup() as group:
                for lane, usable in lanes.items():
                    rng = random.Random(seeds[lane])
                    group.create_task(self._lane(context, struck, usable, rng, done, first))

        async with undone_on_failure(struck):
            struck.task = asyncio.create_task(go_on())
            await asyncio.wait(
                (first, struck.task), timeout=self.first_s, return_when=asyncio.FIRST_COMPLETED
            )
            if not first.done():
                raise SystemFailure(f"{self.name} does not bite: none of its parts struck: {done}")
        return struck

    async def heal(self, context: Context, struck: Struck) -> None:
        await take_back(struck)

    async def _lane(
        self,
        context: Context,
        struck: Struck,
        usable: dict[str, Fault],
        rng: random.Random,
        done: list[dict[str, Any]],
        first: asyncio.Future[None],
    ) -> None:
        """One after the other, until it is to end. The first part of any lane that bites resolves `first`."""
        lenient = dataclasses.replace(context, rng=rng, lenient=True)
        plan = schedules.steps(rng, sorted(usable), mean_wait_s=self.mean_wait_s, mean_for_s=self.mean_for_s)
        for step in plan:
            if await struck.stopped_within(step.wait_s):
                return
            entry: dict[str, Any] = {"fault": step.fault, "for_s": round(step.for_s, 2), "error": ""}
            try:
                part = await usable[step.fault].apply(lenient)
            except SystemFailure as error:
                # The other lane has left it nothing to strike.
                entry["error"] = str(error)[:200]
                done.append(entry)
                continue
            entry["struck"] = list(part.members)
            done.append(entry)
            if not first.done():
                first.set_result(None)
            try:
                stopped = await struck.stopped_within(step.for_s)
            finally:
                await usable[step.fault].heal(lenient, part)
            if stopped:
                return
