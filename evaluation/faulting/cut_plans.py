"""Which links a partition cuts, and whom that is said to strike: a function for each shape."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from evaluation.faulting import links, targets

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from evaluation.faulting.interface import Context
    from evaluation.faulting.links import Cut
    from evaluation.systems.interface import System


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
