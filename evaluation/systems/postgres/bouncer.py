"""One PgBouncer beside an API server: a database of the same name for each Postgres server."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Final

from evaluation.failure import SystemFailure
from evaluation.processes import Child, free_port, wait_until
from evaluation.systems.postgres.connection import CLIENT_USER, DATABASE
from evaluation.systems.postgres.programs import run_as

if TYPE_CHECKING:
    from collections.abc import Mapping

_START_S: Final = 30.0
#: server_login_retry and the timeouts keep a dead server from holding up requests for long.
_CONFIGURATION: Final = """
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = any
pool_mode = transaction
default_pool_size = 24
max_client_conn = 500
ignore_startup_parameters = extra_float_digits
server_login_retry = 1
server_connect_timeout = 1
query_wait_timeout = 1
server_check_delay = 5
log_connections = 0
log_disconnections = 0
log_stats = 0
"""


def program() -> str:
    """Raises:
    SystemFailure: it is not installed.
    """
    found = shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin:/usr/local/sbin")
    if found is None:
        raise SystemFailure("No pgbouncer on the PATH. On Debian: apt-get install pgbouncer")
    return found


class Bouncer:
    """`servers`: member -> host:port. `folder` must be reachable for the user of Postgres."""

    def __init__(self, name: str, folder: Path, servers: Mapping[str, str]) -> None:
        self.name = name
        self.port = free_port()
        self._configuration = folder / f"{name}.ini"
        self._log = folder / f"{name}.log"
        lines = ["[databases]"]
        for member, address in servers.items():
            host, _, port = address.rpartition(":")
            lines.append(f"{member} = host={host} port={port} dbname={DATABASE} user={CLIENT_USER}")
        text = "\n".join(lines) + _CONFIGURATION.format(port=self.port)
        self._configuration.write_text(text)
        self._configuration.chmod(0o644)
        self.child: Child | None = None

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    async def start(self) -> None:
        """Until it takes connections."""
        self.child = Child(
            [program(), str(self._configuration)],
            self._log,
            {"PATH": os.environ.get("PATH", "")},
            cwd=Path("/"),
            uid=run_as(),
        )
        child = self.child

        async def listens() -> bool:
            if child.returncode is not None:
                raise SystemFailure(f"{self.name} ended while it was starting. {child.log_tail()}")
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", self.port)
            except OSError:
                return False
            writer.close()
            return True

        try:
            await wait_until(f"{self.name} to listen", listens, _START_S, context=child.log_tail)
        except TimeoutError as error:
            raise SystemFailure(str(error)) from None

    async def stop(self) -> None:
        if self.child is not None:
            if self.child.returncode is None:
                self.child.signal(signal.SIGCONT)
            await asyncio.to_thread(self.child.stop, 2.0)
