"""Who may look at a collection: readers together, or the one write, and nobody while a write is half done.

Chroma keeps a collection in two stores, metadata in SQLite and vectors in an index, and a call changes one
after the other: a read beside it may find some records new and some old, or the parts of one record. A
write too large for one call takes several. So nobody reads a collection while a call changes it, nobody
reads it between the calls of one write, and nobody reads it after a call that failed, until it is known what
the call left (`cluster.apply.veil`).
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections import Counter
from typing import TYPE_CHECKING

from cluster.errors import EngineUnavailable, Hidden, Refusal, Unavailable

if TYPE_CHECKING:
    from collections.abc import Generator


class Gate:
    """One gate for each collection; thread-safe. One thread writes, any number read.

    A writer that waits goes before readers that come after it: a collection that is read without pause
    is written all the same. What is read while the writer's own thread has the gate is its own business.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._reading: Counter[str] = Counter()
        self._writing: str | None = None
        self._writer: threading.Thread | None = None
        self._hidden: str | None = None

    @contextlib.contextmanager
    def reading(self, collection_id: str, timeout_s: float) -> Generator[None]:
        """Read the collection as whole writes left it.

        Raises:
            Hidden: a write is half done, or failed; nobody waits here for the end of that.
            Unavailable: a call takes longer than `timeout_s`; nothing was read.
        """
        own = self._writer == threading.current_thread()
        with self._changed:
            if not own:
                self._wait_to_read(collection_id, timeout_s)
            self._reading[collection_id] += 1
        try:
            yield
        finally:
            with self._changed:
                self._reading[collection_id] -= 1
                if not self._reading[collection_id]:
                    del self._reading[collection_id]
                    self._changed.notify_all()

    def _wait_to_read(self, collection_id: str, timeout_s: float) -> None:
        until = time.monotonic() + timeout_s
        while collection_id in (self._writing, self._hidden):
            if collection_id == self._hidden:
                raise Hidden(
                    "A write to this collection is half done here. Nothing was read; ask another node, or "
                    "try again."
                )
            left = until - time.monotonic()
            if left <= 0:
                raise Unavailable(
                    f"A large write to this collection is being applied here for more than {timeout_s:g} s."
                    " Nothing was read; ask another node or try again."
                )
            self._changed.wait(left)

    @contextlib.contextmanager
    def writing(self, collection_id: str | None) -> Generator[None]:
        """Change the collection (None: no collection's records): waits until those who read it are done.

        If that fails, and not because the engine refused it or did not begin it, a part of it may be done:
        then nobody reads the collection until `hide` says who may.
        """
        if collection_id is None:
            yield
            return
        with self._changed:
            self._writer = threading.current_thread()
            self._writing = collection_id
            self._changed.wait_for(lambda: not self._reading[collection_id])
        doubtful = True
        try:
            yield
            doubtful = False
        except (Refusal, EngineUnavailable):
            doubtful = False
            raise
        finally:
            with self._changed:
                if doubtful:
                    self._hidden = collection_id
                self._writing = None
                self._changed.notify_all()

    def hide(self, collection_id: str | None) -> None:
        """From now on nobody reads this collection, and every other one may be read; None: all may be."""
        with self._changed:
            self._hidden = collection_id
            self._changed.notify_all()
