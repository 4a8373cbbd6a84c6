"""One collection as it is digested: its ids first, then its records page by page, each of them once."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, Final, cast

from cluster.chroma.digesting import WHOLE_BYTES, bucket_of
from cluster.chroma.interface import RecordDigest
from cluster.errors import ClusterError, EngineDied, Fault, Unavailable
from cluster.verify.digest import CollectionDigest, Tally, header_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cluster.chroma.interface import Inspected

#: Records read at once: some 10 ms of Chroma's time, which a write may have to wait.
_PAGE: Final = 64
#: Stands for a record that cannot be read.
_NO_WHOLE: Final = b"\xff" * WHOLE_BYTES


class Unreadable(ClusterError):
    """So many records in a row cannot be read that the others need not be tried."""


class DigestedCollection:
    """One collection as it is digested; all but `name` under `lock`."""

    def __init__(self, name: str, wanted: frozenset[int] | None) -> None:
        self.name = name
        self.lock = threading.Lock()
        self.left: set[str] = set()
        self.order: list[str] = []
        self._at = 0
        self._unreadable = 0
        self.listed = False
        self.closed = False
        self.header: dict[str, str] = {}
        self.space: str | None = None
        self.tally = Tally()
        self.parts: dict[str, bytes] = {}
        self.trouble: str | None = None
        self.skipped: str | None = None
        self.asked = self.found = 0
        self._wanted = wanted

    def read_list(self, engine: Inspected) -> None:
        """Its header and the ids of its records, if they were not read before a write changed them."""
        if self.listed:
            return
        rendered = engine.collection(self.name)
        ids = engine.ids(self.name)
        self.header = header_of(rendered)
        self.space = _space_of(rendered)
        if self._wanted is not None:
            ids = [name for name in ids if bucket_of(name) in self._wanted]
        self.order, self.left, self.listed = ids, set(ids), True

    def read_records(self, engine: Inspected, ids: Sequence[str], *, one_by_one: bool = False) -> None:
        """Digest those of these records that were there and are not digested yet.

        Of a page that cannot be read all records count as unreadable, or (`one_by_one`) those that cannot.
        """
        due = [name for name in dict.fromkeys(ids) if name in self.left]
        for start in range(0, len(due), _PAGE):
            page = due[start : start + _PAGE]
            digests = self._digest(engine, page, one_by_one=one_by_one)
            self.tally.add(digests)
            if self._wanted is not None:
                self.parts.update({digest.id: digest.parts for digest in digests})
            # What was listed and is not found is missing here: it is not counted, so the sums differ.
            self.left.difference_update(page)

    def _digest(self, engine: Inspected, page: list[str], *, one_by_one: bool) -> list[RecordDigest]:
        try:
            found = engine.digests(self.name, page)
        except (Unavailable, EngineDied, Fault):
            raise
        except ClusterError as error:
            if len(page) == 1 or not one_by_one:
                self._unreadable += len(page)
                if self._unreadable >= _PAGE and one_by_one:
                    raise Unreadable(error.message) from None
                return [RecordDigest(name, _NO_WHOLE, b"") for name in page]
            singly = [self._digest(engine, [name], one_by_one=True) for name in page]
            return [digest for digests in singly for digest in digests]
        self._unreadable = 0
        return found

    def read_page(self, engine: Inspected) -> int:
        """Digest the next page of what is left; how many records that were."""
        page: list[str] = []
        at = self._at
        while at < len(self.order) and len(page) < _PAGE:
            if self.order[at] in self.left:
                page.append(self.order[at])
            at += 1
        self.read_records(engine, page, one_by_one=True)
        self._at = at
        if not self.left:
            self.closed = True
        return len(page)

    def close(self, trouble: str | None = None, skipped: str | None = None) -> None:
        if not self.closed:
            self.trouble, self.skipped, self.closed = trouble, skipped, True
            self.left = set()

    def note(self, error: Exception) -> None:
        """Why it cannot be digested: of itself, or only now."""
        message = error.message if isinstance(error, ClusterError) else f"{type(error).__name__}: {error}"
        if isinstance(error, Unavailable | Fault):
            self.close(skipped=message)
        else:
            self.close(trouble=message)

    def told(self) -> CollectionDigest:
        with self.lock:
            if self.trouble is not None or self.skipped is not None:
                return CollectionDigest(trouble=self.trouble, skipped=self.skipped)
            root = self.tally.root(self.header)
            return CollectionDigest(
                root, self.tally.count, dict(self.header), asked=self.asked, found=self.found
            )


def _space_of(rendered: dict[str, Any]) -> str | None:
    configuration = cast("dict[str, Any]", rendered.get("configuration_json") or {})
    index = cast("dict[str, Any]", configuration.get("hnsw") or {})
    space = index.get("space")
    return space if isinstance(space, str) else None
