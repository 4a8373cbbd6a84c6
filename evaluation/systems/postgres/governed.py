"""One Postgres server that Patroni starts, promotes, rewinds and copies: both processes, and their folder.

Patroni keeps its view of the cluster in a Raft log of its own (`raft`), so that there is no other service.
That log's nodes know each other by their exact addresses, and replicas dial the one address that the primary
announces: neither can be led through a proxy for each pair.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import orjson
import psutil

from evaluation.failure import SystemFailure
from evaluation.processes import Child, free_port
from evaluation.systems.postgres.programs import reachable, run_as
from evaluation.systems.postgres.servers import SETTINGS, Server

if TYPE_CHECKING:
    from collections.abc import Sequence

#: Patroni's least; a leader that says nothing for so long is replaced.
TTL_S: Final = 20
LOOP_WAIT_S: Final = 3
#: Patroni wants LOOP_WAIT_S + 2 * RETRY_TIMEOUT_S to be no more than TTL_S.
RETRY_TIMEOUT_S: Final = 5
_ENVIRONMENT: Final = Path(__file__).parents[3] / ".cache" / "patroni"
_KILL_S: Final = 10.0


def installed() -> bool:
    """Whether there is a Patroni."""
    return (_ENVIRONMENT / ".installed").exists()


def interpreter(scratch: Path) -> Path:
    """The Python that has Patroni; copied below `scratch` if it cannot be reached where it is.

    Raises:
        SystemFailure: there is none, or not for the user of Postgres.
    """
    if not installed():
        raise SystemFailure("Patroni is not installed; nothing was started. Call: make patroni")
    python = _ENVIRONMENT / "bin" / "python"
    real = python.resolve()
    if not reachable(real, run_as()):
        raise SystemFailure(
            f"Postgres and Patroni do not run as root, and another user cannot reach {real}; nothing was "
            "started. Call: rm -r .cache/patroni; make PATRONI_PYTHON=/usr/bin/python3 patroni"
        )
    if reachable(_ENVIRONMENT / "pyvenv.cfg", run_as()):
        return python
    copied = scratch / "patroni"
    if not copied.exists():
        shutil.copytree(_ENVIRONMENT, copied, symlinks=True)
    return copied / "bin" / "python"


class Governed(Server):
    """One member. `folder` holds its data, its part of the Raft log and its configuration."""

    def __init__(self, member: str, folder: Path, binaries: Path, python: Path, log: Path) -> None:
        super().__init__(member, folder / "postgres", free_port(), binaries, log)
        self.folder = folder
        self.raft = f"127.0.0.1:{free_port()}"
        self._rest = f"127.0.0.1:{free_port()}"
        self._python = python
        self._partners: Sequence[str] = ()
        self._known: dict[int, psutil.Process] = {}

    @property
    def url(self) -> str:
        """Patroni's REST API."""
        return f"http://{self._rest}"

    def join(self, members: Sequence[Governed]) -> None:
        """Tell it of all members, once they have their ports."""
        self._partners = [one.raft for one in members if one is not self]

    def launch(self) -> None:
        """Start Patroni and do not wait: it needs a majority to begin with anything."""
        configuration = self.folder / "patroni.yml"
        for folder in (self.folder, self.folder / "raft"):
            folder.mkdir(mode=0o700, exist_ok=True)
            self._give(folder)
        # YAML holds JSON.
        configuration.write_bytes(orjson.dumps(self._settings(), option=orjson.OPT_INDENT_2))
        self._give(configuration)
        # As after a crash of its machine: no process has this id, not even one that nobody reaped.
        (self.data / "postmaster.pid").unlink(missing_ok=True)
        self._known.clear()
        self.child = Child(
            [str(self._python), "-m", "patroni", str(configuration)],
            self._log,
            self._environment(),
            cwd=Path("/"),
            uid=self._uid,
        )

    async def start(self) -> None:
        """Launch it, without waiting; see `answers`."""
        self.launch()

    def agent_pids(self) -> list[int]:
        """Patroni's own process."""
        return [pid for pid in super().pids() if self.child is not None and pid == self.child.pid]

    def pids(self) -> list[int]:
        """Patroni, what it runs, and Postgres, which is not its child but init's."""
        found = super().pids()
        with contextlib.suppress(OSError, ValueError, IndexError, psutil.NoSuchProcess):
            postmaster = psutil.Process(int((self.data / "postmaster.pid").read_text().split()[0]))
            for process in (postmaster, *postmaster.children(recursive=True)):
                self._known.setdefault(process.pid, process)
        return [*found, *(pid for pid, one in self._known.items() if pid not in found and _lives(one))]

    def kill(self) -> None:
        """All at once. Patroni first: it would start Postgres again."""
        end = time.monotonic() + _KILL_S
        while left := self.pids():
            for pid in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            if time.monotonic() > end:
                raise TimeoutError(f"processes {left} of {self.member} outlive SIGKILL")
            time.sleep(0.02)
        super().kill()

    async def stop(self) -> None:
        """Nothing of it is needed any more."""
        await asyncio.to_thread(self.kill)

    def _give(self, path: Path) -> None:
        if self._uid is not None:
            os.chown(path, self._uid, self._uid)

    def _settings(self) -> dict[str, Any]:
        parameters = {name: value for name, value in SETTINGS.items() if name != "listen_addresses"}
        user = {"username": "postgres"}
        return {
            "scope": "evaluation",
            "name": self.member,
            "restapi": {"listen": self._rest, "connect_address": self._rest},
            "raft": {
                "data_dir": str(self.folder / "raft"),
                "self_addr": self.raft,
                "partner_addrs": list(self._partners),
            },
            "bootstrap": {
                "dcs": {
                    "ttl": TTL_S,
                    "loop_wait": LOOP_WAIT_S,
                    "retry_timeout": RETRY_TIMEOUT_S,
                    "postgresql": {"use_pg_rewind": True, "use_slots": True, "parameters": parameters},
                },
                "initdb": [
                    {"auth": "trust"},
                    {"encoding": "UTF8"},
                    {"locale-provider": "builtin"},
                    {"locale": "C.UTF-8"},
                    "no-instructions",
                ],
            },
            "postgresql": {
                "listen": self.address,
                "connect_address": self.address,
                "data_dir": str(self.data),
                "bin_dir": str(self._binaries),
                "pgpass": str(self.folder / "pgpass"),
                "authentication": {"superuser": user, "replication": user},
                "parameters": parameters,
                "pg_hba": [
                    "host all all 127.0.0.1/32 trust",
                    "host replication all 127.0.0.1/32 trust",
                ],
                "basebackup": [{"checkpoint": "fast"}],
                # What cannot be rewound is copied anew, without its operator.
                "remove_data_directory_on_rewind_failure": True,
                "remove_data_directory_on_diverged_timelines": True,
            },
            "watchdog": {"mode": "off"},
        }


def _lives(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
