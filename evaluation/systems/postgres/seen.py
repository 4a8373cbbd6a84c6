"""What the supervisor sees of one server, and what it concludes from that."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from evaluation.systems.postgres.connection import FAILURES
from evaluation.systems.postgres.election import parse_lsn

if TYPE_CHECKING:
    from collections.abc import Mapping

    from evaluation.systems.postgres.connection import Pool

_LOOK: Final = """
SELECT pg_is_in_recovery() AS replica,
    CASE WHEN pg_is_in_recovery() THEN 0
        ELSE ('x' || left(pg_walfile_name(pg_current_wal_lsn()), 8))::bit(32)::integer END AS timeline,
    CASE WHEN pg_is_in_recovery() THEN GREATEST(pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn())
        ELSE pg_current_wal_lsn() END::text AS position,
    current_setting('primary_conninfo') AS follows,
    current_setting('synchronous_standby_names') AS names,
    current_setting('default_transaction_read_only') AS read_only
"""


@dataclass(frozen=True, slots=True)
class Seen:
    """What one server says of itself."""

    member: str
    replica: bool
    timeline: int
    position: int
    follows: str
    names: str
    read_only: bool


ABSENT: Final = Seen("", True, 0, 0, "", "", False)
"""In the place of one that does not answer."""


def fenced(seen: Mapping[str, Seen], primary: str) -> tuple[str, ...]:
    """Old primaries that take no writes any more, if the primary is there for them to follow; pure."""
    if primary not in seen or seen[primary].replica:
        return ()
    others = (one for one in seen.values() if one.member != primary)
    return tuple(sorted(one.member for one in others if not one.replica and one.read_only))


async def look(member: str, pool: Pool, timeout_s: float) -> Seen | None:
    """None if it does not answer in time."""
    with contextlib.suppress(*FAILURES):
        async with pool.use(timeout_s) as connection:
            row = await connection.row(_LOOK)
            if row is not None:
                return Seen(
                    member,
                    bool(row["replica"]),
                    int(row["timeline"]),
                    parse_lsn(row["position"]),
                    str(row["follows"]),
                    str(row["names"]),
                    row["read_only"] == "on",
                )
    return None
