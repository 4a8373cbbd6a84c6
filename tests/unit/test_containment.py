"""When a stuck node waits, when the fault is its own, and when the cluster is asked to refuse the write."""

from __future__ import annotations

from concurrent.futures import Future
from typing import Any

import pytest

from cluster.apply.agreement import agreements_in, encode_agreement
from cluster.apply.containment import Progress, Question, Stuck, Verdict, View, is_broken, judge, successors
from cluster.apply.deliberation import Deliberation
from cluster.apply.impasse import BACK_OFF_S, Impasse
from cluster.errors import NotLeader, OutcomeUnknown
from cluster.raft.interface import Position, RaftStatus
from cluster.state.commands import RefuseEntry
from cluster.state.refusals import Point

HERE = Point(7, 1, 0)
STUCK = View(Progress(Point(7, 1, 0), Stuck(HERE, "it fails", False)))
APPLIED = View(Progress(Point(7, 2, 0)))
BEHIND = View(Progress(Point(6, 0, 0)))
ELSEWHERE = View(Progress(Point(6, 0, 0), Stuck(Point(6, 0, 0), "it fails", False)))
AWAY = View(None, 5_000)
GONE = View(None, 10_000)


@pytest.mark.parametrize(
    ("views", "verdict"),
    [
        ([STUCK, STUCK], Verdict.PROPOSE),
        ([STUCK, APPLIED], Verdict.LOCAL),
        ([APPLIED, APPLIED], Verdict.LOCAL),
        ([AWAY, APPLIED], Verdict.LOCAL),
        ([STUCK, BEHIND], Verdict.WAIT),
        ([STUCK, ELSEWHERE], Verdict.WAIT),
        ([BEHIND, BEHIND], Verdict.WAIT),
        ([STUCK, AWAY], Verdict.WAIT),
        ([STUCK, GONE], Verdict.PROPOSE),
        ([GONE, GONE], Verdict.WAIT),
        ([], Verdict.PROPOSE),  # a cluster of one
        ([STUCK, GONE, GONE, STUCK], Verdict.PROPOSE),
        ([STUCK, GONE, GONE, GONE], Verdict.WAIT),
        ([STUCK, GONE, GONE], Verdict.WAIT),  # two of four are no majority
    ],
)
def test_the_leader_judges(views: list[View], verdict: Verdict) -> None:
    assert judge(HERE, views, leads=True, wait_ms=10_000) is verdict
    follows = Verdict.WAIT if verdict is Verdict.PROPOSE else verdict
    assert judge(HERE, views, leads=False, wait_ms=10_000) is follows


def test_one_that_cannot_read_the_collection_is_enough() -> None:
    own = Stuck(HERE, "it fails", False)
    assert not is_broken(own, [STUCK, GONE])
    assert is_broken(own, [View(Progress(HERE, Stuck(HERE, "it fails", True)))])
    assert not is_broken(own, [View(Progress(HERE, Stuck(Point(6, 0, 0), "other", True)))])


def test_what_is_said_survives_the_wire() -> None:
    for view in (STUCK, APPLIED):
        assert view.progress is not None
        assert Progress.decode(view.progress.encode()) == view.progress
    for question in (Question(4, HERE), Question(0, None)):
        assert Question.decode(question.encode()) == question


@pytest.mark.parametrize("value", [{}, {"term": 1}, {"term": "x", "hold": None}, {"term": 1, "hold": [1]}])
def test_a_question_that_is_none_is_refused(value: Any) -> None:
    with pytest.raises((ValueError, TypeError, KeyError)):
        Question.decode(value)


def test_agreements_are_found_by_what_they_carry_and_clients_cannot_make_them() -> None:
    agreed = RefuseEntry(3, 0, 0, 500, "ContainedWriteError", "no", False)
    payload = encode_agreement(1, agreed)
    assert agreements_in(payload, 9) == [agreed]
    assert agreements_in(payload, 3) == []  # only of what comes before it
    assert agreements_in(b"s:refuse: not an entry", 9) == []


# ------------------------------------------------------------------------------------- impasse


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def stuck_here(clock: Clock) -> Impasse:
    impasse = Impasse(clock)
    impasse.note(Stuck(HERE, "it fails", False))
    return impasse


def test_it_is_tried_again_later_and_later() -> None:
    clock = Clock()
    impasse = stuck_here(clock)
    for wait_s in (*BACK_OFF_S, BACK_OFF_S[-1]):
        clock.now += wait_s - 0.01
        assert not impasse.may_try()
        clock.now += 0.02
        assert impasse.may_try()
        impasse.note(Stuck(HERE, "it fails", False))


def test_a_promise_not_to_try_is_kept_until_the_log_has_spoken() -> None:
    clock = Clock()
    impasse = stuck_here(clock)
    assert not impasse.hold(Point(8, 0, 0), 3)  # not where it is stuck
    assert impasse.hold(HERE, 3)
    clock.now += 1000
    assert not impasse.may_try()
    impasse.saw_term(3)
    impasse.let_go(2)  # not the leader that it was promised to
    assert not impasse.may_try()
    impasse.saw_term(4)
    assert impasse.may_try()
    assert not impasse.hold(HERE, 5)  # it is being tried
    impasse.note(Stuck(HERE, "it fails", False))
    assert not impasse.hold(HERE, 3)  # term 4 has committed: what term 3 proposes will not be
    assert impasse.hold(HERE, 5)
    impasse.let_go(5)
    clock.now += 1000
    assert impasse.may_try()


# -------------------------------------------------------------------------------- deliberation


