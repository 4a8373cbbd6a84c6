"""Fills this node with a snapshot of another when it lacks entries that nobody has any more, or is told to.

Lives on the event loop. What it fetched it leaves to the next start (`installing.decide`): `wanted` is set,
and the node begins anew.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, Protocol

from cluster.errors import ClusterError, Unavailable
from cluster.snapshot import installing
from cluster.snapshot.choosing import donors, why_none
from cluster.snapshot.fetching import Fetch, Parts, unfinished
from cluster.snapshot.manifest import Manifest
from cluster.snapshot.pace import Progress, Speed

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path
    from typing import Any

log = logging.getLogger(__name__)

_LOOK_S: Final = 0.2
_PAUSES_S: Final = (0.5, 1.0, 2.0, 4.0, 8.0)
#: The others keep their log from the snapshot on for so long, and are told so often.
_HOLD_S: Final = 20.0
_TELL_S: Final = 2.0


@dataclass(frozen=True, slots=True)
class Need:
    """What a snapshot must have: an index of `above` at least. `donor` is the only one to ask, None: any."""

    above: int
    reason: str
    donor: str | None = None


class Others(Parts, Protocol):
    """The other members over HTTP (`cluster.peers`)."""

    async def status(self, url: str) -> dict[str, Any] | None:
        """What a node says of itself, None if it does not answer at once."""
        ...

    async def snapshot(self, url: str, question: Mapping[str, Any]) -> bytes:
        """A manifest, as `cluster.snapshot.donating` gives it; raises ClusterError."""
        ...

    async def hold_log(self, url: str, node: str, index: int, seconds: float) -> None:
        """Tell a node to keep its log from `index` on; whether it hears is not known."""
        ...


@dataclass(frozen=True, slots=True)
class Here:
    """This node. `lacks` is the index that the others have compacted up to if it lacks such entries, `base`
    the one that it has compacted up to itself; `members` the URLs of the others by id; `hold_log` as of
    `RaftNode`."""

    directory: Path
    node_id: str
    cluster_id: str
    chromadb: str | None
    members: Callable[[], Mapping[str, str]]
    lacks: Callable[[], int | None]
    base: Callable[[], int]
    hold_log: Callable[[str, int, float], None]


class Filling:
    """See the module."""

    def __init__(
        self,
        here: Here,
        others: Others,
        *,
        on_change: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._here = here
        self._others = others
        self._on_change = on_change
        self._clock = clock
        self._ordered: Need | None = None
        self._progress: Progress | None = None
        self.wanted = asyncio.Event()
        """Set when a snapshot is to be installed: the node has to begin anew."""

    def progress(self) -> Progress | None:
        """How far it is, None while there is nothing to fill."""
        return self._progress

    def refill(self, donor: str | None, reason: str) -> None:
        """Fill this node although it lacks nothing: its files are not what they should be.

        `donor`: the id of the only node to ask, None: whoever is well. It goes on until it is done; the node
        then begins anew. A second call changes donor and reason of what has not begun yet.
        """
        self._ordered = Need(self._here.base(), reason, donor)

    async def run(self) -> None:
        """Until cancelled."""
        failures = 0
        while not self.wanted.is_set():
            need = self._need()
            if need is None:
                self._show(None)
                failures = 0
                await asyncio.sleep(_LOOK_S)
                continue
            try:
                await self._fill(need)
            except (ClusterError, OSError, ValueError) as error:
                trouble = error.message if isinstance(error, ClusterError) else str(error)
                log.warning("not filled yet: %s", trouble)
                self._show(Progress("waiting", need.reason, trouble=trouble))
                await asyncio.sleep(_PAUSES_S[min(failures, len(_PAUSES_S) - 1)])
                failures += 1

    def _need(self) -> Need | None:
        if self._ordered is not None:
            return replace(self._ordered, above=self._here.base())
        compacted = self._here.lacks()
        if compacted is None:
            return None
        return Need(compacted, "it lacks entries that the others have compacted away")

    def _show(self, progress: Progress | None) -> None:
        if progress != self._progress:
            self._progress = progress
            self._on_change()

    # ------------------------------------------------------------------ one round

    async def _fill(self, need: Need) -> None:
        """Ask one donor after the other, until one gave a snapshot.

        Raises:
            ClusterError, OSError, ValueError: none did; what the last one was about.
        """
        trouble = self._progress.trouble if self._progress is not None else None
        self._show(Progress("asking", need.reason, trouble=trouble))
        urls = {node: url for node, url in self._here.members().items() if need.donor in (None, node)}
        answers = await asyncio.gather(*(self._others.status(url) for url in urls.values()))
        said = dict(zip(urls, answers, strict=True))
        failure: Exception = Unavailable(why_none(said, need.above))
        for donor in donors(said, need.above, self._here.chromadb):
            try:
                await self._fill_from(donor, urls[donor], need, trouble)
                return
            except (ClusterError, OSError, ValueError) as error:
                failure = error
                trouble = f"{donor}: {error.message if isinstance(error, ClusterError) else error}"
                log.warning("no snapshot from %s", trouble)
            now = self._need()
            if now is None:
                return
            need = now
        raise failure

    async def _fill_from(self, donor: str, url: str, need: Need, trouble: str | None) -> None:
        shown = Progress("asking", need.reason, donor, trouble=trouble)
        self._show(shown)
        manifest = await self._ask(donor, url, need)
        shown = replace(
            shown, phase="fetching", snapshot=manifest.name, index=manifest.index, total=manifest.size
        )
        speed = Speed()

        def count(done: int) -> None:
            now = self._clock()
            speed.note(now, done)
            self._show(replace(shown, bytes=done, rate=speed.rate()))
            self._require_use(manifest, need)

        telling = asyncio.create_task(self._keep_logs(manifest.index))
        try:
            await Fetch(self._here.directory, self._others, url, manifest, count).run()
            self._require_use(manifest, need)
            await self._tell(manifest.index)
        finally:
            telling.cancel()
            # Not `await telling`: whoever suppresses its end would suppress the end of this task with it.
            await asyncio.wait((telling,))
        self._show(replace(shown, phase="installing", bytes=manifest.size))
        log.info(
            "installs snapshot %s of %s, index %d: %s", manifest.name, donor, manifest.index, need.reason
        )
        await asyncio.to_thread(installing.decide, self._here.directory, manifest.name)
        self.wanted.set()

    async def _ask(self, donor: str, url: str, need: Need) -> Manifest:
        """The snapshot that was being fetched, if this donor keeps it still, or a new one."""
        begun = await asyncio.to_thread(unfinished, self._here.directory)
        if begun is not None and begun.node_id == donor and begun.index >= need.above:
            with contextlib.suppress(ClusterError):
                if await self._others.snapshot(url, {"id": begun.name}) == begun.encode():
                    log.info("goes on with snapshot %s of %s", begun.name, donor)
                    return begun
        manifest = Manifest.decode(await self._others.snapshot(url, {"above": need.above}))
        if manifest.cluster_id != self._here.cluster_id or manifest.index < need.above:
            raise ValueError(
                f"{donor} gave a snapshot of index {manifest.index} of cluster {manifest.cluster_id}, asked "
                f"for was index {need.above} or later of {self._here.cluster_id}"
            )
        return manifest

    def _require_use(self, manifest: Manifest, need: Need) -> None:
        """Raises:
        Unavailable: the log does not go on from this snapshot any more, or the node needs none.
        """
        now = self._need()
        if now is None:
            raise Unavailable("the log has what was missing: no snapshot is needed any more")
        if now.above > manifest.index:
            raise Unavailable(
                f"meanwhile the log begins after {now.above}, and the snapshot is of {manifest.index}: a "
                "newer one is fetched"
            )

    async def _keep_logs(self, index: int) -> None:
        """Let nobody compact what comes after the snapshot."""
        while True:
            await self._tell(index)
            await asyncio.sleep(_TELL_S)

    async def _tell(self, index: int) -> None:
        here = self._here
        here.hold_log(here.node_id, index, _HOLD_S)
        await asyncio.gather(
            *(self._others.hold_log(url, here.node_id, index, _HOLD_S) for url in here.members().values())
        )
