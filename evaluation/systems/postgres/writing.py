"""A write to the primary, and what its client may be told when it did not end well.

- Nothing was sent, or the server itself says that the statement failed: surely not done.
- The answer is missing, late, or came from a server that is not the primary any more: outcome unknown.
- The server warns that its wait for replicas was cancelled: the row is on the primary alone. Postgres calls
  that a success; here it is outcome unknown.

The deadline is kept by this side, and by closing the socket: `statement_timeout` does not end a wait for
replicas, and a cancel request would turn it into a success.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Final, TypeVar

import asyncpg

from cluster.errors import ClusterError, OutcomeUnknown, Unavailable
from evaluation.systems.postgres.connection import FAILURES

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from evaluation.systems.postgres.connection import Connection, Pool

T = TypeVar("T")

READ_ONLY: Final = "25006"
UNDEFINED_TABLE: Final = "42P01"
#: The transaction was rolled back for the sake of another one: it can be repeated.
REPEATABLE: Final = frozenset({"40001", "40P01", "55P03"})
#: Classes of errors that the server reports about a statement that it has undone.
_UNDONE: Final = frozenset({"0A", "21", "22", "23", "25", "26", "3F", "40", "42", "53", "54", "55"})
#: What PgBouncer and Postgres say before any statement reached a server.
_NOT_SENT: Final = (
    "query_wait_timeout",
    "server login has been failing",
    "cannot connect to server",
    "no more connections allowed",
    "no such database",
    "the database system is",
    "server login failed",
)
_ATTEMPTS: Final = 5


class Rejected(Exception):
    """The server refused the statement and has undone it; `sqlstate` says why."""

    def __init__(self, sqlstate: str, message: str) -> None:
        super().__init__(message)
        self.sqlstate = sqlstate


def not_sent(error: BaseException) -> bool:
    """Whether the error proves that no statement reached a server."""
    return isinstance(error, asyncpg.PostgresError) and any(text in str(error) for text in _NOT_SENT)


def undone(error: BaseException) -> str | None:
    """The SQLSTATE by which the server says that the statement has no effect, else None."""
    if isinstance(error, asyncpg.PostgresError) and error.sqlstate is not None:
        return error.sqlstate if error.sqlstate[:2] in _UNDONE else None
    return None


def unknown(why: str) -> OutcomeUnknown:
    return OutcomeUnknown(f"The outcome unknown: {why} The write may still take effect.")


async def write(
    pool: Pool,
    work: Callable[[Connection], Awaitable[T]],
    *,
    deadline_s: float,
    still_primary: Callable[[], bool],
) -> T:
    """Do `work` (one statement, or one transaction) within `deadline_s`.

    Raises:
        Unavailable: surely nothing changed.
        OutcomeUnknown: it may have been done, or be done later.
        Rejected: the server refused it.
        ClusterError: `work` itself raised it, before anything was committed.
    """
    end = asyncio.get_running_loop().time() + deadline_s
    attempt = 0
    while True:
        attempt += 1
        try:
            return await _once(pool, work, end, still_primary)
        except Rejected as rejected:
            if rejected.sqlstate not in REPEATABLE or attempt == _ATTEMPTS:
                raise


async def _once(
    pool: Pool,
    work: Callable[[Connection], Awaitable[T]],
    end: float,
    still_primary: Callable[[], bool],
) -> T:
    loop = asyncio.get_running_loop()
    try:
        connection = await pool.acquire(max(end - loop.time(), 0.01))
    except FAILURES as error:
        raise Unavailable(f"The primary cannot be reached ({error!r}). Nothing was changed.") from None
    task = asyncio.ensure_future(work(connection))
    done, _ = await asyncio.wait({task}, timeout=max(end - loop.time(), 0.01))
    if not done:
        # The socket goes first: the cancelled task then has nothing to send a cancel request about.
        connection.terminate()
        with contextlib.suppress(asyncio.CancelledError, Exception):
            await task
        raise unknown("the primary did not answer in time.")
    error = task.exception()
    if isinstance(error, ClusterError):
        pool.release(connection)
        raise error
    if error is not None:
        connection.terminate()
        raise _judged(error) from None
    warnings = list(connection.warnings)
    pool.release(connection)
    if warnings:
        raise unknown(f"the primary says: {warnings[0]}.")
    if not still_primary():
        raise unknown("the server that took it is not known to be the primary any more.")
    return task.result()


def _judged(error: BaseException) -> Exception:
    if not_sent(error):
        return Unavailable(f"The primary cannot be reached ({error}). Nothing was changed.")
    sqlstate = undone(error)
    if sqlstate == READ_ONLY:
        return Unavailable("The server is not the primary. Nothing was changed.")
    if sqlstate is not None:
        return Rejected(sqlstate, str(error))
    if isinstance(error, FAILURES):
        return unknown(f"the connection to the primary failed ({error!r}).")
    return error if isinstance(error, Exception) else RuntimeError(repr(error))
