"""Real packet loss, in a network namespace of the run's own (`faulting.netns`, `run.secluded`)."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from evaluation.failure import SystemFailure
from evaluation.faulting import links, netns, probes, targets
from evaluation.faulting.interface import Struck, take_back, undone_on_failure

if TYPE_CHECKING:
    from evaluation.faulting.interface import Context
    from evaluation.systems.interface import System

_SOON_S: Final = 30.0


@dataclass(frozen=True, slots=True)
class PacketLoss:
    """A `Fault`: packets between all processes but the clients are lost at random; TCP sends them again."""

    name: str = "packet-loss"
    summary: str = "a fifth of all packets between processes is lost"
    min_seconds: float = 8.0
    probability: float = 0.2

    def why_not(self, system: System) -> str:
        del system
        return netns.why_not()

    def applies_to(self, system: System) -> bool:
        return not self.why_not(system)

    async def apply(self, context: Context) -> Struck:
        system = context.system
        chosen = links.inner_links(system.links) or list(system.links)
        ports = [int(context.proxies.listen(link.proxy).rpartition(":")[2]) for link in chosen]
        struck = Struck(
            members=system.members,
            sides=dict.fromkeys(targets.everybody(system), "all"),
            detail={"probability": self.probability, "links": len(ports)},
        )

        async def undo() -> None:
            struck.detail["packets_lost"] = await asyncio.to_thread(netns.dropped)
            await asyncio.to_thread(netns.restore)

        await asyncio.to_thread(netns.drop, ports, self.probability)
        struck.undo.append(undo)
        context.note(f"packets of {len(ports)} links are lost")
        async with undone_on_failure(struck):
            end = time.monotonic() + _SOON_S
            while not await asyncio.to_thread(netns.dropped):
                if time.monotonic() > end:
                    raise SystemFailure(f"{self.name} does not bite: no packet is lost")
                await probes.alive(context.proxies, chosen, 1.0)
        return struck

    async def heal(self, context: Context, struck: Struck) -> None:
        await take_back(struck)
        await probes.until_alive(context.proxies, context.system.links)


def faults() -> list[PacketLoss]:
    """All of them."""
    return [PacketLoss()]
