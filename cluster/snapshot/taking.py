"""Takes snapshots of this node: DIR/snapshots/ID/ with `manifest` and `files/`.

The applier stands still between two entries while the files are copied (`cluster.apply.visits`); sums and
fsyncs come after that. Chroma writes to its directory only within the calls of the applier, and when it is
opened, which may happen at any time, because its process is started again when it dies: so the files are
looked at before and after, and copied again if one has changed.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from cluster.disk import space_at
from cluster.errors import ClusterError, Fault, Unavailable
from cluster.failpoint import failpoint
from cluster.snapshot import files
from cluster.snapshot.manifest import CHROMA, STATE, File, Manifest

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future
    from pathlib import Path

log = logging.getLogger(__name__)

#: Free bytes that a snapshot leaves on the disk.
_MARGIN: Final = 64 * 1024 * 1024
_ATTEMPTS: Final = 5
#: A change within one tick of the kernel's clock does not show in a file's time.
_TICK_NS: Final = 25_000_000
_JOURNAL: Final = "chroma.sqlite3-journal"
#: How long a snapshot that nobody fetches is kept, and how long after it was last asked for.
_KEEP_S: Final = 600.0
_LEASE_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class Source:
    """What a snapshot is taken of. `visit` is `Visits.ask` of the applier; `copy_state` writes the state file
    anew to a path; `term_at` and `configuration_at` say what the log has at an applied index, `ahead` how far
    Chroma may be ahead of that."""

    directory: Path
    cluster_id: str
    node_id: str
    visit: Callable[[Callable[[int], Copied], int | None], Future[Copied]]
    copy_state: Callable[[Path], None]
    term_at: Callable[[int], int]
    configuration_at: Callable[[int], bytes] = lambda index: b""
    ahead: Callable[[], int] = lambda: 0
    on_taken: Callable[[int], None] = lambda size: None


@dataclass(frozen=True, slots=True)
class Copied:
    """Files that were copied while the applier stood still, for `seconds`; not summed and not durable."""

    directory: Path
    index: int
    term: int
    configuration: bytes
    ahead: int
    seconds: float


class Taker:
    """Thread-safe. `clock` counts seconds, `name` makes names that were never used before."""

    def __init__(
        self,
        source: Source,
        *,
        clock: Callable[[], float] = time.monotonic,
        name: Callable[[], str] = lambda: os.urandom(6).hex(),
    ) -> None:
        self._source = source
        self._folder = source.directory / "snapshots"
        self._clock = clock
        self._name = name
        self._one_at_a_time = threading.Lock()
        self._lock = threading.Lock()
        self._held: dict[str, Manifest] = {}
        self._asked_s: dict[str, float] = {}
        self.pause_s = 0.0
        """For how long the applier stood still for the last one."""
        self._load()

    def _load(self) -> None:
        """Keep the snapshots of an earlier process, and remove what it did not finish."""
        if not self._folder.is_dir():
            return
        for folder in sorted(self._folder.iterdir()):
            try:
                manifest = Manifest.decode((folder / "manifest").read_bytes())
                whose = (manifest.name, manifest.cluster_id, manifest.node_id)
                if whose != (folder.name, self._source.cluster_id, self._source.node_id):
                    raise ValueError("it is another's")
            except (OSError, ValueError):
                files.remove(folder)
            else:
                self._held[manifest.name] = manifest
                self._asked_s[manifest.name] = self._clock()

    # ------------------------------------------------------------------ looking

    def newest(self) -> Manifest | None:
        """The snapshot that is kept, if there is one."""
        with self._lock:
            return max(self._held.values(), key=lambda it: it.index, default=None)

    def find(self, snapshot_id: str) -> Manifest | None:
        """A snapshot that is still kept; from now on it is kept for a while longer."""
        with self._lock:
            found = self._held.get(snapshot_id)
            if found is not None:
                self._asked_s[snapshot_id] = self._clock()
            return found

    def path_of(self, snapshot_id: str, file: File) -> Path:
        """Where a file of a snapshot lies."""
        return self._folder / snapshot_id / "files" / file.path

    # ------------------------------------------------------------------ taking

    def take(self, *, at: int | None = None, timeout_s: float = 30.0) -> Manifest:
        """Take one now, or exactly at the log index `at`; not on the applier's thread, for it is waited for.

        Raises:
            Unavailable: the applier did not come to a place for it in time or is past `at`; no room.
            Fault: the files cannot be copied.
        """
        with self._one_at_a_time:
            self._require_room()
            asked = self._source.visit(self.copy, at)
            try:
                copied = asked.result(timeout_s)
            except TimeoutError:
                if not asked.cancel():  # it has begun: it ends by itself
                    copied = asked.result()
                else:
                    raise Unavailable(
                        f"The applier of {self._source.node_id} did not come to the end of an entry within "
                        f"{timeout_s:.0f} s, so no snapshot was taken. Nothing was changed; try again later."
                    ) from None
            return self.seal(copied)

    def copy(self, index: int) -> Copied:
        """Copy the files, on the applier's thread, which has applied all up to `index` and nothing after it.

        Raises:
            Fault: the files cannot be copied, or somebody changes them.
        """
        began = self._clock()
        source = self._source
        taken = self._folder / f".{self._name()}"
        term, configuration, ahead = source.term_at(index), source.configuration_at(index), source.ahead()
        try:
            (taken / "files").mkdir(parents=True)
            self._copy_chroma(taken / "files" / CHROMA)
            failpoint("snapshot.copied_chroma")
            source.copy_state(taken / "files" / STATE)
        except OSError as error:
            files.remove(taken)
            raise Fault(f"No snapshot was taken: {error}. Nothing else was changed.") from None
        except ClusterError:
            files.remove(taken)
            raise
        self.pause_s = self._clock() - began
        return Copied(taken, index, term, configuration, ahead, self.pause_s)

    def _copy_chroma(self, target: Path) -> None:
        source = self._source.directory / CHROMA
        for _ in range(_ATTEMPTS):
            files.remove(target)
            target.mkdir()
            with contextlib.suppress(FileNotFoundError):
                paths = files.listed(source)
                newest = max((seen[2] for seen in files.looks(source, paths).values()), default=0)
                if 0 <= time.time_ns() - newest <= _TICK_NS:
                    time.sleep(_TICK_NS / 1e9)
                before = files.looks(source, paths)
                for path in paths:
                    (target / path).parent.mkdir(parents=True, exist_ok=True)
                    files.copy(source / path, target / path)
                found = files.listed(source)
                if _JOURNAL not in before and found == paths and files.looks(source, found) == before:
                    return
            time.sleep(2 * _TICK_NS / 1e9)
        raise Fault(
            f"No snapshot was taken: {source} changed again and again while it was copied. Nothing else was "
            "changed; it is tried again when it is asked for."
        )

    def seal(self, copied: Copied) -> Manifest:
        """Sum the files, make them durable, and keep them in place of earlier ones.

        Raises:
            Fault: the disk refused.
        """
        source, taken = self._source, copied.directory
        try:
            listed = tuple(
                File(path, (taken / "files" / path).stat().st_size, files.sum_of(taken / "files" / path))
                for path in files.listed(taken / "files")
            )
            manifest = Manifest(
                f"{copied.index}-{taken.name[1:]}",
                source.cluster_id,
                source.node_id,
                copied.index,
                copied.term,
                copied.configuration,
                copied.ahead,
                listed,
            )
            failpoint("snapshot.copied")
            files.sync_tree(taken / "files")
            files.write_durably(taken / "manifest", manifest.encode())
            files.move(taken, self._folder / manifest.name)
            failpoint("snapshot.sealed")
        except OSError as error:
            files.remove(taken)
            raise Fault(f"No snapshot was taken: {error}. Nothing else was changed.") from None
        with self._lock:
            self._held[manifest.name] = manifest
            self._asked_s[manifest.name] = self._clock()
        log.info(
            "snapshot %s: %d files, %d bytes; the applier stood still for %.0f ms",
            manifest.name,
            len(listed),
            manifest.size,
            copied.seconds * 1000,
        )
        source.on_taken(manifest.size)
        self.tidy()
        return manifest

    def _require_room(self) -> None:
        source = self._source.directory
        needed = files.size_of(source / CHROMA) + _size(source / STATE) + _MARGIN
        space = space_at(source)
        if space is not None and space.free < needed:
            raise Unavailable(
                f"A snapshot needs {needed} bytes, but {space.free} are free at {space.path}. Nothing was "
                "changed; free space there, or let another node give one."
            )

    # ------------------------------------------------------------------ keeping

    def tidy(self) -> None:
        """Remove all but the newest, and that too after a while; nothing that is being fetched."""
        now = self._clock()
        with self._lock:
            newest = max(self._held.values(), key=lambda it: it.index, default=None)
            for name in list(self._held):
                keep_s = _KEEP_S if newest is not None and name == newest.name else _LEASE_S
                if now - self._asked_s[name] > keep_s:
                    del self._held[name], self._asked_s[name]
                    files.remove(self._folder / name)
            is_empty = not self._held
        if is_empty and newest is not None:
            self._source.on_taken(0)


def _size(path: Path) -> int:
    return sum(
        beside.stat().st_size
        for suffix in ("", "-wal")
        if (beside := path.with_name(f"{path.name}{suffix}")).exists()
    )
