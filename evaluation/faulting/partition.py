"""The fault that cuts links between participants, and proves that they and no others are cut."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from evaluation.failure import SystemFailure
from evaluation.faulting import links, probes, targets, toxics
from evaluation.faulting.interface import Struck, take_back, undone_on_failure

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from evaluation.faulting.cut_plans import Planner
    from evaluation.faulting.interface import Context
    from evaluation.faulting.links import Stream
    from evaluation.systems.interface import Link, System


class Kind(StrEnum):
    """How a cut looks to those who are cut off."""

    JAMMED = "jammed"
    """Bytes are held and delivered after the heal, as TCP does over a network that drops packets."""
    BLACKHOLE = "blackhole"
    """Bytes are swallowed, connections stay up; the heal closes them."""
    REFUSED = "refused"
    """Connections are closed, new ones refused: everybody knows at once. The easy one."""


@dataclass(frozen=True, slots=True)
class Partition:
    """A `Fault` that cuts links between participants, completely, in one or both directions."""

    name: str
    summary: str
    planner: Planner
    kind: Kind = Kind.JAMMED
    needs_leader: bool = False
    min_members: int = 2
    needs_plane: str | None = None
    min_seconds: float = 5.0
    flap_s: tuple[float, float] | None = None
    """Cut and whole in turns, for random times between these."""

    def why_not(self, system: System) -> str:
        if len(system.members) < self.min_members:
            return f"needs {self.min_members} members, there are {len(system.members)}"
        if self.needs_leader and not targets.has_leader(system):
            return "no member leads"
        known = targets.known(system)
        if known and not links.peer_links(known):
            return "its members have no links with each other"
        if known and self.needs_plane and all(link.plane != self.needs_plane for link in known):
            return f"it has no {self.needs_plane} links"
        return ""

    def applies_to(self, system: System) -> bool:
        return not self.why_not(system)

    async def apply(self, context: Context) -> Struck:
        plan = await self.planner(context)
        system = context.system
        chosen = [link for link in system.links if plan.planes is None or link.plane in plan.planes]
        streams = links.streams(chosen, plan.cuts)
        if not streams:
            raise SystemFailure(f"{self.name}: no link of {system.name} is cut by it")
        # A cut of HTTP alone takes nobody's majority away: the log goes on.
        whole = plan.planes is None
        struck = Struck(
            members=plan.members,
            sides=links.sides(
                targets.everybody(system), system.members, plan.cuts if whole else (), system.beside
            ),
            detail={"kind": self.kind.value, "streams": len(streams)},
        )
        cut_proxies = {stream.proxy for stream in streams}
        struck_links = [link for link in system.links if link.proxy in cut_proxies]
        before = await probes.alive(context.proxies, system.links, 2.0)
        if not before & cut_proxies and not context.lenient:
            raise SystemFailure(f"{self.name}: no link that it would cut answers before it is cut")
        probed = [link for link in struck_links if link.proxy in before]
        whole_links = [link for link in system.links if link.proxy in before - cut_proxies]
        async with undone_on_failure(struck):
            await self._cut(context, struck, streams)
            await self._prove(context, probed, whole_links)
            if self.flap_s is not None:
                struck.task = asyncio.create_task(self._flap(context, struck, streams, self.flap_s))
        return struck

    async def heal(self, context: Context, struck: Struck) -> None:
        await take_back(struck)
        if not context.lenient:
            await probes.until_alive(context.proxies, context.system.links)

    async def _cut(self, context: Context, struck: Struck, streams: Sequence[Stream]) -> None:
        context.note(f"cut ({self.kind.value}): {', '.join(sorted({each.proxy for each in streams}))}")
        if self.kind is Kind.REFUSED:
            for proxy in sorted({stream.proxy for stream in streams}):
                struck.undo.append(_enable(context, proxy))
                await context.proxies.enable(proxy, False)
            return
        kind, attribute = ("bandwidth", "rate") if self.kind is Kind.JAMMED else ("timeout", "timeout")
        await toxics.add(
            context,
            struck,
            [(each.proxy, toxics.new_toxic("cut", kind, each.stream, {attribute: 0})) for each in streams],
        )

    async def _prove(self, context: Context, cut: Sequence[Link], whole: Sequence[Link]) -> None:
        if context.lenient:
            return
        through = await probes.alive(context.proxies, cut, probes.SILENCE_S)
        if through:
            raise SystemFailure(
                f"{self.name} does not bite: answers come through {', '.join(sorted(through))}"
            )
        # A cut that is wider than it should be would test something else.
        await probes.until_alive(context.proxies, whole, 20.0)

    async def _flap(
        self, context: Context, struck: Struck, streams: Sequence[Stream], between_s: tuple[float, float]
    ) -> None:
        """Cut at first. Counts how often it was cut."""
        struck.detail["cuts"] = 1
        while not await struck.stopped_within(context.rng.uniform(*between_s)):
            await _undo_all(struck)
            context.note("the link is whole")
            if await struck.stopped_within(context.rng.uniform(*between_s)):
                return
            await self._cut(context, struck, streams)
            struck.detail["cuts"] += 1


async def _undo_all(struck: Struck) -> None:
    while struck.undo:
        await struck.undo.pop()()


def _enable(context: Context, proxy: str) -> Callable[[], Awaitable[None]]:
    async def undo() -> None:
        await context.proxies.enable(proxy, True)

    return undo
