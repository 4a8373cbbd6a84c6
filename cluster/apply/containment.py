"""Whether a write on which engines fail is one node's trouble, or one that the cluster must refuse; pure.

A node whose engine failed twice on one write alone is *stuck* there. It neither skips the write nor stops: it
asks the other members how far they are. One that has applied the write proves that the write is good, so the
fault is this node's own. Only if a majority is stuck at the same point, nobody is known to have applied it,
and no member could be about to, the leader proposes to refuse it, through the log. A member that cannot be
reached may have applied and acknowledged it: it is waited for, and after `wait_ms` no longer.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any, Final

from cluster.state.refusals import Point

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

#: How long a member that cannot be reached is waited for before its word is done without, milliseconds.
WAIT_MS: Final = 10_000.0


class Verdict(Enum):
    """WAIT: too little is known. LOCAL: another node has applied it. PROPOSE: the cluster is to refuse it."""

    WAIT = "wait"
    LOCAL = "local"
    PROPOSE = "propose"


@dataclass(frozen=True, slots=True)
class Stuck:
    """Where a node is stuck, and why. `is_broken`: the write's collection cannot be read since then."""

    point: Point
    cause: str
    is_broken: bool


@dataclass(frozen=True, slots=True)
class Progress:
    """What a member says of itself: what it applies next, where it is stuck, and whether it promised not to
    try that again until the log has spoken (`is_held`)."""

    place: Point
    stuck: Stuck | None = None
    is_held: bool = False
    is_idle: bool = False
    """Whether it applies nothing as it is: it lacks log entries and waits to be filled, or it has failed."""

    def encode(self) -> dict[str, Any]:
        """As JSON."""
        stuck = self.stuck
        return {
            "place": list(self.place),
            "stuck": None if stuck is None else [list(stuck.point), stuck.cause, stuck.is_broken],
            "held": self.is_held,
            "idle": self.is_idle,
        }

    @staticmethod
    def decode(value: dict[str, Any]) -> Progress:
        """Inverse of `encode`; anything else is a ValueError, TypeError or KeyError."""
        stuck = None
        if value["stuck"] is not None:
            point, cause, is_broken = value["stuck"]
            stuck = Stuck(Point(*map(int, point)), str(cause), bool(is_broken))
        return Progress(Point(*map(int, value["place"])), stuck, bool(value["held"]), bool(value["idle"]))


@dataclass(frozen=True, slots=True)
class Question:
    """What a stuck node asks the others. `hold` is the point that a leader of `term` is about to have
    refused: who is stuck there must not try it again. No point: what that leader held is let go."""

    term: int
    hold: Point | None

    def encode(self) -> dict[str, Any]:
        """As JSON."""
        return {"term": self.term, "hold": None if self.hold is None else list(self.hold)}

    @staticmethod
    def decode(value: dict[str, Any]) -> Question:
        """Inverse of `encode`; anything else is a ValueError, TypeError or KeyError."""
        hold = value["hold"]
        return Question(int(value["term"]), None if hold is None else Point(*map(int, hold)))


@dataclass(frozen=True, slots=True)
class View:
    """One other member as this node sees it: its last word if it answers, else for how long it does not."""

    progress: Progress | None
    silent_ms: float = 0.0


def judge(point: Point, views: Sequence[View], *, leads: bool, wait_ms: float = WAIT_MS) -> Verdict:
    """What a node stuck at `point` does, given all other members."""
    words = [view.progress for view in views if view.progress is not None]
    if any(progress.place > point for progress in words):
        return Verdict.LOCAL
    stuck = 1 + sum(_is_stuck_at(point, progress) for progress in words)
    is_majority = stuck > (len(views) + 1) // 2
    nobody_is_about_to = all(
        _is_stuck_at(point, view.progress) if view.progress is not None else view.silent_ms >= wait_ms
        for view in views
    )
    return Verdict.PROPOSE if leads and is_majority and nobody_is_about_to else Verdict.WAIT


def all_hold(point: Point, views: Sequence[View]) -> bool:
    """Whether every member that answers has promised not to try the write at `point` again."""
    words = [view.progress for view in views if view.progress is not None]
    return all(_is_stuck_at(point, progress) and progress.is_held for progress in words)


def is_broken(own: Stuck, views: Sequence[View]) -> bool:
    """Whether some node that is stuck there cannot read the collection any more."""
    others = [view.progress.stuck for view in views if view.progress is not None]
    return any(stuck.is_broken for stuck in (own, *others) if stuck is not None and stuck.point == own.point)


def successors(point: Point, answers: Mapping[str, Progress | None]) -> list[str]:
    """Who is past `point`, where this node is stuck, and stuck nowhere else, the furthest first."""
    well = [
        (progress.place, peer)
        for peer, progress in answers.items()
        if progress is not None and progress.stuck is None and progress.place > point
    ]
    return [peer for _, peer in sorted(well, reverse=True)]


def _is_stuck_at(point: Point, progress: Progress) -> bool:
    return progress.stuck is not None and progress.stuck.point == point
