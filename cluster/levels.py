"""The command level of a cluster: which kinds of log entries all its members understand. Pure.

Each build understands the kinds of a range of levels. One level is *in force*: nothing of a kind above it is
ever put into the log. It is part of the replicated state, rises by an entry of the log, and never falls. The
leader raises it once every member has said that it understands more; one that is away has said nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, cast

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

FIRST_LEVEL: Final = 1
"""In force where the state says nothing else: in new directories, and in those from before levels."""


@dataclass(frozen=True, slots=True)
class Levels:
    """What one node says: the levels that it understands, and the one in force as far as it has applied."""

    oldest: int = FIRST_LEVEL
    newest: int = FIRST_LEVEL
    in_force: int = FIRST_LEVEL

    def as_fields(self) -> list[int]:
        """As `levels_of_fields` reads them."""
        return [self.oldest, self.newest, self.in_force]


def levels_of_fields(value: Any) -> Levels | None:
    """Inverse of `as_fields`, of what another node sent; None: it is malformed. Later builds may say more."""
    fields = cast("list[Any]", value)[:3] if type(value) is list else []
    if len(fields) != 3 or not all(type(field) is int and field >= FIRST_LEVEL for field in fields):
        return None
    found = Levels(*fields)
    return found if found.oldest <= found.newest else None


def claimed(newest: int, in_force: int, limit: int | None) -> Levels:
    """What a node says of itself whose build understands up to `newest`, and which is held at `limit`.

    What is in force already can be held back by nobody.
    """
    return Levels(FIRST_LEVEL, max(min(newest, limit or newest), min(newest, in_force)), in_force)


def quarrel(here: Levels, there: str, other: Levels) -> str | None:
    """Why a node that says `here` and node `there` cannot be in one cluster, in words; None: they can."""
    force = max(here.in_force, other.in_force)
    for name, levels in (("this node", here), (there, other)):
        if levels.newest < force:
            return (
                f"{name} understands command levels up to {levels.newest}, the cluster is at level {force}, "
                f"which never falls: start {name} with a build that understands level {force}, and without "
                "`command_level_limit`"
            )
        if levels.oldest > force:
            return (
                f"{name} understands command levels from {levels.oldest} on, the cluster is at level {force}:"
                f" first bring all nodes to a build that understands both, then start {name} with this one"
            )
    return None


def next_level(in_force: int, members: Iterable[str], said: Mapping[str, Levels]) -> int | None:
    """To which level a leader raises the cluster now; None: to none.

    `members` are all, with and without a vote, the leader among them; `said` is what it and those say that
    are connected to it.
    """
    goal: int | None = None
    for member in members:
        levels = said.get(member)
        if levels is None:
            return None
        goal = levels.newest if goal is None else min(goal, levels.newest)
    return goal if goal is not None and goal > in_force else None


def lacking(wanted: int, members: Iterable[str], said: Mapping[str, Levels]) -> dict[str, str]:
    """Which members keep the cluster from being raised to the level `wanted`, and why; as `next_level`."""
    found: dict[str, str] = {}
    for member in members:
        levels = said.get(member)
        if levels is None:
            found[member] = "it is away"
        elif levels.newest < wanted:
            found[member] = f"it understands level {levels.newest}"
    return found
