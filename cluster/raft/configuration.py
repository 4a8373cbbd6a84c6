"""Who the members of a cluster are, as an entry of its log; which change of it is allowed. Pure.

A configuration is an entry of the log whose payload begins with a byte that no msgpack value begins with, so
it is never taken for something to apply. It is in force from the moment at which it is appended, on each node
that holds it, committed or not; one that is cut off again brings the former back. A change differs from the
configuration before it in one voter at most.

While the newest is not known to be committed, elections and commits need a majority of the voters of both it
and the one before (`electorates`). That is more than the one-voter rule asks for. It makes a simple fact true
that a cluster of two needs: a node that is in every majority of a committed configuration holds all that was
ever committed after it (docs/raft.md, "Membership").
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, cast

import msgpack

from cluster.errors import ClusterError
from cluster.raft.interface import Add, Admit, Change, Configuration, Member, Move, Promote, Remove
from cluster.raft.quorum import majority

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_NODE_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
PREFIX = b"\xc1"
"""The one byte that msgpack never uses."""
_FORMAT = 1
MAX_NAME = 64
MAX_ADDRESS = 512
MAX_MEMBERS = 64


def encode_configuration(configuration: Configuration) -> bytes:
    """The payload of the entry."""
    rows = [[m.id, m.address, m.http, m.is_voter, m.incarnation] for m in configuration.members]
    body: bytes = msgpack.packb([_FORMAT, configuration.number, rows])
    return PREFIX + body


def decode_configuration(payload: bytes) -> Configuration:
    """The configuration in `payload`.

    Raises:
        ValueError: the bytes are not exactly what `encode_configuration` writes.
    """
    if not is_configuration(payload):
        raise ValueError("not a configuration")
    try:
        fields: Any = msgpack.unpackb(payload[1:])
    except Exception as error:  # msgpack raises several unrelated types on foreign bytes
        raise ValueError(f"a damaged configuration: {error}") from error
    values = cast("list[Any]", fields) if type(fields) is list else []
    if len(values) != 3 or values[0] != _FORMAT:
        raise ValueError("a configuration of a format that this version does not read")
    _, number, rows = values
    if type(number) is not int or number < 0 or type(rows) is not list:
        raise ValueError("a configuration with a field of the wrong type")
    found = Configuration(number, tuple(_member(row) for row in cast("list[Any]", rows)))
    ids = found.ids
    if len(ids) > MAX_MEMBERS or list(ids) != sorted(set(ids)):
        raise ValueError("a configuration whose members are not in order")
    return found


def _member(row: Any) -> Member:
    if type(row) is not list or len(cast("list[Any]", row)) != 5:
        raise ValueError("a configuration with a wrong member")
    node_id, address, http, is_voter, incarnation = cast("list[Any]", row)
    texts = ((node_id, MAX_NAME), (address, MAX_ADDRESS), (http, MAX_ADDRESS), (incarnation, MAX_NAME))
    if not all(type(text) is str and len(text) <= most for text, most in texts) or not node_id:
        raise ValueError("a configuration with a wrong member")
    if type(is_voter) is not bool:
        raise ValueError("a configuration with a wrong member")
    return Member(node_id, address, http, is_voter, incarnation)


def is_configuration(payload: bytes) -> bool:
    """Whether an entry's payload is a configuration: nothing to apply."""
    return payload[:1] == PREFIX


def founding(ids: Iterable[str]) -> Configuration:
    """The configuration that a cluster begins with: all vote; their addresses are in the settings."""
    return Configuration(0, tuple(Member(node_id) for node_id in sorted(set(ids))))


def electorates(now: Configuration, former: Configuration | None) -> tuple[frozenset[str], ...]:
    """A majority of each of these decides. `former` is None once `now` is known to be committed."""
    sets = [now.voters] if former is None or former.voters == now.voters else [now.voters, former.voters]
    return tuple(voters for voters in sets if voters)


# ---------------------------------------------------------------------- changes


class ChangeRefused(ClusterError):
    """A mistake: to repeat the change will not help. 400: it is malformed; 409: the cluster is not so."""

    status = 409
    error = "MembershipError"
    outcome = "unchanged"

    def __init__(self, message: str, *, status: int = 409) -> None:
        super().__init__(f"{message} Nothing was changed.")
        self.status = status


class ChangeNotNow(ClusterError):
    """Nothing is wrong with the change but its moment: the same may be accepted later."""

    status = 503
    error = "MembershipNotNowError"
    outcome = "unchanged"

    def __init__(self, message: str) -> None:
        super().__init__(f"{message} Nothing was changed.")


@dataclass(frozen=True, slots=True)
class Circumstances:
    """What the leader knows at the moment at which it is asked for a change."""

    is_committed: bool
    """The configuration in force is committed, and so is an entry of the leader's own term."""
    present: frozenset[str]
    """Members that have their vote and answered lately, the leader among them."""
    match: Mapping[str, int]
    """How far each other member's log is known to equal the leader's."""
    last_index: int
    catch_up_entries: int
    """A learner that lacks more entries than these has not caught up."""
    in_settings: Mapping[str, tuple[str, str]]
    """The two addresses of members by the leader's settings, for those that no configuration has."""
    without_vote: Mapping[str, str] = field(default_factory=dict[str, str])
    """The incarnations of the members that are there and may not vote: new, or with an old journal."""


