"""The fault that makes links slow or damages what flows through them."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from evaluation.failure import SystemFailure
from evaluation.faulting import links, probes, targets, toxics
from evaluation.faulting.interface import Struck, take_back, undone_on_failure

if TYPE_CHECKING:
    from collections.abc import Sequence

    from evaluation.faulting.interface import Context
    from evaluation.systems.interface import Link, System


@dataclass(frozen=True, slots=True)
class Degrade:
    """A `Fault` that makes links slow or damages what flows: the same toxics on many links."""

    name: str
    summary: str
    toxics: tuple[tuple[str, dict[str, int]], ...]
    """(kind, attributes)."""
    streams: tuple[str, ...] = ("upstream", "downstream")
    one_member: bool = False
    """Only the links of one member, which does not lead; else all links but those of clients."""
    toxicity: float = 1.0
    min_seconds: float = 5.0
    bites: Literal["slow", "broken", "bulk", "long", "end"] = "slow"
    """What the probe must see: a slow answer, none, a slow or no answer to a long question, a late end."""

    def why_not(self, system: System) -> str:
        known = targets.known(system)
        if self.one_member and len(system.members) < 2:
            return "there is only one member"
        if known and self.one_member and not links.inner_links(known):
            return "its members are joined by no link"
        return ""

    def applies_to(self, system: System) -> bool:
        return not self.why_not(system)

    async def apply(self, context: Context) -> Struck:
        system = context.system
        chosen = links.inner_links(system.links) or list(system.links)
        members = system.members
        if self.one_member:
            victim = await targets.follower(system, context.rng)
            members = (victim,)
            chosen = [link for link in chosen if victim in (link.dialer, link.acceptor)]
        if not chosen:
            raise SystemFailure(f"{self.name}: {system.name} has no link that it could strike")
        struck = Struck(
            members=members,
            sides=targets.sides(system, members if self.one_member else ()),
            detail={
                "links": len(chosen),
                **{f"{kind} {key}": value for kind, values in self.toxics for key, value in values.items()},
            },
        )
        before = await probes.alive(context.proxies, chosen, 2.0)
        context.note(f"{self.name}: {', '.join(link.proxy for link in chosen)}")
        async with undone_on_failure(struck):
            wanted = itertools.product(chosen, self.toxics, self.streams)
            await toxics.add(
                context,
                struck,
                [
                    (link.proxy, toxics.new_toxic(kind, kind, stream, attributes, self.toxicity))
                    for link, (kind, attributes), stream in wanted
                ],
            )
            if not context.lenient:
                await self._prove(context, [link for link in chosen if link.proxy in before])
        return struck

    async def heal(self, context: Context, struck: Struck) -> None:
        await take_back(struck)
        if not context.lenient:
            await probes.until_alive(context.proxies, context.system.links)

    async def _prove(self, context: Context, chosen: Sequence[Link]) -> None:
        match self.bites:
            case "slow":
                # There and back through both streams takes at least twice the latency less its jitter.
                attributes = self.toxics[0][1]
                least_s = 2 * (attributes["latency"] - attributes.get("jitter", 0)) / 1000
                wrong = await probes.alive(context.proxies, chosen, least_s * 0.9)
            case "broken":
                wrong = await probes.alive(context.proxies, chosen, 2.0)
            case "bulk" | "long":
                # Small questions are hardly touched: one as long as headers may be.
                wait_s = 0.06 if self.bites == "bulk" else 2.0
                wrong = await probes.alive(context.proxies, probes.http_links(chosen), wait_s, pad=7000)
            case "end":
                wrong = await probes.ending(context.proxies, probes.http_links(chosen), 1.0)
        if wrong:
            raise SystemFailure(f"{self.name} does not bite on {', '.join(sorted(wrong))}")
