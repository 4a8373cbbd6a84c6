"""The orders in SQL by which servers are made primary, replica or read-only, one connection each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from evaluation.processes import wait_until
from evaluation.systems.postgres.source import make_slot, slot

if TYPE_CHECKING:
    from collections.abc import Iterable

    from evaluation.systems.postgres.connection import Connection
    from evaluation.systems.postgres.source import Source

_RELOAD: Final = "SELECT pg_reload_conf()"
_FOLLOWS_NOBODY: Final = """
SELECT current_setting('primary_conninfo') = '' AND NOT EXISTS (SELECT 1 FROM pg_stat_wal_receiver)
"""


async def set_standby_names(connection: Connection, names: str) -> None:
    """Whom a primary waits for, and that it waits until they have applied a write."""
    await connection.execute(f"ALTER SYSTEM SET synchronous_standby_names = '{names}'")
    await connection.execute("ALTER SYSTEM SET synchronous_commit = 'remote_apply'")
    await connection.execute(_RELOAD)


async def part(connection: Connection, member: str, deadline_s: float) -> None:
    """Let a replica follow nobody, and wait until it receives no more.

    Raises:
        TimeoutError: it still does.
    """
    await connection.execute("ALTER SYSTEM SET primary_conninfo = ''")
    await connection.execute(_RELOAD)
    await wait_until(
        f"{member} to receive no more",
        lambda: connection.value(_FOLLOWS_NOBODY),
        deadline_s,
        pause_s=0.01,
    )


async def promote(connection: Connection, member: str, others: Iterable[str], deadline_s: float) -> None:
    """Make a replica the primary, with a slot for each of the others.

    Raises:
        TimeoutError: it is none yet.
    """
    # First: a server that was cloned or rewound from a primary may wait for replicas it has not.
    await connection.execute("ALTER SYSTEM SET synchronous_standby_names = ''")
    await connection.execute("ALTER SYSTEM SET default_transaction_read_only = off")
    await connection.execute(_RELOAD)
    replica = await connection.value("SELECT pg_is_in_recovery()")
    if replica and not await connection.value("SELECT pg_promote(true, $1)", int(deadline_s)):
        raise TimeoutError(f"{member} was not promoted within {deadline_s} s")
    for other in others:
        await make_slot(connection, other)


async def point(connection: Connection, source: Source) -> None:
    """Let a replica follow this one."""
    await connection.execute(f"ALTER SYSTEM SET primary_conninfo = '{source.conninfo()}'")
    await connection.execute(f"ALTER SYSTEM SET primary_slot_name = '{slot(source.member)}'")
    await connection.execute(_RELOAD)


async def fence(connection: Connection) -> None:
    """Make an old primary read-only, and end the sessions that it has."""
    await connection.execute("ALTER SYSTEM SET default_transaction_read_only = on")
    await connection.execute(_RELOAD)
    await connection.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
        "WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
    )
