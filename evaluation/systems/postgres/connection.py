"""Connections to one Postgres, typed: a small pool, and warnings that belong to a write.

A connection whose statement did not end well is never used again. It is dropped without a cancel request: a
cancelled wait for replicas would be answered as a success (see `writing`).
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any, Final

import asyncpg

from evaluation.systems.postgres.values import decode_vector, encode_vector

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence

USER: Final = "postgres"
#: Who reads and writes for clients. Not a superuser: writes that wait for replicas for ever keep their
#: connections, and those that are left over are for the supervisor and the operator.
CLIENT_USER: Final = "chroma"
DATABASE: Final = "postgres"
#: The connection is gone or in disorder; what became of its statement is not known. The last one is how
#: asyncpg ends a statement whose connection failed while it was being cancelled.
BROKEN: Final = (OSError, TimeoutError, asyncpg.InterfaceError, asyncpg.InternalClientError)
#: All that a statement or a connection attempt may end with.
FAILURES: Final = (*BROKEN, asyncpg.PostgresError)
_HOST: Final = "127.0.0.1"
_WARNING: Final = "01000"


class Connection:
    """One session. `warnings` gathers what the server said beside its answers."""

    def __init__(self, raw: asyncpg.Connection) -> None:
        self._raw = raw
        self.warnings: list[str] = []
        raw.add_log_listener(self._heard)

    def _heard(self, _: asyncpg.Connection, message: asyncpg.PostgresLogMessage) -> None:
        if message.sqlstate == _WARNING:
            self.warnings.append(message.message)

    async def fetch(self, query: str, *values: Any) -> Sequence[asyncpg.Record]:
        return await self._raw.fetch(query, *values)

    async def row(self, query: str, *values: Any) -> asyncpg.Record | None:
        return await self._raw.fetchrow(query, *values)

    async def value(self, query: str, *values: Any) -> Any:
        return await self._raw.fetchval(query, *values)

    async def execute(self, query: str, *values: Any) -> int:
        """How many rows it touched."""
        tag = (await self._raw.execute(query, *values)).rsplit(" ", 1)[-1]
        return int(tag) if tag.isdigit() else 0

    def transaction(self) -> asyncpg.Transaction:
        return self._raw.transaction()

    @property
    def closed(self) -> bool:
        return self._raw.is_closed()

    def terminate(self) -> None:
        """Close the socket and nothing else."""
        self._raw.terminate()

    async def close(self) -> None:
        with contextlib.suppress(Exception):
            await self._raw.close(timeout=1.0)
        self.terminate()


async def connect(
    host_and_port: str,
    database: str = DATABASE,
    *,
    timeout_s: float = 5.0,
    user: str = USER,
    vectors: bool = True,
    cached_statements: int = 0,
) -> Connection:
    """A new session. Through PgBouncer statements must not be cached (the default).

    Raises:
        FAILURES: it cannot be had.
    """
    host, _, port = host_and_port.rpartition(":")
    raw: asyncpg.Connection | None = None
    try:
        async with asyncio.timeout(timeout_s):
            raw = await asyncpg.connect(
                host=host or _HOST,
                port=int(port),
                user=user,
                database=database,
                timeout=timeout_s,
                statement_cache_size=cached_statements,
                ssl=False,
            )
            if vectors:
                await raw.set_type_codec(
                    "vector", encoder=encode_vector, decoder=decode_vector, format="binary"
                )
    except BaseException:
        if raw is not None:
            raw.terminate()
        raise
    return Connection(raw)


class Pool:
    """Sessions to one server, made when needed, the last used one first."""

    def __init__(self, host_and_port: str, database: str, *, cached_statements: int = 0) -> None:
        self._address = host_and_port
        self._database = database
        self._cached_statements = cached_statements
        self._idle: list[Connection] = []

    async def acquire(self, timeout_s: float) -> Connection:
        """Raises as `connect`."""
        while self._idle:
            connection = self._idle.pop()
            if not connection.closed:
                return connection
        return await connect(
            self._address,
            self._database,
            timeout_s=timeout_s,
            cached_statements=self._cached_statements,
        )

    def release(self, connection: Connection) -> None:
        """Take back a session whose last statement ended well."""
        connection.warnings.clear()
        if not connection.closed:
            self._idle.append(connection)

    @contextlib.asynccontextmanager
    async def use(self, timeout_s: float) -> AsyncGenerator[Connection]:
        """A session for the block, all of which must end in time; dropped if the block fails.

        Raises:
            TimeoutError: the time is over.
        """
        connection: Connection | None = None
        try:
            async with asyncio.timeout(timeout_s) as limit:
                connection = await self.acquire(timeout_s)
                # asyncpg answers a cancelled wait with a cancel request to the server. For reads that is
                # no harm; writes go through `writing`, which never cancels.
                del limit
                yield connection
        except BaseException:
            if connection is not None:
                connection.terminate()
            raise
        self.release(connection)

    async def close(self) -> None:
        for connection in self._idle:
            connection.terminate()
        self._idle.clear()
