"""One Postgres server: its data directory and its process."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import time
from enum import StrEnum
from pathlib import Path
from typing import Final

import asyncpg
import psutil

from evaluation.failure import SystemFailure
from evaluation.limits import file_size_limits
from evaluation.processes import Child, wait_until
from evaluation.systems.postgres.connection import connect
from evaluation.systems.postgres.programs import run_as
from evaluation.systems.postgres.source import Source, slot

_START_S: Final = 60.0
_STOP_S: Final = 10.0
_TOOL_S: Final = 60.0
#: Short: between two programs at work on it, a member has no process that a fault could strike.
_POLL_S: Final = 0.003

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


class Condition(StrEnum):
    """What an agent on its machine sees of a server's processes."""

    RUNNING = "running"
    PAUSED = "paused"
    """Stopped by a signal."""
    FULL = "full"
    """It may not write files: its disk is full."""
    TAKEN_DOWN = "taken down"
    """By `take_down`, and not started since."""
    DEAD = "dead"
    """By a kill, or for a reason of its own."""


class Killed(SystemFailure):
    """What worked on a server's files was killed: its machine is down, and stays so until it is restarted."""


class Server:
    """One member. `folder` must not exist; its parent must be reachable for the user of Postgres."""

    def __init__(self, member: str, folder: Path, port: int, binaries: Path, log: Path) -> None:
        self.member = member
        self.data = folder
        self.port = port
        self._binaries = binaries
        self._log = log
        self._uid = run_as()
        self._unfinished = folder.with_name(f"{folder.name}.unfinished")
        """There while its files are being replaced: what is left if that is cut short is of no use."""
        self._tool: Child | None = None
        self._taken_down = False
        self.child: Child | None = None
        self.lock = asyncio.Lock()
        """Held by whoever starts it, stops it or rewrites its files."""

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def was_primary(self) -> bool:
        """Whether it would start as a primary."""
        return not (self.data / "standby.signal").exists()

    @property
    def has_data(self) -> bool:
        """Whether it has files that it can start from."""
        return (self.data / "PG_VERSION").exists() and not self._unfinished.exists()

    def condition(self) -> Condition:
        child = self.child
        if child is None or not child.pids():
            return Condition.TAKEN_DOWN if self._taken_down else Condition.DEAD
        try:
            paused = psutil.Process(child.pid).status() == psutil.STATUS_STOPPED
            soft, hard = file_size_limits(child.pid)
        except (psutil.NoSuchProcess, ProcessLookupError):
            return Condition.DEAD
        if paused:
            return Condition.PAUSED
        # A full disk is staged by this limit on its processes; those started anew would not have it.
        return Condition.RUNNING if soft == hard else Condition.FULL

    @property
    def taken_down(self) -> bool:
        """By `take_down`, and neither started nor killed since."""
        return self._taken_down

    async def initialize(self) -> None:
        """An empty data directory."""
        self._make_folder()
        await self._run(
            "initdb", "-D", str(self.data), "-U", "postgres", "-A", "trust", "-E", "UTF8",
            "--locale-provider=builtin", "--locale=C.UTF-8", "--no-sync", "--no-instructions",
        )  # fmt: skip
        with (self.data / "postgresql.conf").open("a") as file:
            file.writelines(f"{name} = '{value}'\n" for name, value in SETTINGS.items())
        with (self.data / "pg_hba.conf").open("a") as file:
            file.write("host replication all 127.0.0.1/32 trust\n")

    async def clone(self, source: Source, *, create_slot: bool = True) -> None:
        """A copy of the server at `source` that will follow it; what was in the folder is removed."""
        self._unfinished.touch()
        await asyncio.to_thread(shutil.rmtree, self.data, True)
        self._make_folder()
        await self._run(
            "pg_basebackup", "-D", str(self.data), "-d", source.conninfo(), "-R", "-X", "stream",
            "-c", "fast", "-S", slot(self.member), "--no-sync", *(["-C"] if create_slot else []),
        )  # fmt: skip
        self._unfinished.unlink()

    async def rewind(self, source: Source) -> None:
        """Make a stopped server, whatever it wrote of its own, one that follows `source`.

        Raises:
            Killed: the program was.
            SystemFailure: it failed; the server's files are of no use any more.
        """
        self._unfinished.touch()
        await self._run(
            "pg_rewind", "-D", str(self.data), f"--source-server={source.conninfo()}", "-R", "--no-sync"
        )
        with (self.data / "postgresql.auto.conf").open("a") as file:
            # The settings were copied from the source: its slot, its replicas, perhaps a fence.
            file.write(
                f"primary_slot_name = '{slot(self.member)}'\nprimary_conninfo = '{source.conninfo()}'\n"
                "synchronous_standby_names = ''\ndefault_transaction_read_only = off\n"
            )
        self._unfinished.unlink()

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
        finally:
            # One that has ended by itself is still what was taken down.
            self._taken_down = self._taken_down and (self.child.returncode or 0) > 0

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

    async def take_down(self) -> None:
        """Fast shutdown by its own machine. One that is paused meanwhile is waited for, not woken.

        Raises:
            Killed: somebody killed it.
            SystemFailure: it does not run as it should; nothing was done.
        """
        child = self.child
        condition = self.condition()
        if child is None or condition is not Condition.RUNNING:
            raise SystemFailure(f"{self.member} is {condition} and was not stopped.")
        os.kill(child.pid, signal.SIGINT)
        end = time.monotonic() + _STOP_S
        given_up = False
        while child.returncode is None:
            if time.monotonic() > end:
                if self.condition() is Condition.PAUSED:
                    end = time.monotonic() + _STOP_S
                else:
                    given_up = True
                    child.kill()
            await asyncio.sleep(_POLL_S)
        if child.returncode and not given_up:
            raise Killed(f"{self.member} was killed while it stopped.")
        self._taken_down = True

    def pids(self) -> list[int]:
        """All its live processes, and those of the program that rewrites its files."""
        return [pid for child in (self.child, self._tool) if child is not None for pid in child.pids()]

    def kill(self) -> None:
        self._taken_down = False
        for child in (self.child, self._tool):
            if child is not None:
                child.kill()

    def log_tail(self) -> str:
        return "" if self.child is None else self.child.log_tail(15)

    def _make_folder(self) -> None:
        self.data.mkdir(mode=0o700, exist_ok=True)
        if self._uid is not None:
            os.chown(self.data, self._uid, self._uid)

    def _environment(self) -> dict[str, str]:
        return {"PATH": os.environ.get("PATH", ""), "LC_ALL": "C", "TZ": "UTC"}

    async def _run(self, name: str, *arguments: str) -> None:
        command = [str(self._binaries / name), *arguments]
        log = self._log.with_name(f"{self._log.stem}-tools.log")
        tool = Child(command, log, self._environment(), cwd=Path("/"), uid=self._uid)
        self._tool = tool

        async def ended() -> bool:
            return tool.returncode is not None

        try:
            await wait_until(name, ended, _TOOL_S, pause_s=_POLL_S)
        except TimeoutError:
            raise SystemFailure(f"{name} for {self.member} did not end within {_TOOL_S} s.") from None
        finally:
            self._tool = None
            if tool.returncode is None:
                tool.kill()
        code = tool.returncode or 0
        if code < 0:
            self._taken_down = False
            raise Killed(f"{name} for {self.member} was killed.")
        if code:
            raise SystemFailure(f"{name} for {self.member} failed: {tool.log_tail(15)}")
