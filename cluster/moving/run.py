"""`import` and `export` as one call: opens both ends, moves, and tidies up, whatever happens in between."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cluster.errors import ClusterError
from cluster.moving import ends
from cluster.moving.mover import Move
from cluster.moving.notes import Notes
from cluster.moving.plan import NothingDone
from cluster.moving.report import Report
from cluster.moving.server import Access, OutOfReach

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from cluster.moving.ends import Source
    from cluster.moving.mover import Watch
    from cluster.moving.plan import Existing
    from cluster.moving.server import Server


class Interrupted(ClusterError):
    """Part of it is done; the same command goes on."""


@dataclass(frozen=True, slots=True)
class Order:
    """What is to be moved: `source` and `target` are directories or URLs, `work` is where notes are kept."""

    source: str
    target: str
    work: Path
    existing: Existing = "refuse"
    tenants: tuple[str, ...] = ("default_tenant",)
    afresh: bool = False
    source_access: Access = field(default_factory=lambda: Access({}))
    target_access: Access = field(default_factory=lambda: Access({}))

    @property
    def header(self) -> dict[str, Any]:
        """What must be the same for a second run to go on with the first."""
        return {
            "source": self.source,
            "target": self.target,
            "existing": self.existing,
            "tenants": [*self.tenants],
        }


async def move(order: Order, watch: Watch) -> dict[str, Any]:
    """Move everything, or go on with it; the report (`cluster.moving.report` words it).

    Raises:
        NothingDone: nothing was changed anywhere, and nothing is left.
        Interrupted: what was done is noted; the same order goes on.
    """
    notes = Notes(order.work, order.source, order.target)
    try:
        if order.afresh:
            await _forget(order, notes)
            notes = Notes(order.work, order.source, order.target)
        resumed = notes.begin(order.header)
        if notes.journal.finished is None:
            await _moved(order, notes, watch, resumed=resumed)
        return _finish(order, notes)
    except NothingDone:
        if not notes.journal.built:
            _leave_nothing(order, notes)
        raise
    except (OutOfReach, OSError, asyncio.CancelledError) as error:
        raise _interrupted(order, notes, error) from None
    finally:
        notes.close()


async def _moved(order: Order, notes: Notes, watch: Watch, *, resumed: bool) -> None:
    report, begun = Report(order.source, order.target, resumed=resumed), time.monotonic()
    async with _source(order, notes) as source, _target(order, notes) as target:
        await Move(source, target, order.existing, notes, report, watch).run()
    report.seconds = time.monotonic() - begun
    notes.write(finished=report.as_json())


def _finish(order: Order, notes: Notes) -> dict[str, Any]:
    assert notes.journal.finished is not None
    if not ends.is_url(order.target):
        ends.put_in_place(Path(order.target))
    report = dict(notes.journal.finished)
    notes.discard()
    return report


def _source(order: Order, notes: Notes) -> contextlib.AbstractAsyncContextManager[Source]:
    if ends.is_url(order.source):
        return ends.source_server(order.source, order.tenants, order.source_access)
    return ends.source_directory(Path(order.source), notes)


@contextlib.asynccontextmanager
async def _target(order: Order, notes: Notes) -> AsyncGenerator[Server]:
    if ends.is_url(order.target):
        async with ends.running(order.target, "the target", order.target_access) as server:
            yield server
    else:
        async with ends.target_directory(Path(order.target), notes) as server:
            yield server


async def _forget(order: Order, notes: Notes) -> None:
    """Drop what an interrupted move left in the target, and its notes."""
    left = [place for place, built in notes.journal.built.items() if not built.placed]
    if left and ends.is_url(order.target):
        async with ends.running(order.target, "the target", order.target_access) as server:
            for place in left:
                await server.drop(place.temporary)
    _leave_nothing(order, notes)
    notes.close()


def _leave_nothing(order: Order, notes: Notes) -> None:
    if not ends.is_url(order.target) and "partial" in notes.journal.marks:
        shutil.rmtree(ends.partial_of(Path(order.target)), ignore_errors=True)
    notes.discard()


def _interrupted(order: Order, notes: Notes, error: BaseException) -> ClusterError:
    if isinstance(error, ClusterError):
        reason = error.message
    elif isinstance(error, OSError):
        reason = f"It did not work: {error}."
    else:
        reason = "It was interrupted."
    built = notes.journal.built.values()
    if not built:
        _leave_nothing(order, notes)
        return NothingDone(f"{reason} No collection was changed. Repeat it when that is mended.")
    complete = sum(one.placed for one in built)
    return Interrupted(
        f"{reason} {complete} collections are complete in the target, {len(built) - complete} half done "
        "under a name of their own. The same command goes on where it stopped; with --afresh it drops what "
        "is half done and begins anew."
    )
