"""What a node answers to another that wants a snapshot; lives on the event loop.

    POST /cluster/snapshots {"above": I}           take one, or give one that is kept, of index I at least
    POST /cluster/snapshots {"id": ID}             the manifest of one that is still kept
    POST /cluster/snapshot-part {"id", "file", "offset"}   bytes of the file with this number

All of it is for members: the bodies are proven with the cluster's secret.
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING, Final

from cluster.errors import Refusal, Unavailable
from cluster.failpoint import failpoint
from cluster.snapshot.pace import Limit

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from cluster.snapshot.manifest import Manifest
    from cluster.snapshot.taking import Taker

log = logging.getLogger(__name__)

#: So much of a file goes in one answer, at most.
PART_BYTES: Final = 4 * 1024 * 1024
#: A snapshot that is not older than this is given again.
_FRESH_S: Final = 60.0
_TAKE_S: Final = 30.0
_TIDY_S: Final = 15.0


class Donor:
    """`may_give` says why this node may not give a snapshot of itself, None: it may."""

    def __init__(
        self,
        taker: Taker,
        may_give: Callable[[], str | None],
        *,
        bytes_per_s: int = 0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._taker = taker
        self._may_give = may_give
        self._limit = Limit(bytes_per_s)
        self._clock = clock
        self._taking: asyncio.Task[Manifest] | None = None
        self._taken: tuple[str, float] | None = None

    async def offer(self, above: int) -> Manifest:
        """A snapshot of an index not below `above`.

        Raises:
            Unavailable: this node cannot give one now.
        """
        self._require_fit()
        newest = self._taker.newest()
        if newest is not None and newest.index >= above and self._is_fresh(newest):
            return self._keep(newest.name)
        if self._taking is None:
            self._taking = asyncio.create_task(asyncio.to_thread(self._taker.take, timeout_s=_TAKE_S))
            self._taking.add_done_callback(self._note)
        # Whoever goes away while it is taken does not take it away from the others.
        found = await asyncio.shield(self._taking)
        if found.index < above:
            raise Unavailable(
                f"This node has applied {found.index} only, a snapshot of {above} or later is needed. "
                "Nothing was changed; ask another node."
            )
        return self._keep(found.name)

    def _note(self, task: asyncio.Task[Manifest]) -> None:
        self._taking = None
        if not task.cancelled() and task.exception() is None:
            self._taken = (task.result().name, self._clock())

    def _is_fresh(self, manifest: Manifest) -> bool:
        return (
            self._taken is not None
            and self._taken[0] == manifest.name
            and self._clock() - self._taken[1] <= _FRESH_S
        )

    def _require_fit(self) -> None:
        """Raises:
        Unavailable: what this node has, or has given away, is not to be relied on.
        """
        why = self._may_give()
        if why is not None:
            raise Unavailable(f"This node gives no snapshot: {why} Nothing was changed; ask another node.")

    def _keep(self, snapshot_id: str) -> Manifest:
        """Raises:
        Refusal: 404, it is not kept any more.
        Unavailable: it is, but this node is known by now to have had what is not right.
        """
        self._require_fit()
        found = self._taker.find(snapshot_id)
        if found is None:
            raise Refusal(
                404, "NotFoundError", f"This node keeps no snapshot {snapshot_id[:80]}. Nothing was changed."
            )
        return found

    async def manifest(self, snapshot_id: str) -> Manifest:
        """The manifest of a snapshot that is kept.

        Raises:
            Refusal: 404, it is not.
        """
        return self._keep(snapshot_id)

    async def part(self, snapshot_id: str, number: int, offset: int) -> bytes:
        """Bytes of a file, from `offset` on; empty at its end.

        Raises:
            Refusal: 404, the snapshot is not kept any more or has no such file or offset.
        """
        found = self._keep(snapshot_id)
        if not 0 <= number < len(found.files) or not 0 <= offset <= found.files[number].size:
            raise Refusal(
                404, "NotFoundError", "The snapshot has no such file or offset. Nothing was changed."
            )
        file = found.files[number]
        await asyncio.sleep(self._limit.wait_s(min(PART_BYTES, file.size - offset), self._clock()))
        path = self._taker.path_of(snapshot_id, file)
        try:
            return await asyncio.to_thread(_read, path, offset)
        except OSError as error:
            raise Unavailable(f"The snapshot cannot be read: {error}. Nothing was changed.") from None

    async def keep_tidy(self) -> None:
        """Remove old snapshots, again and again; until cancelled."""
        while True:
            await asyncio.sleep(_TIDY_S)
            await asyncio.to_thread(self._taker.tidy)


def _read(path: Path, offset: int) -> bytes:
    failpoint("snapshot.before_part")
    with path.open("rb", buffering=0) as file:
        file.seek(offset)
        return file.read(PART_BYTES)
