"""Which failure is tried where: the generators, driven without a loop, a socket or a clock."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lb.retry import (
    Action,
    Answered,
    Broken,
    Ending,
    Event,
    GiveUp,
    Hold,
    NoNode,
    NotSent,
    Relay,
    Send,
    Woken,
    attempts,
    reading,
    writing,
)


def drive(steps: Any, *events: Event) -> tuple[list[Action], Ending | None]:
    """What the generator asked for, event by event, and its verdict if it came to one."""
    actions: list[Action] = [next(steps)]
    for event in events:
        try:
            actions.append(steps.send(event))
        except StopIteration as stop:
            return actions, stop.value
    return actions, None


def avoided(actions: list[Action]) -> list[str]:
    return ["".join(sorted(a.avoid)) if isinstance(a, Send) else "hold" for a in actions]


def unavailable(now: float, node: str = "a", error: str = "UnavailableError") -> Answered:
    return Answered(now, node, 503, error)


@pytest.mark.parametrize("status", [200, 201, 400, 404, 409, 413, 422, 500])
@pytest.mark.parametrize("kind", ["read", "write"])
def test_an_answer_is_relayed(kind: Any, status: int) -> None:
    if (kind, status) == ("read", 500):
        return  # see below
    assert drive(attempts(kind, 10.0, 10.0), Answered(0.0, "a", status))[1] == Relay()


@pytest.mark.parametrize(
    "failure",
    [
        NotSent(0.1, "a"),
        Broken(0.1, "a"),
        unavailable(0.1),
        unavailable(0.1, error="NotLeaderError"),
        unavailable(0.1, error="NodeFaultError"),
        unavailable(0.1, error=""),
        Answered(0.1, "a", 504, "OutcomeUnknownError"),
        Answered(0.1, "a", 429, "OverloadedError"),
    ],
)
def test_a_read_that_failed_is_tried_at_once_on_another_node(failure: Event) -> None:
    actions, verdict = drive(reading(10.0, 10.0), failure, Answered(0.2, "b", 200))
    assert avoided(actions) == ["", "a"]
    assert verdict == Relay()


def test_a_read_that_failed_everywhere_starts_again_after_a_pause() -> None:
    actions, verdict = drive(
        reading(10.0, 10.0),
        Broken(0.1, "a"),
        Broken(0.2, "b"),
        NoNode(0.2),
        Woken(0.3),
        Answered(0.4, "a", 200),
    )
    assert avoided(actions) == ["", "a", "ab", "hold", ""]
    assert verdict == Relay()


def test_a_read_without_a_node_is_held_to_the_deadline_and_then_says_so() -> None:
    _, verdict = drive(reading(10.0, 10.0), NoNode(0.0), Woken(0.2), NoNode(9.9), Woken(10.0), NoNode(10.0))
    assert isinstance(verdict, GiveUp)
    assert (verdict.status, verdict.error) == (503, "UnavailableError")
    assert "Nothing was changed" in verdict.message


def test_at_the_deadline_a_read_gets_the_nodes_own_words_if_there_are_any() -> None:
    _, verdict = drive(reading(1.0, 1.0), unavailable(0.9), NoNode(1.1))
    assert verdict == Relay()
    _, verdict = drive(reading(1.0, 1.0), unavailable(0.8), Broken(0.9, "b"), NoNode(1.1))
    assert isinstance(verdict, GiveUp)


def test_a_node_that_was_not_tried_is_tried_even_after_the_deadline() -> None:
    actions, verdict = drive(reading(1.0, 1.0), Broken(30.0, "a"), Answered(30.1, "b", 200))
    assert avoided(actions) == ["", "a"]
    assert verdict == Relay()


@pytest.mark.parametrize(
    "failure",
    [
        NotSent(0.1, "a"),
        unavailable(0.1),
        unavailable(0.1, error="NotLeaderError"),
        NoNode(0.1),
        Broken(0.1, "a"),
        unavailable(0.1, error="NodeFaultError"),
        Answered(0.1, "a", 504, "OutcomeUnknownError"),
    ],
)
def test_a_write_that_failed_is_held_and_sent_again(failure: Event) -> None:
    actions, verdict = drive(writing(10.0, 10.0), failure, Woken(0.2), Answered(0.3, "b", 201))
    assert avoided(actions) == ["", "hold", ""]
    assert verdict == Relay()


@pytest.mark.parametrize(
    ("failures", "status"),
    [
        ([NoNode(1.0)], 503),
        ([NotSent(1.0, "a")], 503),
        ([unavailable(1.0)], 503),
        ([unavailable(1.0, error="NotLeaderError")], 503),
        ([unavailable(0.5), Woken(0.6), NotSent(0.7, "a"), Woken(0.8), NoNode(1.0)], 503),
        ([Broken(1.0, "a")], 504),
        ([unavailable(1.0, error="NodeFaultError")], 504),
        ([unavailable(1.0, error="")], 504),
        ([Answered(1.0, "a", 502)], 504),
        ([Answered(1.0, "a", 504, "OutcomeUnknownError")], 504),
        # Once in doubt, always in doubt: that a later attempt changed nothing says nothing about the first.
        ([Broken(0.1, "a"), Woken(0.2), unavailable(0.3), Woken(0.4), NoNode(1.0)], 504),
        ([Broken(0.1, "a"), Woken(0.2), Answered(1.0, "b", 429, "OverloadedError")], 504),
        ([Broken(0.1, "a"), Woken(0.2), Answered(1.0, "b", 507, "InsufficientStorageError")], 504),
        ([Broken(0.1, "a"), Woken(0.2), NotSent(1.0, "b")], 504),
        ([Answered(0.1, "a", 504, "OutcomeUnknownError"), Woken(0.2), NotSent(1.0, "a")], 504),
    ],
)
def test_the_last_word_on_a_write_is_honest(failures: list[Event], status: int) -> None:
    _, verdict = drive(writing(1.0, 1.0), *failures)
    assert isinstance(verdict, GiveUp)
    assert verdict.status == status
    assert ("outcome unknown" in verdict.message) is (status == 504)
    assert ("surely not applied" in verdict.message) is (status == 503)


DOUBTS = [
    Broken(0.1, "a"),
    unavailable(0.1, error="NodeFaultError"),
    unavailable(0.1, error=""),
    Answered(0.1, "a", 502),
    Answered(0.1, "a", 504, "OutcomeUnknownError"),
]
ASSURANCES = [
    NotSent(0.3, "a"),
    NotSent(0.3, "b"),
    NoNode(0.3),
    unavailable(0.3),
    unavailable(0.3, error="NotLeaderError"),
    Answered(0.3, "b", 429, "OverloadedError"),
    Answered(0.3, "b", 507, "InsufficientStorageError"),
]


@pytest.mark.parametrize("doubt", DOUBTS)
@pytest.mark.parametrize("later", ASSURANCES)
def test_what_a_later_attempt_did_not_do_says_nothing_of_the_first(doubt: Event, later: Event) -> None:
    _, verdict = drive(writing(1.0, 1.0), doubt, Woken(0.2), later, Woken(1.0), NotSent(1.0, "a"))
    assert isinstance(verdict, GiveUp)
    assert (verdict.status, verdict.error) == (504, "OutcomeUnknownError")


@pytest.mark.parametrize(("status", "error"), [(429, "OverloadedError"), (507, "InsufficientStorageError")])
def test_a_full_queue_or_disk_is_passed_on_at_once(status: int, error: str) -> None:
    assert drive(writing(10.0, 10.0), Answered(0.1, "a", status, error))[1] == Relay()


def test_without_a_leader_a_write_waits_for_news_and_not_for_a_clock() -> None:
    actions, _ = drive(writing(10.0, 10.0), NoNode(1.0))
    assert actions[1] == Hold(9.0)


def test_pauses_grow_to_a_bound_and_start_small_again_after_an_election() -> None:
    steps = writing(10.0, 10.0)
    next(steps)
    waits: list[float] = []
    for _ in range(6):
        action = steps.send(unavailable(0.0))
        assert isinstance(action, Hold)
        waits.append(action.wait_s)
        steps.send(Woken(0.0))
    assert waits == [0.025, 0.05, 0.1, 0.2, 0.2, 0.2]
    steps.send(NoNode(0.0))
    steps.send(Woken(0.0))
    assert steps.send(unavailable(0.0)) == Hold(0.025)


OUTCOMES = st.sampled_from(
    ["answer", "unavailable", "fault", "unknown", "full", "refused", "broken", "nobody"]
)
SURELY_NOT = {"unavailable", "refused", "nobody"}


def _event(outcome: str, now: float, node: str) -> Event:
    match outcome:
        case "answer":
            return Answered(now, node, 201)
        case "unavailable":
            return unavailable(now, node)
        case "fault":
            return unavailable(now, node, "NodeFaultError")
        case "unknown":
            return Answered(now, node, 504, "OutcomeUnknownError")
        case "full":
            return Answered(now, node, 429, "OverloadedError")
        case "refused":
            return NotSent(now, node)
        case "broken":
            return Broken(now, node)
        case _:
            return NoNode(now)


@given(st.sampled_from(["read", "write"]), st.lists(st.tuples(OUTCOMES, st.sampled_from("abc"))))
def test_every_run_ends_soon_after_the_deadline_and_503_is_never_a_lie(
    kind: Any, script: list[tuple[str, str]]
) -> None:
    steps = attempts(kind, 1.0, 1.0)
    action = next(steps)
    now = 0.0
    seen: list[str] = []
    turns = iter(script)
    late = 0
    while True:
        if isinstance(action, Hold):
            assert 0 < action.wait_s <= 1.0
            assert now < 1.0, "held after the deadline"
            now += action.wait_s
            event: Event = Woken(now)
        else:
            outcome, node = next(turns, ("nobody", "a"))
            if node in action.avoid:
                outcome = "nobody"
            now += 0.01
            seen.append(outcome)
            event = _event(outcome, now, node)
        late += now >= 1.0
        assert late < 10
        try:
            action = steps.send(event)
        except StopIteration as stop:
            verdict: Ending = stop.value
            break
    if isinstance(verdict, GiveUp) and verdict.status == 503 and kind == "write":
        assert set(seen) <= SURELY_NOT
    if isinstance(verdict, GiveUp) and verdict.status == 504:
        assert not set(seen) <= SURELY_NOT


@pytest.mark.parametrize("error", ["EngineDiedError", "QuarantinedError"])
def test_a_read_that_took_an_engine_down_is_tried_nowhere_else(error: str) -> None:
    actions, verdict = drive(reading(10.0, 10.0), Answered(0.1, "a", 500, error))
    assert (actions, verdict) == ([Send()], Relay())


def test_a_read_that_fails_at_one_node_is_asked_of_one_other_and_the_first_is_told() -> None:
    actions, verdict = drive(
        reading(10.0, 10.0), Answered(0.1, "a", 500, "InternalError"), Answered(0.2, "b", 200)
    )
    assert actions == [Send(), Send(frozenset({"a"}))]
    assert verdict == Relay(doubtful="a")


@pytest.mark.parametrize(
    "second",
    [Answered(0.2, "b", 500, "InternalError"), Answered(0.2, "b", 500, "EngineDiedError"), NoNode(0.2)],
)
def test_a_read_that_fails_everywhere_blames_nobody(second: Any) -> None:
    actions, verdict = drive(reading(10.0, 10.0), Answered(0.1, "a", 500, "InternalError"), second)
    assert (len(actions), verdict) == (2, Relay())
