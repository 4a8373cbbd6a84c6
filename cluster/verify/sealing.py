"""Whether somebody else changed this node's Chroma directory while the node was stopped.

A node that stops in order notes how its files are; one that starts compares. Opening the directory with a
plain Chroma, which may write, breaks the seal even if nothing is changed: then a verification says so. A node
that was killed leaves no seal, and draws no conclusion.

Beside that it is noted with which version of chromadb the files were last known to be right: another version
may migrate them when it opens them.
"""

from __future__ import annotations

import json
import logging
import os
import tempfile
from pathlib import Path
from typing import Any, Final, cast

log = logging.getLogger(__name__)

_FILE: Final = "chroma.seal"
_VERSION: Final = "chroma.version"


class Seal:
    """The note of one node; lives from before its Chroma is opened until after it is closed."""

    def __init__(self, data_dir: Path, version: str | None = None) -> None:
        """Compare; to be called before Chroma, of this `version`, is opened.

        What agrees is taken away, for from now on this node writes. What does not stays until `settle`, so
        that a restart does not forget it.
        """
        self._path = data_dir / _FILE
        self._directory = data_dir / "chroma"
        self._version_path = data_dir / _VERSION
        self._version = version
        self._doubts = self._compare_version() or self._compare()

    @property
    def doubts(self) -> str | None:
        """Why what this node has is not to be trusted before it was verified, or None."""
        return self._doubts

    def doubt(self, why: str) -> None:
        """What is there is not to be trusted before it was verified, also after a restart."""
        self._doubts = why
        try:
            self._path.write_text("{}")
        except OSError as error:
            log.warning("%s cannot be written: %s", self._path, error)

    def settle(self) -> None:
        """A verification has looked at everything since."""
        if self._doubts is not None:
            self._doubts = None
            self._remove()
            self._note_version()

    def _compare_version(self) -> str | None:
        """What was opened with another version stays in doubt until `settle`, also after a restart."""
        try:
            former = self._version_path.read_text().strip()
        except FileNotFoundError:
            self._note_version()
            return None
        except (OSError, ValueError) as error:
            former = f"unknown ({error})"
        if self._version is None or former == self._version:
            return None
        found = (
            f"The files of this node's Chroma are of chromadb {former} and are opened by chromadb "
            f"{self._version}, which may migrate them: it is being compared with the others."
        )
        log.warning("%s", found)
        return found

    def _note_version(self) -> None:
        if self._version is None:
            return
        try:
            self._version_path.write_text(self._version)
        except OSError as error:
            log.warning("the version of Chroma cannot be noted: %s", error)

    def apply(self) -> None:
        """Note how the files are; to be called when Chroma is closed. A failure is no harm."""
        if self._doubts is not None:
            return
        try:
            handle, name = tempfile.mkstemp(dir=self._path.parent, prefix=f".{_FILE}.")
            with os.fdopen(handle, "w") as file:
                json.dump(_files(self._directory), file)
            os.replace(name, self._path)
        except OSError as error:
            log.warning("how the files of Chroma are cannot be noted: %s", error)

    def _compare(self) -> str | None:
        try:
            sealed: Any = json.loads(self._path.read_text())
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            return f"How the files of this node's Chroma were when it stopped cannot be read ({error})."
        found = _files(self._directory)
        if sealed == found:
            self._remove()
            return None
        known = cast("dict[str, Any]", sealed) if isinstance(sealed, dict) else {}
        changed = sorted(name for name in {*known, *found} if known.get(name) != found.get(name))
        return (
            f"Files of this node's Chroma were changed while it was stopped ({', '.join(changed[:3])}"
            f"{', ...' if len(changed) > 3 else ''}): it is being compared with the others."
        )

    def _remove(self) -> None:
        try:
            self._path.unlink(missing_ok=True)
        except OSError as error:
            log.warning("%s cannot be removed: %s", self._path, error)


def forget(data_dir: Path) -> None:
    """The files were replaced by this node itself: what was noted says nothing about them."""
    for name in (_FILE, _VERSION):
        (data_dir / name).unlink(missing_ok=True)


def _files(directory: Path) -> dict[str, list[int]]:
    """Size and time of change of every file, by its path in the directory."""
    found: dict[str, list[int]] = {}
    for folder, _, names in os.walk(directory):
        for name in names:
            path = Path(folder, name)
            status = path.stat()
            found[str(path.relative_to(directory))] = [status.st_size, status.st_mtime_ns]
    return found
