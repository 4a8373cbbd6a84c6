"""Puts a fetched snapshot in the place of a node's files, at once or not at all.

DIR/incoming/ID/         a snapshot being fetched: `manifest` and `files/`
DIR/install.json         its existence is the decision: this snapshot is installed, whatever happens
DIR/replaced/ID/         the node's files of before, until all is done

`decide` is called by a running node, which then ends; `finish` before anything else is opened, by the node
that starts next, be it the same process or, after a kill, another. Each step may be repeated.
"""

from __future__ import annotations

import json
import logging
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, cast

from cluster.errors import Fault
from cluster.failpoint import failpoint
from cluster.lock import DirectoryLock
from cluster.snapshot import files
from cluster.snapshot.manifest import CHROMA, STATE, Manifest, is_name

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

log = logging.getLogger(__name__)

_MARKER: Final = "install.json"
#: How far this node's Chroma may be ahead of what is marked as applied; for `Applier`.
_AHEAD: Final = "ahead"
#: A child process with Chroma that outlived its parent ends with the write that it is in.
_ENGINE_LOCK: Final = "ENGINE.LOCK"
_ENGINE_WAIT_S: Final = 30.0
#: First what belongs to the state file: a new one must never lie beside the log of an old one.
_STATE_FILES: Final = (f"{STATE}-wal", f"{STATE}-shm", f"{STATE}-journal", STATE)


@dataclass(frozen=True, slots=True)
class Installed:
    """What was installed, and whether the log goes on from its own entries."""

    manifest: Manifest
    log_was_reset: bool


def incoming(directory: Path) -> Path:
    """Where snapshots are fetched to."""
    return directory / "incoming"


def is_decided(directory: Path) -> bool:
    """Whether a snapshot is to be installed before the node may start."""
    return (directory / _MARKER).exists()


def ahead(directory: Path) -> int:
    """`Manifest.ahead` of the snapshot that was installed last; 0 if there was none."""
    try:
        return int((directory / _AHEAD).read_bytes())
    except (FileNotFoundError, ValueError):
        return 0


def decide(directory: Path, snapshot_id: str) -> None:
    """From here on the snapshot in DIR/incoming/ID, which is whole and durable, is this node's state.

    Raises:
        OSError: it was not decided.
    """
    failpoint("install.before_decision")
    files.write_durably(directory / _MARKER, json.dumps({"id": snapshot_id}).encode())
    failpoint("install.decided")


def finish(directory: Path, reset_log: Callable[[Manifest], bool | None]) -> Installed | None:
    """Install what was decided, None if there is nothing; to be called with the directory's lock, before
    anything in it is opened. `reset_log` lets the log go on from the snapshot and says whether it discarded
    it; None: the log begins later, so that the snapshot is of no use and is dropped.

    Raises:
        Fault: it cannot be finished now; the next start tries again. Nothing is served meanwhile.
    """
    marker = directory / _MARKER
    try:
        if not marker.exists():
            if (directory / "replaced").exists():
                _tidy(directory)
            return None
        fetched = incoming(directory) / _read(marker)
        manifest = Manifest.decode((fetched / "manifest").read_bytes())
        _wait_for_engine(directory)
        was_reset = reset_log(manifest)
        failpoint("install.log_reset")
        if was_reset is not None:
            files.write_durably(directory / _AHEAD, b"%d" % manifest.ahead)
            _swap(directory, fetched / "files", directory / "replaced" / manifest.name)
            failpoint("install.swapped")
            # Snapshots of the state that was here before are of no use to anybody.
            files.remove(directory / "snapshots")
        files.remove(marker)
        files.sync_directory(directory)
        failpoint("install.done")
        _tidy(directory)
    except (OSError, ValueError) as error:
        raise Fault(
            f"A snapshot is to be installed in {directory}, and that failed: {error}. The node's earlier "
            "files are there or in `replaced/`. Mend what the reason names and start the node again: it goes "
            "on where it was. Or move the whole directory away: then the others fill the node anew."
        ) from None
    if was_reset is None:
        log.warning("snapshot %s is older than the log here, and was dropped", manifest.name)
        return None
    log.info("snapshot %s of %s is installed, index %d", manifest.name, manifest.node_id, manifest.index)
    return Installed(manifest, was_reset)


def _tidy(directory: Path) -> None:
    """An install is done. What was replaced goes last: it says that this is still to be done."""
    files.remove(incoming(directory))
    files.remove(directory / "replaced")


def _read(marker: Path) -> str:
    said: Any = json.loads(marker.read_bytes())
    name: Any = cast("dict[str, Any]", said).get("id") if isinstance(said, dict) else None
    if not is_name(name):
        raise ValueError(f"{marker} names no snapshot")
    return str(name)


def _swap(directory: Path, fetched: Path, replaced: Path) -> None:
    """A name that is still among the fetched files has its old file here, or is about to get its new one."""
    replaced.mkdir(parents=True, exist_ok=True)
    files.sync_directory(directory)
    if (fetched / STATE).exists():
        for name in _STATE_FILES:
            _set_aside(directory / name, replaced / name)
        failpoint("install.state_set_aside")
        files.move(fetched / STATE, directory / STATE)
    failpoint("install.state_placed")
    if (fetched / CHROMA).exists():
        _set_aside(directory / CHROMA, replaced / CHROMA)
        failpoint("install.chroma_set_aside")
        files.move(fetched / CHROMA, directory / CHROMA)


def _set_aside(path: Path, to: Path) -> None:
    if path.exists():
        files.move(path, to)


def _wait_for_engine(directory: Path) -> None:
    until = time.monotonic() + _ENGINE_WAIT_S
    while True:
        try:
            DirectoryLock(directory, _ENGINE_LOCK).release()
            return
        except Fault as fault:
            if "in use by" not in fault.message or time.monotonic() > until:
                raise
        time.sleep(0.02)
