"""What is known to be wrong with this node's copy; on disk, for a restart makes no wrong copy right."""

from __future__ import annotations

import json
import logging
import os
import tempfile
import threading
from typing import TYPE_CHECKING, Any, Final, cast

from cluster.errors import Fault, Unavailable
from cluster.verify.digest import NODE

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

log = logging.getLogger(__name__)

FILE: Final = "alarms.json"
_REPAIRS: Final = "repairs.json"
#: With these, what a listing of collections says of them is wrong as well.
_OF_COLLECTIONS: Final = frozenset({"name", "metadata", "configuration", "dimension", "unreadable"})


class Alarms:
    """The collections of which this node has a copy that differs, and in what; thread-safe.

    The file is written before anything is told, and a file that cannot be read is an alarm about everything.
    """

    def __init__(self, path: Path) -> None:
        """Read what an earlier process of this node knew."""
        self._path = path
        self._lock = threading.Lock()
        self._alarms: dict[str, dict[str, Any]] = {}
        try:
            self._alarms = _decode(path.read_text())
        except FileNotFoundError:
            pass
        except (OSError, ValueError) as error:
            trouble = f"{path} cannot be read ({error})"
            self._alarms = {NODE: {"parts": ["replicated state"], "trouble": trouble}}

    @property
    def raised(self) -> dict[str, dict[str, Any]]:
        """What differs, by the cluster's id of the collection, or `NODE`."""
        return dict(self._alarms)

    def conclude(
        self, differs: Mapping[str, dict[str, Any]], equal: Iterable[str], known: Iterable[str] | None = None
    ) -> None:
        """A verification found this node's copies of some collections to differ, and of others to be equal.

        `known` are the collections that there are: alarms about others are over. What is in none
        of them stays.

        Raises:
            Fault: it cannot be made durable; it counts all the same, until this process ends.
        """
        with self._lock:
            before = self._alarms
            over = set(equal)
            kept = {
                name: alarm
                for name, alarm in before.items()
                if name not in over and (known is None or name == NODE or name in known)
            }
            after = kept | dict(differs)
            self._alarms = after
            if after != before:
                self._write(after)
        for name in after.keys() - before.keys():
            log.error("this node's copy of %s differs: %s", _named(name), json.dumps(after[name]))
        for name in before.keys() - after.keys():
            log.warning("this node's copy of %s is equal to the others' again", _named(name))

    def clear(self) -> None:
        """All of this node's data was replaced by another node's.

        Raises:
            Fault: the file cannot be removed.
        """
        self.conclude({}, tuple(self._alarms))

    def may_repair(self, now: float, times: int, window_s: float) -> bool:
        """Whether this node may be repaired by itself once more at `now` (seconds, wall clock): it was less
        than so many `times` within the window. It is noted, and the note outlasts the repair."""
        path = self._path.with_name(_REPAIRS)
        with self._lock:
            try:
                known: Any = json.loads(path.read_text())
                earlier = [float(at) for at in known if now - window_s < float(at) <= now]
            except FileNotFoundError:
                earlier = []
            except (OSError, ValueError, TypeError):
                return False
            if len(earlier) >= times:
                return False
            try:
                path.write_text(json.dumps([*earlier, now]))
            except OSError:
                return False
            return True

    def require_equal(self, collection_id: str | None) -> None:
        """Whether this node may be read from: of a collection, or (None) of the list of collections.

        Raises:
            Unavailable: its copy is known to differ; another node is to be asked.
        """
        alarms = self._alarms
        if not alarms:
            return
        if NODE in alarms or collection_id in alarms:
            raise _refusal(collection_id)
        if collection_id is None and any(
            _OF_COLLECTIONS & set(alarm.get("parts", ())) for alarm in alarms.values()
        ):
            raise _refusal(None)

    @property
    def reason(self) -> str | None:
        """What is wrong, in a sentence; None: nothing is known to be."""
        alarms = self._alarms
        if not alarms:
            return None
        told = "; ".join(
            f"{_named(name)} ({', '.join(alarm.get('parts', ()))})" for name, alarm in sorted(alarms.items())
        )
        undecided = any(alarm.get("undecided") for alarm in alarms.values())
        whose = (
            "No majority says which copy is right, so none is served."
            if undecided
            else "It serves no reads of that; the other nodes do."
        )
        return f"A verification found this node's copy to differ: {told}. {whose}"

    def _write(self, alarms: dict[str, dict[str, Any]]) -> None:
        try:
            if not alarms:
                self._path.unlink(missing_ok=True)
            else:
                handle, name = tempfile.mkstemp(dir=self._path.parent, prefix=f".{FILE}.")
                with os.fdopen(handle, "w") as file:
                    json.dump(alarms, file)
                    file.flush()
                    os.fsync(file.fileno())
                os.replace(name, self._path)
            _sync_directory(self._path.parent)
        except OSError as error:
            raise Fault(
                f"What a verification found cannot be kept in {self._path}: {error}. It counts until this "
                "node is restarted; make room or the directory writable, then verify again."
            ) from None


def _decode(text: str) -> dict[str, dict[str, Any]]:
    found: Any = json.loads(text)
    if not isinstance(found, dict):
        raise ValueError("it holds no alarms")
    alarms = cast("dict[str, Any]", found)
    if not all(isinstance(alarm, dict) for alarm in alarms.values()):
        raise ValueError("it holds no alarms")
    return alarms


def _named(collection_id: str) -> str:
    return "the node's own state" if collection_id == NODE else f"collection {collection_id}"


def _refusal(collection_id: str | None) -> Unavailable:
    what = "the list of collections" if collection_id is None else f"collection {collection_id}"
    return Unavailable(
        f"This node's copy of {what} is known to differ from the other nodes'. Nothing was read; ask another "
        "node. `chroma-cluster repair` makes this one equal again."
    )


def _sync_directory(directory: Path) -> None:
    fd = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
