"""A move: each collection is built under a temporary name, verified record by record, then named."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Protocol, TypeVar

from cluster.errors import ClusterError, Refusal
from cluster.moving.comparison import Comparison
from cluster.moving.keeping import kept, to_write
from cluster.moving.plan import Listing, NothingDone, Plan, Step, changes, creations, plan, unlike
from cluster.moving.records import NOTHING, batches, chained
from cluster.moving.report import Report, Result
from cluster.moving.server import Unmovable

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Sequence

    from cluster.moving.ends import Source
    from cluster.moving.journal import Built
    from cluster.moving.notes import Notes
    from cluster.moving.plan import Collection, Existing, Place
    from cluster.moving.records import Record
    from cluster.moving.server import Server

T = TypeVar("T")


class Watch(Protocol):
    """Who is shown how far it is; counts are of records."""

    def begin(self, total: int) -> None:
        """So many are to be moved, and then verified."""
        ...

    def moved(self, count: int) -> None:
        """So many more are in the target."""
        ...

    def verified(self, count: int) -> None:
        """So many more are the same on both sides, or known to differ."""
        ...


class Move:
    """From `source` to `target`; once."""

    def __init__(
        self, source: Source, target: Server, existing: Existing, notes: Notes, report: Report, watch: Watch
    ) -> None:
        self._source = source
        self._from = source.server
        self._to = target
        self._existing: Existing = existing
        self._notes = notes
        self._report = report
        self._watch = watch
        self._counts: dict[Place, int] = {}

    async def run(self) -> None:
        """Do all of it, or go on with it; what happened is in the report.

        Raises:
            NothingDone: it was not begun.
            OutOfReach: it was interrupted, and can go on.
            OSError: the notes cannot be written.
        """
        listing = await self._from.listing(self._source.tenants)
        self._report.problems += listing.unreadable
        target = await self._existing_of(listing)
        steps = plan(listing, target, self._existing, self._notes.journal.ours)
        await self._count(steps)
        await self._places(steps)
        for step in steps.steps:
            self._report.results.append(await self._one(step))
        await self._look_again(listing)

    async def _existing_of(self, listing: Listing) -> Listing:
        found = await self._to.listing(listing.tenants)
        if found.unreadable:
            raise NothingDone(f"{found.unreadable[0]} Nothing was changed. Give a token that may.")
        return found

    async def _count(self, steps: Plan) -> None:
        todo = [step for step in steps.steps if step.action in ("make", "replace")]
        for step in todo:
            with contextlib.suppress(Refusal):  # said when it is moved
                self._counts[step.source.place] = await self._from.count(step.source)
        self._watch.begin(sum(self._counts.values()))

    async def _places(self, steps: Plan) -> None:
        """Tenants and databases; where one is refused, so are its collections."""
        for tenant in steps.tenants:
            try:
                await self._to.make_tenant(tenant)
                self._report.tenants.append(tenant)
            except Refusal as error:
                self._report.problems.append(f"The tenant {tenant!r} cannot be made: {error.message}")
        for tenant, database in steps.databases:
            try:
                await self._to.make_database(tenant, database)
                self._report.databases.append(f"{tenant}/{database}")
            except Refusal as error:
                words = f"The database {tenant}/{database} cannot be made: {error.message}"
                self._report.problems.append(words)

    async def _one(self, step: Step) -> Result:
        place = step.source.place
        if step.action == "skip":
            return Result(place, "skipped")
        if step.action == "done":
            built = self._notes.journal.built[place]
            if not built.placed:
                self._notes.about(place, placed=True)
            self._counts[place] = built.records
            return _result(place, built)
        try:
            return await self._build(step)
        except (Refusal, Unmovable) as error:
            await self._drop(step)
            return Result(place, "failed", reason=f"{error.message} Nothing of it is left in the target.")

    async def _build(self, step: Step) -> Result:
        place = step.source.place
        temporary, built = await self._begin(step)
        if not built.verified:
            await self._fill(step, temporary, built)
            found = await self._verify(step, temporary, built)
            if found is not None:
                await self._drop(step)
                return found
            self._notes.about(place, verified=True, rounded=built.rounded)
        await self._give_its_name(step, temporary)
        self._counts[place] = built.records
        return _result(place, built)

    async def _begin(self, step: Step) -> tuple[Collection, Built]:
        """The collection under its temporary name: what an interrupted move left, or a new one."""
        place = step.source.place
        there = await self._to.find(step.source.place.temporary)
        built = self._notes.journal.built.get(place)
        if there is not None and built is not None and built.uid == there.uid:
            self._watch.moved(built.records)
            return there, built
        if there is not None:  # made just before an interruption, or by a move whose notes are lost
            await self._to.drop(step.source.place.temporary)
        made = await self._made(step)
        self._notes.about(place, building=made.uid, outcome="replaced" if step.there else "moved")
        return made, self._notes.journal.built[place]

    async def _made(self, step: Step) -> Collection:
        """A new collection that is like the source's; how it must be asked for is tried.

        Raises:
            Unmovable: the target refuses it, or makes another.
        """
        temporary, bodies = step.source.place.temporary, creations(step.source)
        refusal, fields = "", list[str]()
        for as_meant, body in [(False, body) for body in bodies] + [(True, body) for body in bodies]:
            try:
                made = await self._to.make(temporary, body)
            except Refusal as error:
                refusal = refusal or error.message
                continue
            unequal = unlike(step.source, made, as_meant=as_meant)
            if not unequal:
                return made
            await self._to.drop(temporary)
            fields = fields or unequal
        another = f"the target makes it with another {' and '.join(fields)}."
        raise Unmovable(another if fields else refusal)

    async def _fill(self, step: Step, temporary: Collection, built: Built) -> None:
        place, done, digest = step.source.place, built.records, built.digest
        async with ahead(self._from.pages(step.source, done)) as pages:
            async for page in pages:
                for batch in batches(page, self._to.most):
                    digest = chained(digest, batch)
                    written = to_write(batch, is_cosine=step.source.is_cosine)
                    await self._add(temporary, written, f"move-{temporary.uid}-{done}-{digest.hex()}")
                    done += len(batch)
                    self._notes.about(place, records=done, digest=digest.hex())
                    self._watch.moved(len(batch))

    async def _add(self, temporary: Collection, batch: Sequence[Record], key: str) -> None:
        """Raises:
        Unmovable: the target refuses a record, which is named.
        """
        try:
            await self._to.add(temporary, batch, key)
        except Refusal as error:
            if len(batch) == 1:
                raise Unmovable(f"its record {batch[0].key!r}: {error.message}") from None
            middle = len(batch) // 2
            await self._add(temporary, batch[:middle], f"{key}-a")
            await self._add(temporary, batch[middle:], f"{key}-b")

    async def _verify(self, step: Step, temporary: Collection, built: Built) -> Result | None:
        """Both sides read again, side by side; None if they are the same and the source has not changed."""
        comparison, digest, built.rounded = Comparison(), NOTHING, 0
        built.roundings.clear()
        async with (
            ahead(self._from.pages(step.source)) as sources,
            ahead(self._to.pages(temporary)) as targets,
        ):
            mine, theirs = anext(sources, None), anext(targets, None)
            source, target = await mine, await theirs
            while source is not None or target is not None:
                # Whichever is behind goes on, so that little waits for its counterpart.
                behind = target is None or (source is not None and comparison.sources <= comparison.targets)
                if behind and source is not None:
                    shown = kept(source, is_cosine=step.source.is_cosine)
                    built.note_rounded(source, shown)
                    comparison.source(shown)
                    digest = chained(digest, source)
                    self._watch.verified(len(source))
                    source = await anext(sources, None)
                elif target is not None:
                    comparison.target(target)
                    target = await anext(targets, None)
        differences = comparison.finish()
        now = await self._from.find(step.source.place)
        place = step.source.place
        if digest != built.digest or now is None or now.uid != step.source.uid:
            reason = "the source changed while it was moved. Nothing of it is left in the target."
            self._report.changes.append(f"{place} was written to while it was moved")
        elif differences:
            count = f"{comparison.differing:,} records differ after the move."
            reason = f"{count} Nothing of it is left in the target."
        else:
            return None
        return Result(place, "differs", comparison.sources, reason, tuple(differences), comparison.differing)

    async def _give_its_name(self, step: Step, temporary: Collection) -> None:
        place = step.source.place
        there = await self._to.find(place)
        if there is not None:
            if step.there is None or there.uid != step.there.uid:
                raise Unmovable(
                    "somebody made a collection of its name in the target meanwhile, which was left alone."
                )
            await self._to.delete(place)
        await self._to.rename(temporary, place)
        self._notes.about(place, placed=True)

    async def _drop(self, step: Step) -> None:
        await self._to.drop(step.source.place.temporary)
        if step.source.place in self._notes.journal.built:
            self._notes.about(step.source.place, dropped=True)

    async def _look_again(self, before: Listing) -> None:
        """Whether the source is what it was."""
        self._report.changes += self._source.changed()
        if self._source.is_copy:
            return
        after = await self._from.listing(self._source.tenants)
        now: dict[Place, int] = {}
        for collection in after.collections:
            if collection.place in self._counts:
                with contextlib.suppress(Refusal):
                    now[collection.place] = await self._from.count(collection)
        self._report.changes += changes(before, after, self._counts, now)


def _result(place: Place, built: Built) -> Result:
    """Of a collection that is complete."""
    return Result(
        place, built.outcome, built.records, differences=tuple(built.roundings), rounded=built.rounded
    )


@contextlib.asynccontextmanager
async def ahead(pages: AsyncIterator[T]) -> AsyncGenerator[AsyncIterator[T]]:
    """The same items, of which the next is fetched while one is worked on."""

    async def following() -> T | None:
        return await anext(pages, None)

    task = asyncio.create_task(following())

    async def items() -> AsyncIterator[T]:
        nonlocal task
        while (item := await task) is not None:
            task = asyncio.create_task(following())
            yield item

    try:
        yield items()
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError, ClusterError):
            await task