class FakeRaft:
    def __init__(self) -> None:
        self.role: Any = "leader"
        self.term = 3
        self.connected: tuple[str, ...] = ()
        self.handed_over: list[str | None] = []

    def status(self) -> RaftStatus:
        return RaftStatus("a", self.role, self.term, "a", 1, 9, 9, 0.0, connected=self.connected)

    def transfer_leadership(self, to: str | None = None) -> Future[None]:
        self.handed_over.append(to)
        return Future()


class Table:
    """A stuck leader with two others, whose answers the test gives."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.raft = FakeRaft()
        self.impasse = stuck_here(self.clock)
        self.proposed: list[RefuseEntry] = []
        self.future: Future[Position] = Future()
        self.local: list[str] = []
        self.deliberation = Deliberation(
            self.raft,  # type: ignore[arg-type]
            self.impasse,
            ("b", "c"),
            self._propose,
            self.local.append,
            self.clock,
        )

    def _propose(self, agreement: RefuseEntry) -> Future[Position]:
        self.proposed.append(agreement)
        return self.future

    def round(self, b: Progress | None, c: Progress | None, seconds: float = 0.25) -> Question:
        question = self.deliberation.question()
        assert question is not None
        self.deliberation.conclude(question, {"b": b, "c": c})
        self.clock.now += seconds
        return question


def at(point: Point = HERE, *, held: bool = False) -> Progress:
    return Progress(point, Stuck(point, "it fails", False), held)


def test_first_all_promise_then_it_is_proposed() -> None:
    table = Table()
    assert table.round(at(), at()).hold is None
    assert table.proposed == []
    assert table.round(at(), at(held=True)).hold == HERE  # b does not promise
    assert table.proposed == []
    table.round(at(held=True), at(held=True))
    [agreement] = table.proposed
    assert (agreement.index, agreement.position, agreement.part, agreement.status) == (*HERE, 500)
    assert "Nothing was changed" in agreement.message
    table.clock.now += 100
    assert not table.impasse.may_try()
    assert table.round(at(held=True), at(held=True)).hold == HERE
    assert len(table.proposed) == 1  # one at a time


def test_if_somebody_gets_through_meanwhile_the_others_are_let_go() -> None:
    table = Table()
    table.round(at(), at())
    assert table.round(Progress(Point(8, 0, 0)), at(held=True)).hold == HERE
    assert table.proposed == []
    assert table.round(Progress(Point(8, 0, 0)), at()) == Question(3, None)
    assert len(table.local) == 1
    assert table.raft.handed_over == ["b"]
    table.clock.now += 100
    assert table.impasse.may_try()


def test_leadership_goes_to_who_has_the_write_and_never_to_another_that_is_stuck() -> None:
    further, past = Progress(Point(9, 0, 0)), Progress(Point(7, 2, 0))
    stuck_later = Progress(Point(9, 0, 0), Stuck(Point(9, 0, 0), "another", False))
    assert successors(HERE, {"b": past, "c": further, "d": None}) == ["c", "b"]
    assert successors(HERE, {"b": at(), "c": stuck_later, "d": Progress(HERE)}) == []
    table = Table()
    table.round(at(), Progress(Point(8, 0, 0)), seconds=4)
    assert table.raft.handed_over == ["c"]
    table.round(Progress(Point(9, 0, 0)), Progress(Point(8, 0, 0)), seconds=4)  # c did not take over
    assert table.raft.handed_over == ["c", "c"]
    table.round(Progress(Point(9, 0, 0)), Progress(Point(8, 0, 0)), seconds=4)
    assert table.raft.handed_over == ["c", "c", "b"]
    table.raft.role = "follower"
    table.round(at(), Progress(Point(8, 0, 0)), seconds=4)
    assert len(table.raft.handed_over) == 3


@pytest.mark.parametrize(
    ("error", "goes_on"), [(NotLeader(None), True), (OutcomeUnknown("leadership is lost"), False)]
)
def test_what_may_still_be_committed_stays_held(error: Exception, goes_on: bool) -> None:
    table = Table()
    table.round(at(), at())
    table.round(at(held=True), at(held=True))
    table.future.set_exception(error)
    table.round(at(held=True), at(held=True))
    table.raft.role = "follower"
    question = table.deliberation.question()
    assert question == Question(0, None)
    table.clock.now += 100
    assert table.impasse.may_try() is goes_on


def test_who_is_silent_here_but_heard_by_the_log_is_waited_for() -> None:
    table = Table()
    table.raft.connected = ("c",)
    for _ in range(100):
        table.round(at(held=True), None)
    assert table.proposed == []
    table.raft.connected = ()
    for _ in range(39):
        table.round(at(held=True), None)
    assert table.proposed == []
    for _ in range(4):
        table.round(at(held=True), None)
    assert len(table.proposed) == 1


def test_who_applies_nothing_is_waited_for_no_longer_than_who_is_away() -> None:
    table = Table()
    table.raft.connected = ("b", "c")
    failed = Progress(HERE, is_idle=True)
    for _ in range(40):
        table.round(at(held=True), failed)
    assert table.proposed == []
    for _ in range(4):
        table.round(at(held=True), failed)
    assert len(table.proposed) == 1


def test_who_applied_the_write_before_it_failed_is_heard() -> None:
    table = Table()
    for _ in range(50):
        table.round(at(held=True), Progress(Point(8, 0, 0), is_idle=True))
    assert table.proposed == []
    assert len(table.local) == 1


@pytest.mark.parametrize("progress", [at(held=True), Progress(HERE, is_idle=True)])
def test_a_word_travels_whole(progress: Progress) -> None:
    assert Progress.decode(progress.encode()) == progress


def test_a_follower_asks_but_holds_nobody() -> None:
    table = Table()
    table.raft.role = "follower"
    for _ in range(3):
        assert table.round(at(), at()) == Question(0, None)
    assert table.proposed == []
    table.impasse.clear()
    assert table.deliberation.question() is None
