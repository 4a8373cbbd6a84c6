"""When a forwarded write is sent again: the generator, driven without a loop, a socket or a clock."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.api.retry import (
    HOLD_S,
    Action,
    Answered,
    Broken,
    Deposed,
    Ending,
    Event,
    FateUnknown,
    Hold,
    Late,
    NotReached,
    NotSent,
    Relay,
    Send,
    Woken,
    forwarding,
)


def drive(*events: Event, leader: str | None = "a") -> tuple[list[Action], Ending | None]:
    """What the generator asked for, event by event, and its ending if it came to one."""
    steps = forwarding(0.0, leader)
    actions: list[Action] = [next(steps)]
    for event in events:
        try:
            actions.append(steps.send(event))
        except StopIteration as stop:
            return actions, stop.value
    return actions, None


def unavailable(now: float, error: str = "UnavailableError") -> Answered:
    return Answered(now, 503, error)


@pytest.mark.parametrize("status", [200, 201, 400, 404, 409, 413, 422, 500])
def test_an_answer_is_relayed(status: int) -> None:
    assert drive(Answered(0.1, status))[1] == Relay()


@pytest.mark.parametrize(("status", "error"), [(429, "OverloadedError"), (507, "InsufficientStorageError")])
def test_a_full_queue_is_the_answer_unless_an_earlier_attempt_may_be_in_it(status: int, error: str) -> None:
    full = Answered(0.3, status, error)
    assert drive(full)[1] == Relay()
    actions, ending = drive(Broken(0.1), Woken(0.2, "b"), full, Woken(0.4, "b"), Answered(0.5, 201))
    assert actions[2:] == [Send("b"), Hold(0.05), Send("b")]
    assert ending == Relay()


@pytest.mark.parametrize(
    "failure",
    [
        NotSent(0.1),
        Broken(0.1),
        Deposed(0.1, "b"),
        unavailable(0.1),
        unavailable(0.1, "NotLeaderError"),
        unavailable(0.1, "NodeFaultError"),
        Answered(0.1, 502),
        Answered(0.1, 504, "OutcomeUnknownError"),
    ],
)
def test_what_failed_is_sent_to_whoever_leads_after_a_pause(failure: Event) -> None:
    actions, ending = drive(failure, Woken(0.2, "b"), Answered(0.3, 201))
    assert actions == [Send("a"), Hold(0.025), Send("b")]
    assert ending == Relay()


@pytest.mark.parametrize(
    ("failures", "expected"),
    [
        ([NotSent(HOLD_S)], NotReached("a")),
        ([NotSent(1.0), Woken(1.1, None), NotSent(HOLD_S)], NotReached(None)),
        ([unavailable(HOLD_S)], Relay()),
        ([unavailable(HOLD_S, "NotLeaderError")], Relay()),
        ([unavailable(1.0), Woken(1.1, "b"), NotSent(HOLD_S)], NotReached("b")),
        ([unavailable(HOLD_S, "NodeFaultError")], FateUnknown()),
        ([unavailable(HOLD_S, "")], FateUnknown()),
        ([Answered(HOLD_S, 502)], FateUnknown()),
        ([Answered(HOLD_S, 504, "OutcomeUnknownError")], FateUnknown()),
        # Once in doubt, always in doubt: that a later attempt changed nothing says nothing about the first.
        ([Broken(0.0), Woken(0.1, "b"), unavailable(HOLD_S)], FateUnknown()),
        ([Broken(0.0), Woken(0.1, "b"), Answered(HOLD_S, 429, "OverloadedError")], FateUnknown()),
        ([Broken(0.0), Woken(0.1, "b"), Answered(HOLD_S, 507, "InsufficientStorageError")], FateUnknown()),
        ([Deposed(0.0, "b"), Woken(0.1, "b"), NotSent(HOLD_S)], FateUnknown()),
    ],
)
def test_the_last_word_is_honest(failures: list[Event], expected: Ending) -> None:
    assert drive(*failures)[1] == expected


DOUBTS = [
    Broken(0.1),
    Deposed(0.1, "b"),
    unavailable(0.1, "NodeFaultError"),
    unavailable(0.1, ""),
    Answered(0.1, 502),
    Answered(0.1, 504, "OutcomeUnknownError"),
]
ASSURANCES = [
    NotSent(0.3),
    Late(0.3),
    unavailable(0.3),
    unavailable(0.3, "NotLeaderError"),
    Answered(0.3, 429, "OverloadedError"),
    Answered(0.3, 507, "InsufficientStorageError"),
]


@pytest.mark.parametrize("doubt", DOUBTS)
@pytest.mark.parametrize("later", ASSURANCES)
@pytest.mark.parametrize("last", [NotSent(20.0), unavailable(20.0), Late(20.0)])
def test_what_a_later_attempt_did_not_do_says_nothing_of_the_first(
    doubt: Event, later: Event, last: Event
) -> None:
    _, ending = drive(doubt, Woken(0.2, "b"), later, Woken(0.4, "b"), last)
    assert ending == FateUnknown()


def test_a_deposed_leader_without_a_successor_ends_it_at_once() -> None:
    assert drive(Deposed(0.1, None))[1] == FateUnknown()


def test_a_successor_gets_its_chance_however_long_the_old_leader_took() -> None:
    _, ending = drive(Deposed(60.0, "b"), Woken(60.1, "b"), NotSent(60.0 + HOLD_S - 0.1))
    assert ending is None
    _, ending = drive(Deposed(60.0, "b"), Woken(60.1, "b"), NotSent(60.0 + HOLD_S))
    assert ending == FateUnknown()


def test_a_leader_whose_connection_broke_is_awaited_for_the_rest_of_the_time_only() -> None:
    actions, _ = drive(Broken(4.0), Woken(4.1, "a"))
    assert actions[2] == Send("a", 4.0 + HOLD_S)
    # The second break brings no more time, and the time that is over ends it.
    actions, _ = drive(Broken(4.0), Woken(4.1, "a"), Broken(8.0), Woken(8.1, "a"))
    assert actions[4] == Send("a", 4.0 + HOLD_S)
    assert drive(Broken(4.0), Woken(4.1, "a"), Late(4.0 + HOLD_S))[1] == FateUnknown()


def test_another_leader_is_trusted_again() -> None:
    actions, _ = drive(Broken(1.0), Woken(1.1, "b"), Broken(2.0), Woken(2.1, "a"))
    assert actions[2] == Send("b")
    assert actions[4] == Send("a")


def test_pauses_grow_to_a_bound() -> None:
    steps = forwarding(0.0, "a")
    next(steps)
    waits: list[float] = []
    for _ in range(6):
        action = steps.send(NotSent(0.0))
        assert isinstance(action, Hold)
        waits.append(action.wait_s)
        steps.send(Woken(0.0, "a"))
    assert waits == [0.025, 0.05, 0.1, 0.2, 0.2, 0.2]


OUTCOMES = st.sampled_from(["answer", "unavailable", "fault", "full", "not sent", "broken", "deposed"])
SURELY_NOT = {"unavailable", "full", "not sent"}


def _event(outcome: str, now: float, successor: str) -> Event:
    match outcome:
        case "answer":
            return Answered(now, 201)
        case "unavailable":
            return unavailable(now)
        case "fault":
            return unavailable(now, "NodeFaultError")
        case "full":
            return Answered(now, 429, "OverloadedError")
        case "not sent":
            return NotSent(now)
        case "broken":
            return Broken(now)
        case _:
            return Deposed(now, successor)


@given(st.lists(st.tuples(OUTCOMES, st.sampled_from("abc"), st.floats(0.0, 2.0))))
def test_every_run_ends_and_nothing_was_sent_is_never_a_lie(script: list[tuple[str, str, float]]) -> None:
    leader, now = "a", 0.0
    steps = forwarding(now, leader)
    action: Action = next(steps)
    seen: list[str] = []
    turns = iter(script)
    sent_after = 0
    ending: Any = None
    while ending is None:
        if isinstance(action, Hold):
            now += action.wait_s
            event: Event = Woken(now, leader)
        else:
            outcome, successor, took = next(turns, ("not sent", leader, 0.1))
            sent_after += len(seen) >= len(script)
            assert sent_after < 100, "goes on for ever"
            now += took
            if action.until is not None and now > action.until:
                now = action.until
                event = Late(now)
            else:
                event = _event(outcome, now, successor)
            seen.append(outcome)
            leader = successor
        try:
            action = steps.send(event)
        except StopIteration as stop:
            ending = stop.value
    if isinstance(ending, NotReached):
        assert set(seen) <= SURELY_NOT
    if isinstance(ending, FateUnknown):
        assert not set(seen) <= SURELY_NOT
