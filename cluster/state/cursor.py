"""How far the log is applied, within an entry too, and where a proposal stands; pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import msgpack

if TYPE_CHECKING:
    from cluster.state.commands import Group, Proposal

_STATE_VERSION: Final = 1


@dataclass(frozen=True, slots=True)
class Cursor:
    """How far the log is applied: entries up to `index`, `position` proposals of the next entry,
    and `part` engine calls of the proposal after those. `time_ms` is the latest log time seen."""

    index: int = 0
    position: int = 0
    part: int = 0
    time_ms: int = 0

    def after(self, index: int, position: int, group: Group) -> Cursor:
        """The cursor once proposal `position` of the entry `index` is finished."""
        time_ms = max(self.time_ms, group.time_ms)
        if position + 1 == len(group.proposals):
            return Cursor(index, 0, 0, time_ms)
        return Cursor(index - 1, position + 1, 0, time_ms)

    def encode(self) -> bytes:
        """The durable form."""
        packed: bytes = msgpack.packb((_STATE_VERSION, self.index, self.position, self.part, self.time_ms))
        return packed

    @staticmethod
    def decode(value: bytes) -> Cursor:
        """Raises:
        ValueError: another version of the program wrote it.
        """
        version, *fields = msgpack.unpackb(value)
        if version != _STATE_VERSION:
            raise ValueError(f"state has version {version}, this program reads {_STATE_VERSION}")
        return Cursor(*fields)


@dataclass(frozen=True, slots=True)
class Origin:
    """The proposal that a step's work is for, where it stands, and the cursor behind it."""

    proposal: Proposal
    index: int
    position: int
    after: Cursor
