"""The part of asyncpg that the evaluation uses."""

from collections.abc import Callable, Iterator
from typing import Any

class Record:
    def __getitem__(self, key: str | int) -> Any: ...
    def __iter__(self) -> Iterator[Any]: ...

class PostgresLogMessage:
    sqlstate: str
    message: str

class PostgresError(Exception):
    sqlstate: str | None

class InterfaceError(Exception): ...
class InternalClientError(Exception): ...

class Transaction:
    async def __aenter__(self) -> None: ...
    async def __aexit__(self, kind: Any, error: Any, traceback: Any) -> None: ...

class Connection:
    async def fetch(self, query: str, *args: Any) -> list[Record]: ...
    async def fetchrow(self, query: str, *args: Any) -> Record | None: ...
    async def fetchval(self, query: str, *args: Any) -> Any: ...
    async def execute(self, query: str, *args: Any) -> str: ...
    def transaction(self) -> Transaction: ...
    async def set_type_codec(
        self,
        typename: str,
        *,
        schema: str = "public",
        encoder: Callable[[Any], Any],
        decoder: Callable[[Any], Any],
        format: str = "text",
    ) -> None: ...
    def add_log_listener(self, callback: Callable[[Connection, PostgresLogMessage], None]) -> None: ...
    def is_closed(self) -> bool: ...
    def terminate(self) -> None: ...
    async def close(self, *, timeout: float | None = None) -> None: ...  # noqa: ASYNC109

async def connect(
    dsn: str | None = None,
    *,
    host: str | None = None,
    port: int | None = None,
    user: str | None = None,
    database: str | None = None,
    timeout: float = 60,  # noqa: ASYNC109
    command_timeout: float | None = None,
    statement_cache_size: int = 100,
    server_settings: dict[str, str] | None = None,
    ssl: bool | None = None,
) -> Connection: ...
