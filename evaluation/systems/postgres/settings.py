"""What the programs of this folder are told: a JSON file each, named by `--config`."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Self

import orjson

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class Settings:
    """What all of them have in common."""

    listen: str
    """host:port, as all addresses here."""

    def save(self, path: Path) -> None:
        path.write_bytes(orjson.dumps(asdict(self), option=orjson.OPT_INDENT_2))

    @classmethod
    def load(cls, path: Path) -> Self:
        raw: dict[str, Any] = orjson.loads(path.read_bytes())
        return cls(**raw)


@dataclass(frozen=True, slots=True)
class ApiSettings(Settings):
    """Of one API server."""

    name: str
    local: str
    """The Postgres server beside it."""
    members: Sequence[str]
    pgbouncer: str
    supervisor: str | None
    """Base URL; None: nobody says who is primary, it looks for itself (not fenced)."""
    lease_s: float
    reads: str = "spread"
    deadline_s: float = 5.0
    attempt_s: float = 1.0


@dataclass(frozen=True, slots=True)
class SupervisorSettings(Settings):
    """Of the supervisor."""

    profile: str
    primary: str
    """The first one."""
    state: str
    """A file for who was made primary last."""
    servers: dict[str, str]
    """Member -> where the supervisor reaches it."""
    sources: dict[str, str]
    """ "replica primary" -> where the one reaches the other."""
    lease_s: float = 0.7
    patience_s: float = 1.0
