"""Faults of the network, made by toxics on the proxies of a system's links."""

from __future__ import annotations

import asyncio
import itertools
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Final, Literal, Protocol

from evaluation.failure import SystemFailure
from evaluation.faulting import links, probes, targets
from evaluation.faulting.interface import Struck, take_back, undone_on_failure
from evaluation.systems.proxies import Toxic

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Sequence

    from evaluation.faulting.interface import Context
    from evaluation.faulting.links import Cut, Stream
    from evaluation.systems.interface import Link, System

_number = itertools.count(1)


class Kind(StrEnum):
    """How a cut looks to those who are cut off."""

    JAMMED = "jammed"
    """Bytes are held and delivered after the heal, as TCP does over a network that drops packets."""
    BLACKHOLE = "blackhole"
    """Bytes are swallowed, connections stay up; the heal closes them."""
    REFUSED = "refused"
    """Connections are closed, new ones refused: everybody knows at once. The easy one."""


@dataclass(frozen=True, slots=True)
class CutPlan:
    """What one cut is to do."""

    cuts: frozenset[Cut]
    members: tuple[str, ...]
    """Whom it is said to strike."""
    planes: frozenset[str] | None = None
    """Only links of these planes; None: all."""


class Planner(Protocol):
    async def __call__(self, context: Context, /) -> CutPlan: ...


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
        await add(
            context,
            struck,
            [
                (each.proxy, Toxic(f"cut-{next(_number)}", kind, each.stream, {attribute: 0}))
                for each in streams
            ],
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
            await add(
                context,
                struck,
                [
                    (link.proxy, Toxic(f"{kind}-{next(_number)}", kind, stream, attributes, self.toxicity))
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


async def add(context: Context, struck: Struck, toxics: Sequence[tuple[str, Toxic]]) -> None:
    """Add toxics to proxies, all at once, and remember to take them away."""
    there: list[tuple[str, str]] = []

    async def one(proxy: str, toxic: Toxic) -> None:
        await context.proxies.add(proxy, toxic)
        there.append((proxy, toxic.name))

    async def undo() -> None:
        await _all(*(context.proxies.remove(proxy, name) for proxy, name in there))

    struck.undo.append(undo)
    await _all(*(one(proxy, toxic) for proxy, toxic in toxics))


async def _all(*doings: Awaitable[None]) -> None:
    """All of them to their ends, then the first error."""
    for result in await asyncio.gather(*doings, return_exceptions=True):
        if isinstance(result, BaseException):
            raise result


def _enable(context: Context, proxy: str) -> Callable[[], Awaitable[None]]:
    async def undo() -> None:
        await context.proxies.enable(proxy, True)

    return undo


# ---------------------------------------------------------------------- plans


def _apart(system: System, parts: Sequence[Collection[str]]) -> frozenset[Cut]:
    return links.between(links.groups(targets.everybody(system), parts, system.beside))


def _rest(system: System, *members: str) -> list[str]:
    return [member for member in system.members if member not in members]


async def isolate_leader(context: Context) -> CutPlan:
    leader = await targets.leader(context.system)
    rest = _rest(context.system, leader)
    return CutPlan(_apart(context.system, [rest, [leader]]), (leader,))


async def isolate_minority(context: Context) -> CutPlan:
    """As many members that do not lead as a minority may have."""
    system = context.system
    count = max(1, (len(system.members) - 1) // 2)
    rest = list(system.members)
    leader = await targets.leader(system) if targets.has_leader(system) else None
    cut = tuple(sorted(context.rng.sample([member for member in rest if member != leader], count)))
    return CutPlan(_apart(system, [_rest(system, *cut), cut]), cut)


async def isolate_everybody(context: Context) -> CutPlan:
    """Each member alone. The balancer and the like stand with the leader."""
    system = context.system
    first = await targets.leader(system) if targets.has_leader(system) else system.members[0]
    alone = [[first], *([member] for member in _rest(system, first))]
    return CutPlan(_apart(system, alone), system.members)


async def leader_cannot_send(context: Context) -> CutPlan:
    leader = await targets.leader(context.system)
    rest = _rest(context.system, leader)
    here, there = _placed(context.system, leader, rest)
    return CutPlan(links.one_way(here, there), (leader,))


async def leader_cannot_hear(context: Context) -> CutPlan:
    leader = await targets.leader(context.system)
    rest = _rest(context.system, leader)
    here, there = _placed(context.system, leader, rest)
    return CutPlan(links.one_way(there, here), (leader,))


async def http_to_leader(context: Context) -> CutPlan:
    """Followers cannot ask the leader by HTTP (reads, forwarded writes); Raft is untouched."""
    leader = await targets.leader(context.system)
    rest = _rest(context.system, leader)
    return CutPlan(links.one_way(rest, [leader]), (leader,), frozenset({"http"}))


async def bridge(context: Context) -> CutPlan:
    """The leader, if there is one, is in a half: the bridge is another."""
    middle = await targets.follower(context.system, context.rng)
    return CutPlan(links.bridge(context.system.members, middle), _rest_of(context.system, middle))


async def ring(context: Context) -> CutPlan:
    members = list(context.system.members)
    context.rng.shuffle(members)
    return CutPlan(links.ring(members), context.system.members)


async def one_link(context: Context) -> CutPlan:
    """Between the leader (or any member) and one other, both ways."""
    system = context.system
    first = await targets.leader(system) if targets.has_leader(system) else system.members[0]
    second = context.rng.choice(_rest(system, first))
    cuts = links.between([[first], [second]])
    if not links.streams(system.links, cuts):
        # Members that keep up through somebody in between: that one's links to the member.
        others = {link.dialer for link in links.peer_links(system.links) if link.acceptor == second}
        cuts = links.between([sorted(others), [second]])
    return CutPlan(cuts, (first, second))


def _placed(system: System, leader: str, rest: Sequence[str]) -> tuple[frozenset[str], frozenset[str]]:
    """Who stands with the leader and who with the rest."""
    there, here = links.groups(targets.everybody(system), [rest, [leader]], system.beside)
    return here, there


def _rest_of(system: System, member: str) -> tuple[str, ...]:
    return tuple(_rest(system, member))


LEVELS_MS: Final = (5, 50, 500)

_PARTITIONS: Final = (
    Partition(
        "leader-isolated",
        "the leader is cut off from all others; bytes are held and delivered after the heal",
        isolate_leader,
        needs_leader=True,
    ),
    Partition(
        "leader-refused",
        "the leader is cut off: connections are closed and refused",
        isolate_leader,
        Kind.REFUSED,
        needs_leader=True,
    ),
    Partition(
        "leader-blackhole",
        "the leader is cut off: connections stay up and bytes are swallowed",
        isolate_leader,
        Kind.BLACKHOLE,
        needs_leader=True,
    ),
    Partition(
        "minority-isolated", "a minority without the leader is cut off from the rest", isolate_minority
    ),
    Partition(
        "majority-lost",
        "every member is cut off from every other: nobody has a majority",
        isolate_everybody,
        min_members=3,
    ),
    Partition(
        "one-way-out",
        "what the leader sends arrives nowhere; it hears all",
        leader_cannot_send,
        needs_leader=True,
    ),
    Partition(
        "one-way-in",
        "the leader hears nothing; what it sends arrives",
        leader_cannot_hear,
        needs_leader=True,
    ),
    Partition(
        "one-way-http",
        "followers' HTTP requests do not reach the leader; the log is untouched",
        http_to_leader,
        needs_plane="http",
        needs_leader=True,
    ),
    Partition(
        "bridge",
        "one member sees both halves of the others, which do not see each other",
        bridge,
        min_members=3,
        needs_leader=True,
    ),
    Partition(
        "ring",
        "each member sees only its two neighbours: every one another majority",
        ring,
        min_members=5,
        needs_leader=True,
    ),
    Partition(
        "flapping-link",
        "the link between the leader and another is cut and whole in turns",
        one_link,
        flap_s=(0.3, 1.5),
        min_seconds=8.0,
    ),
)

_DEGRADED: Final = (
    *(
        Degrade(
            f"latency-{ms}",
            f"{ms} ms more in each direction between all processes, give or take a fifth",
            (("latency", {"latency": ms, "jitter": ms // 5}),),
            bites="slow",
        )
        for ms in LEVELS_MS
    ),
    Degrade(
        "slow-close",
        "closing a connection takes 2 s to be noticed",
        (("slow_close", {"delay": 2000}),),
        bites="end",
    ),
    Degrade(
        "bandwidth",
        "64 KB/s between all processes: bulk delays what is urgent",
        (("bandwidth", {"rate": 64}),),
        bites="bulk",
    ),
    Degrade(
        "reset-peer",
        "connections of one member that does not lead are reset at once, again and again",
        (("reset_peer", {"timeout": 0}),),
        streams=("downstream",),
        one_member=True,
        bites="broken",
    ),
    Degrade(
        "cut-mid-frame",
        "every connection of one member that does not lead ends after 1,500 bytes, within a message",
        (("limit_data", {"bytes": 1500}),),
        one_member=True,
        bites="long",
    ),
    Degrade(
        "slicer",
        "everything arrives in pieces of about 64 bytes, 1 ms apart",
        (("slicer", {"average_size": 64, "size_variation": 32, "delay": 1000}),),
        bites="bulk",
    ),
)


def faults() -> list[Partition | Degrade]:
    """All of them."""
    return [*_PARTITIONS, *_DEGRADED]
