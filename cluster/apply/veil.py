"""Which collection nobody may read now, because the engine may have a part of a write to it.

Two things make one so. A write too large for one call is half done between its calls; that is durable (the
machine's `half_written`). And a call that failed may be done in part, or wholly: it is repeated, and taken
apart if it was merged from several writes. Until all that it covered is applied, or refused by the cluster,
the collection may hold writes that are not marked as applied, without others that stand before them in the
log, or one that is going to be refused.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from cluster.state.work import Call

if TYPE_CHECKING:
    from collections.abc import Callable

    from cluster.state.machine import Step

#: Entries finished, and proposals of the next one.
_Place: TypeAlias = tuple[int, int]


class Veil:
    """Belongs to the applier's thread; `hidden` may be looked at from any."""

    def __init__(self, hide: Callable[[str | None], None], half_written: str | None) -> None:
        """`hide` is told whenever it is another collection; None: all may be read."""
        self._hide = hide
        # What a failed call changed, and the end of what it covered.
        self._doubtful: tuple[str, _Place] | None = None
        self.hidden = half_written
        hide(half_written)

    def failed(self, step: Step) -> None:
        """The engine failed at the step's call: what it left of it is not known."""
        work = step.work
        if not isinstance(work, Call) or work.target is None:
            return
        end = (step.index, step.position)
        if self._doubtful is not None:
            end = max(end, self._doubtful[1])  # a part of the call that failed first
        self._doubtful = (work.target.collection_id, end)
        self._show(work.target.collection_id)

    def finished(self, step: Step, half_written: str | None) -> None:
        """The step is durable."""
        if self._doubtful is not None and (step.index, step.position) >= self._doubtful[1]:
            self._doubtful = None
        self._show(half_written if self._doubtful is None else self._doubtful[0])

    def _show(self, hidden: str | None) -> None:
        if hidden != self.hidden:
            self.hidden = hidden
            self._hide(hidden)