def changed(now: Configuration, change: Change, at: Circumstances) -> Configuration:
    """The configuration after `change`.

    Raises:
        ChangeRefused: an operator's mistake.
        ChangeNotNow: the same may be accepted later.
    """
    members = {member.id: member for member in now.members}
    _check_meaning(members, change, at)
    if not at.is_committed:
        raise ChangeNotNow(
            "A change of the members is under way already, or the leader is so new that it has not committed "
            "anything yet; one change is made at a time. Wait for it and ask again."
        )
    match change:
        case Add(node_id, address, http):
            members[node_id] = Member(node_id, address, http, is_voter=False)
        case Promote(node_id):
            _check_caught_up(node_id, at)
            members[node_id] = replace(members[node_id], is_voter=True)
        case Remove(node_id):
            del members[node_id]
        case Admit(node_id):
            members[node_id] = replace(members[node_id], incarnation=at.without_vote[node_id])
        case Move(node_id, address, http):
            held = members[node_id]
            members[node_id] = replace(held, address=address or held.address, http=http or held.http)
    after = Configuration(now.number + 1, tuple(members[node_id] for node_id in sorted(members)))
    if after.voters != now.voters:
        _check_quorum(now, after, at)
    if isinstance(change, Add):
        after = with_addresses(after, at.in_settings)
    return after


def with_addresses(configuration: Configuration, known: Mapping[str, tuple[str, str]]) -> Configuration:
    """The same with the addresses that were in the settings only: a new member has other settings."""

    def complete(member: Member) -> Member:
        address, http = known.get(member.id, ("", ""))
        return replace(member, address=member.address or address, http=member.http or http)

    return replace(configuration, members=tuple(complete(member) for member in configuration.members))


def split_address(address: str) -> tuple[str, int]:
    """`host:port` as (host, port); IPv6 hosts in brackets.

    Raises:
        ValueError: no host, or no port in 1..65535.
    """
    host, _, port = address.rpartition(":")
    if not host or not (port.isascii() and port.isdigit()) or not 0 < int(port) <= 65535:
        raise ValueError(f"expected HOST:PORT, got {address[:80]!r}")
    return host.strip("[]"), int(port)


def bound(now: Configuration, incarnations: Mapping[str, str]) -> Configuration:
    """The same voters, each of the named ids bound to the journal that stands for it from now on."""
    members = (
        replace(member, incarnation=incarnations.get(member.id, member.incarnation)) for member in now.members
    )
    return Configuration(now.number + 1, tuple(members))


def _check_meaning(members: Mapping[str, Member], change: Change, at: Circumstances) -> None:
    if len(change.id) > MAX_NAME or not _NODE_ID.fullmatch(change.id):
        raise ChangeRefused(f"{change.id[:80]!r} is no node id.", status=400)
    held = members.get(change.id)
    if isinstance(change, Add):
        if not change.address:
            raise ChangeRefused(f"{change.id} needs the address at which its log is dialled.", status=400)
        if held is not None:
            kind = "voter" if held.is_voter else "learner"
            raise ChangeRefused(f"{change.id} is a member already (a {kind}).")
        if len(members) >= MAX_MEMBERS:
            raise ChangeRefused(f"The cluster has {len(members)} members; more are not supported.")
    elif held is None:
        raise ChangeRefused(f"{change.id} is no member; the members are {', '.join(members)}.")
    if isinstance(change, Promote) and held is not None and held.is_voter:
        raise ChangeRefused(f"{change.id} is a voter already.")
    if isinstance(change, Admit) and change.id not in at.without_vote:
        raise ChangeRefused(
            f"{change.id} does not wait to be admitted: it has its vote, or the leader has not heard from it."
        )
    if isinstance(change, Add | Move):
        _check_addresses(members, change, at.in_settings)


def _check_addresses(
    members: Mapping[str, Member], change: Add | Move, in_settings: Mapping[str, tuple[str, str]]
) -> None:
    if isinstance(change, Move) and not (change.address or change.http):
        raise ChangeRefused(f"No new address was given for {change.id}.", status=400)
    for text in (change.address, change.http):
        if len(text) > MAX_ADDRESS:
            raise ChangeRefused(f"The address {text[:80]!r}... of {change.id} is too long.", status=400)
    try:
        if change.address:
            split_address(change.address)
    except ValueError as error:
        raise ChangeRefused(f"The address of {change.id}: {error}.", status=400) from error
    for member in members.values():
        address, http = in_settings.get(member.id, ("", ""))
        taken = {member.address or address, member.http or http} - {""}
        if member.id != change.id and taken & {change.address, change.http}:
            raise ChangeRefused(f"That address belongs to {member.id} already.")


def _check_caught_up(node_id: str, at: Circumstances) -> None:
    if node_id not in at.present:
        raise ChangeNotNow(
            f"{node_id} cannot be reached, or has not taken everything yet: it cannot become a voter. Start "
            "it, wait until it has caught up, and ask again."
        )
    lacks = at.last_index - at.match.get(node_id, 0)
    if lacks > at.catch_up_entries:
        raise ChangeNotNow(
            f"{node_id} has not caught up: it lacks {lacks} entries of the log, {at.catch_up_entries} "
            "at most are allowed. As a voter it would hold up writes. Wait and ask again."
        )


def _check_quorum(now: Configuration, after: Configuration, at: Circumstances) -> None:
    """Of the voters that are there now a majority must be left, before the change and after it."""
    if not after.voters:
        raise ChangeRefused("That would leave the cluster without a voter.")
    for voters in (now.voters, after.voters):
        there = len(voters & at.present)
        if there < majority(len(voters)):
            away = ", ".join(sorted(voters - at.present))
            raise ChangeNotNow(
                f"Of the {len(voters)} voters only {there} would be there ({away} away), fewer than a "
                "majority: the cluster would stop taking writes. Bring those back, or remove them, first."
            )
