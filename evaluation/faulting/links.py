"""Which streams of which proxies make a given cut of the network: decisions over one table of links.

A cut (i, j) means: what i sends does not reach j. A TCP link that i dialled to j carries that in its
`upstream`, one that j dialled to i in its `downstream`; without the second half replies flow on.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import permutations
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from evaluation.systems.interface import Link

Cut: TypeAlias = tuple[str, str]
"""(sender, receiver)."""

CLIENT_PLANES = frozenset({"client"})
#: Between those who serve, but not between members that keep each other's data up to date.
ACCESS_PLANES = CLIENT_PLANES | {"balancer", "sql", "pool"}


@dataclass(frozen=True, slots=True, order=True)
class Stream:
    """One direction of one proxy: `upstream` (dialer to acceptor) or `downstream`."""

    proxy: str
    stream: str


def streams(links: Iterable[Link], cuts: Collection[Cut]) -> list[Stream]:
    """The streams that must carry nothing so that exactly these cuts are made, in order."""
    found: set[Stream] = set()
    for link in links:
        if (link.dialer, link.acceptor) in cuts:
            found.add(Stream(link.proxy, "upstream"))
        if (link.acceptor, link.dialer) in cuts:
            found.add(Stream(link.proxy, "downstream"))
    return sorted(found)


def participants(links: Iterable[Link], members: Iterable[str]) -> tuple[str, ...]:
    """Everybody: the members, then whoever else is at an end of a link."""
    ends = [end for link in links for end in (link.dialer, link.acceptor)]
    return tuple(dict.fromkeys([*members, *ends]))


def peer_links(links: Iterable[Link]) -> list[Link]:
    """Those by which members keep up with each other, be it through a participant in between."""
    return [link for link in links if link.plane not in ACCESS_PLANES]


def inner_links(links: Iterable[Link]) -> list[Link]:
    """All but those that clients dial."""
    return [link for link in links if link.plane not in CLIENT_PLANES]


def groups(
    everybody: Iterable[str],
    member_groups: Sequence[Collection[str]],
    beside: Mapping[str, str],
) -> list[frozenset[str]]:
    """The groups of members with all other participants placed: beside a member, or else in the largest."""
    placed = [set(group) for group in member_groups]
    largest = max(range(len(placed)), key=lambda at: (len(placed[at]), -at))
    known = {name: at for at, group in enumerate(placed) for name in group}
    for name in everybody:
        if name not in known:
            placed[known.get(beside.get(name, ""), largest)].add(name)
    return [frozenset(group) for group in placed]


def between(parts: Sequence[Collection[str]]) -> frozenset[Cut]:
    """No group hears another."""
    return frozenset(
        (sender, receiver) for here, there in permutations(parts, 2) for sender in here for receiver in there
    )


def one_way(senders: Collection[str], receivers: Collection[str]) -> frozenset[Cut]:
    """What `senders` send does not reach `receivers`; the other way is open."""
    return frozenset((sender, receiver) for sender in senders for receiver in receivers if sender != receiver)


def bridge(members: Sequence[str], middle: str) -> frozenset[Cut]:
    """`middle` is heard by both halves of the others and hears both; the halves do not hear each other."""
    others = [member for member in members if member != middle]
    half = (len(others) + 1) // 2
    return between([others[:half], others[half:]])


def ring(members: Sequence[str]) -> frozenset[Cut]:
    """Each member hears only its neighbours: with five, each sees another majority of three."""
    count = len(members)
    near = {(members[at], members[(at + step) % count]) for at in range(count) for step in (1, -1)}
    return frozenset(pair for pair in permutations(members, 2) if pair not in near)


def sides(
    everybody: Iterable[str], members: Sequence[str], cuts: Collection[Cut], beside: Mapping[str, str]
) -> dict[str, str]:
    """Participant -> `majority`: it talks, both ways, to more than half of the members; else `minority`.

    Without cuts: `all`. Who stands beside a member has that member's side.
    """
    if not cuts:
        return dict.fromkeys(everybody, "all")

    def side(name: str) -> str:
        name = beside.get(name, name)
        talks = [
            member
            for member in members
            if member == name or ((name, member) not in cuts and (member, name) not in cuts)
        ]
        return "majority" if 2 * len(talks) > len(members) else "minority"

    return {name: side(name) for name in everybody}
