"""How a stuck node comes to a verdict with the others, one round of questions after the other; no I/O.

A round is `question`, asked of all other members, then `conclude` with what they said. The leader that is to
propose a refusal first has everybody who is stuck promise not to try the write again, itself included: else a
fault that passes in this moment would let one of them apply what the others refuse.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from cluster.apply.containment import (
    WAIT_MS,
    Question,
    Verdict,
    View,
    all_hold,
    is_broken,
    judge,
    successors,
)
from cluster.errors import OutcomeUnknown
from cluster.failpoint import failpoint
from cluster.state.commands import RefuseEntry

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence
    from concurrent.futures import Future

    from cluster.apply.containment import Progress, Stuck
    from cluster.apply.impasse import Impasse
    from cluster.raft.interface import Position, Raft
    from cluster.state.refusals import Point

log = logging.getLogger(__name__)

ERROR: Final = "ContainedWriteError"
#: So long after leadership was handed over for a local fault it is not done again, seconds.
_HAND_OVER_AGAIN_S: Final = 3.0


class Deliberation:
    """One node's; called from one thread."""

    def __init__(
        self,
        raft: Raft,
        impasse: Impasse,
        peers: Collection[str],
        propose: Callable[[RefuseEntry], Future[Position]],
        on_local: Callable[[str], None],
        clock: Callable[[], float],
        wait_ms: float = WAIT_MS,
    ) -> None:
        """`peers` are the others, as they are at any moment. `propose` puts an agreement into the log at
        once; `on_local` is told when a fault proves local.
        """
        self._raft = raft
        self._impasse = impasse
        self._peers = peers
        self._propose = propose
        self._on_local = on_local
        self._clock = clock
        self._wait_ms = wait_ms
        self._heard_s: dict[str, float] = {}
        self._holding: tuple[Point, int] | None = None
        self._proposed: Future[Position] | None = None
        # What was proposed in this term may still be committed: nobody is let go by it.
        self._unknown_term = 0
        self._handed_over_s = float("-inf")
        self._hand_overs = 0

    def question(self) -> Question | None:
        """What to ask of all others now; None: nothing, this node is not stuck."""
        stuck = self._impasse.at
        if stuck is None:
            self._heard_s.clear()
            if self._holding is None:
                return None
        status = self._raft.status()
        if self._holding is not None and (status.role != "leader" or status.term != self._holding[1]):
            # Another term decides now; what was held ends with its first committed entry.
            self._unknown_term = self._holding[1]
            self._holding = self._proposed = None
        hold = None if self._holding is None or stuck is None else self._holding[0]
        if stuck is None:
            # The last round of a leader that held others: it is through, they need wait no longer.
            self._holding = self._proposed = None
        speaks = status.role == "leader" and status.term != self._unknown_term
        return Question(status.term if speaks else 0, hold)

    def conclude(self, question: Question, answers: Mapping[str, Progress | None]) -> Verdict:
        """Draw the conclusion from a round; None for who did not answer."""
        stuck = self._impasse.at
        if stuck is None:
            return Verdict.WAIT
        status = self._raft.status()
        leads = status.role == "leader" and status.term == question.term
        views = [self._view(peer, answers.get(peer), status.connected) for peer in self._peers]
        verdict = self._judge(stuck, views, leads=leads)
        if self._proposed is not None:
            self._look_at_proposal()
        elif verdict is Verdict.PROPOSE:
            self._hold_or_propose(stuck, question, views)
        elif self._holding is not None:
            self._let_go()
        if verdict is Verdict.LOCAL and self._proposed is None:
            self._is_local(stuck, successors(stuck.point, answers) if leads else ())
        return verdict

    def _judge(self, stuck: Stuck, views: Sequence[View], *, leads: bool) -> Verdict:
        return judge(stuck.point, views, leads=leads, wait_ms=self._wait_ms)

    def _all_hold(self, stuck: Stuck, views: Sequence[View]) -> bool:
        return all_hold(stuck.point, views)

    def _view(self, peer: str, answer: Progress | None, connected: Sequence[str]) -> View:
        now = self._clock()
        since = self._heard_s.setdefault(peer, now)
        stuck = self._impasse.at
        if answer is not None and answer.is_idle and stuck is not None and answer.place <= stuck.point:
            # It has not applied the write, and will not: it waits for those who are stuck to fill it, or for
            # its operator. It may have begun; that is found out when it starts, as with one that is away.
            return View(None, (now - since) * 1000)
        if answer is not None or peer in connected:
            # Silent here, but heard by the log: it lives, and may be applying the write.
            self._heard_s[peer] = since = now
        return View(answer, (now - since) * 1000)

    def _hold_or_propose(self, stuck: Stuck, question: Question, views: Sequence[View]) -> None:
        place = (stuck.point, question.term)
        if self._holding != place:
            self._holding = place if self._impasse.hold(stuck.point, question.term) else None
            return
        if question.hold != stuck.point or not self._all_hold(stuck, views):
            return
        log.warning("a majority fails on %s: the cluster is asked to refuse it", describe(stuck.point))
        failpoint("deliberation.before_propose")
        self._proposed = self._propose(agreement(stuck, views))
        failpoint("deliberation.after_propose")

    def _look_at_proposal(self) -> None:
        proposed = self._proposed
        if proposed is None or not proposed.done():
            return
        error = proposed.exception()
        self._proposed = None
        if error is None:
            return  # committed: the applier finds it
        if isinstance(error, OutcomeUnknown):
            if self._holding is not None:
                self._unknown_term = self._holding[1]
            self._holding = None
        else:
            self._let_go()

    def _let_go(self) -> None:
        if self._holding is not None:
            self._impasse.let_go(self._holding[1])
            self._holding = None

    def _is_local(self, stuck: Stuck, successors: Sequence[str]) -> None:
        """It is this node's own fault; `successors`: who may lead in its place, if it does."""
        if not self._impasse.is_local:
            self._impasse.is_local = True
            self._on_local(f"this node's Chroma fails on a write that another node has ({stuck.cause})")
        if successors and self._clock() - self._handed_over_s > _HAND_OVER_AGAIN_S:
            self._handed_over_s = self._clock()
            # Whoever does not take over in time has another one's turn come.
            to = successors[self._hand_overs % len(successors)]
            self._hand_overs += 1
            log.warning("handing leadership over to %s, which has the write that this node fails on", to)
            self._raft.transfer_leadership(to)


def agreement(stuck: Stuck, views: Sequence[View]) -> RefuseEntry:
    """What the leader proposes about the write that it and others are stuck at."""
    # Of a write of several engine calls the machine adds what became of the calls before this one.
    done = " Nothing was changed." if stuck.point.part == 0 else ""
    broken = is_broken(stuck, views)
    aside = " The collection cannot be read any more and is set aside: delete it." if broken else ""
    message = (
        f"Chroma failed on this write on every node that tried it: {stuck.cause} The cluster agreed not to "
        f"apply it.{done}{aside} Do not send it again as it is."
    )
    return RefuseEntry(*stuck.point, 500, ERROR, message, broken)


def describe(point: Point) -> str:
    """A point of the log in words."""
    return f"write {point.position} of log entry {point.entry}"
