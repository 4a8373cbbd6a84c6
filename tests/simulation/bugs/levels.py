"""Bugs of command levels: who is asked, what may be proposed, what is remembered."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from cluster import levels
from cluster.state.machine import Machine
from tests.simulation.filling import STATE, copied

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from cluster.levels import Levels
    from cluster.state.commands import Command
    from cluster.state.machine import Limits
    from tests.simulation.disk import Snapshot
    from tests.simulation.process import Process


def away_agrees(in_force: int, members: Iterable[str], said: Mapping[str, Levels]) -> int | None:
    """Who is away is not waited for."""
    return levels.next_level(in_force, [member for member in members if member in said], said)


def leader_decides(in_force: int, members: Iterable[str], said: Mapping[str, Levels]) -> int | None:
    """The level rises to what any node understands."""
    return levels.next_level(in_force, ["newest"], {"newest": max(said.values(), key=lambda one: one.newest)})


def any_kind_at_once(command: Command) -> int:
    """A leader proposes all that it understands itself."""
    del command
    return levels.FIRST_LEVEL


def forgets_level(items: list[tuple[str, bytes]], limits: Limits) -> Machine:
    """The level in force does not survive a restart."""
    return Machine.load([item for item in items if item[0] != "level"], limits)


def left_out_of_snapshots(process: Process, name: str) -> Snapshot | None:
    """The level in force is not in a snapshot."""
    found = copied(process, name)
    parts = tuple(
        (key, {at: value for at, value in part.items() if at != "level"} if key == STATE else part)
        for key, part in found.parts
    )
    return replace(found, parts=parts) if process.is_at_rest else None
