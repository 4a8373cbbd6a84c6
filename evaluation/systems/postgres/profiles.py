"""How the primary waits for its replicas, and who keeps an old primary from taking writes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from evaluation.systems.interface import Promises

if TYPE_CHECKING:
    from collections.abc import Sequence

MEMBERS: Final = ("pg-1", "pg-2", "pg-3")


@dataclass(frozen=True, slots=True)
class Profile:
    """`acknowledging`: how many replicas must have applied a write before it is acknowledged."""

    name: str
    acknowledging: int
    fenced: bool
    promises: Promises

    def standby_names(self, primary: str, members: Sequence[str] = MEMBERS) -> str:
        """`synchronous_standby_names` on this primary; all others are named, up or not."""
        if not self.acknowledging:
            return ""
        names = ",".join(f'"{member}"' for member in members if member != primary)
        return f"ANY {self.acknowledging} ({names})"


_EVENTUAL: Final = {"default": "eventual"}

PROFILES: Final = {
    profile.name: profile
    for profile in (
        # What a replica has not received when its primary fails is lost, acknowledged or not.
        Profile(
            "postgres-async",
            0,
            True,
            Promises(False, _EVENTUAL, True, True, True, True),
        ),
        Profile(
            "postgres-async-unfenced",
            0,
            False,
            Promises(False, _EVENTUAL, False, False, True, True),
        ),
        # Patroni has no watchdog here: while it hangs, its Postgres goes on as a primary.
        Profile(
            "postgres-patroni",
            0,
            False,
            Promises(False, _EVENTUAL, False, True, True, True),
        ),
        # A write is on the primary and one replica; a read may be from the other one.
        Profile("postgres-quorum", 1, True, Promises(True, _EVENTUAL, True, True, True, True)),
        # Every replica shows a write before it is acknowledged, and may show it before the primary does: a
        # session reads its own writes, but may see a write of another one come, go and come.
        Profile("postgres-all", 2, True, Promises(True, _EVENTUAL, True, True, True, False)),
    )
}
