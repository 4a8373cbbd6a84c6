"""Who digests what a node has at one place of the log, while the applier goes on writing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cluster.state.machine import Verification
    from cluster.state.work import Call


class Witness(Protocol):
    """Called by the applier's thread; never raises, and takes the time of a small read at most times."""

    def begin(
        self, verification: Verification, state: Sequence[tuple[str, bytes]], broken: Sequence[str]
    ) -> None:
        """The log is applied up to `verification` and not beyond: what there is now is to be digested.

        `state` is the replicated state (`Machine.dump`), `broken` the collections that nobody may read.
        """
        ...

    def before(self, call: Call) -> None:
        """The engine is about to make this call: the last moment to read what it changes."""
        ...


class Blind:
    """A witness that looks at nothing."""

    def begin(
        self, verification: Verification, state: Sequence[tuple[str, bytes]], broken: Sequence[str]
    ) -> None:
        """Nothing."""

    def before(self, call: Call) -> None:
        """Nothing."""
