"""When a write is answered: what its 2xx promises."""

from __future__ import annotations

from typing import Literal, TypeAlias

#: `committed`: its entry is safe on a majority. `applied`: besides, the leader's Chroma has it.
Ack: TypeAlias = Literal["applied", "committed"]
