"""When a process of Chroma is ended: by simulated samples of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from cluster.chroma.backoff import Backoff
from cluster.chroma.death import death_of
from cluster.chroma.watchdog import TICK_S, Kill, Limits, Sample, Underway, Watchdog
from cluster.errors import EngineDied, EngineUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

READ, WRITE = Underway(1, reads=True), Underway(2, reads=False)


def watch(
    dog: Watchdog,
    sample: Callable[[int], Sample],
    calls: Sequence[Underway],
    for_s: float,
    tick_s: float = TICK_S,
    start: float = 0.0,
) -> tuple[list[object], float]:
    """The verdicts, up to the first that kills, and when that was."""
    said: list[object] = []
    for turn in range(int(for_s / tick_s) + 1):
        now = start + turn * tick_s
        said.append(dog.observe(now, sample(turn), calls))
        if isinstance(said[-1], Kill):
            return said, now - start
    return said, for_s


def test_a_write_that_works_for_minutes_is_left_alone() -> None:
    said, _ = watch(Watchdog(Limits()), lambda turn: Sample(turn), [WRITE], 600)
    assert set(said) == {"fine"}


def test_a_write_that_gets_on_now_and_then_is_left_alone() -> None:
    said, _ = watch(Watchdog(Limits()), lambda turn: Sample(turn // 12), [WRITE], 600)  # every 3 s
    assert not [verdict for verdict in said if isinstance(verdict, Kill)]


def test_quiet_with_work_is_said_after_one_second_and_ended_after_four() -> None:
    said, at = watch(Watchdog(Limits()), lambda _: Sample(7), [READ, WRITE], 60)
    assert 4.0 <= at <= 4.5
    assert isinstance(said[-1], Kill)
    assert (said[-1].why, said[-1].culprits) == ("hung", {1, 2})
    assert said.index("stalled") in range(4, 7)


def test_who_came_late_to_a_hang_is_no_suspect() -> None:
    dog = Watchdog(Limits())
    watch(dog, lambda _: Sample(7), [WRITE], 3.0)
    said, _ = watch(dog, lambda _: Sample(7), [WRITE, READ], 60, start=3.25)
    assert isinstance(said[-1], Kill)
    assert said[-1].culprits == {2}


def test_short_reads_do_not_hide_a_write_that_hangs() -> None:
    """A call is answered every second: as a status that counts documents makes one."""
    dog = Watchdog(Limits())
    said, at = watch(dog, lambda turn: Sample(turn // 4, answers=turn // 4), [WRITE], 60)
    assert 4.0 <= at <= 7.0
    assert isinstance(said[-1], Kill)
    assert (said[-1].why, said[-1].culprits) == ("hung", {2})


def test_reads_without_a_pause_are_held_back_to_see_whether_the_write_gets_on() -> None:
    dog = Watchdog(Limits())
    said, _ = watch(dog, lambda turn: Sample(turn, answers=turn), [WRITE], 7.5)
    assert set(said) == {"fine"}
    assert not dog.wants_silence
    watch(dog, lambda turn: Sample(100 + turn, answers=100 + turn), [WRITE], 1.0, start=7.75)
    assert dog.wants_silence
    # It is silent, and the write works.
    watch(dog, lambda turn: Sample(200 + turn, answers=104), [WRITE], 0.5, start=9.0)
    assert not dog.wants_silence
    # Again; this time nothing moves.
    watch(dog, lambda turn: Sample(300 + turn, answers=200 + turn), [WRITE], 8.5, start=10.0)
    assert dog.wants_silence
    said, at = watch(dog, lambda _: Sample(400, answers=400), [WRITE], 60, start=19.0)
    assert isinstance(said[-1], Kill)
    assert 4.0 <= at <= 4.75
    dog.new_process()
    assert not dog.wants_silence


def test_nobody_is_held_back_for_a_write_that_waits_for_a_long_read() -> None:
    dog = Watchdog(Limits(read_limit_s=None))
    for turn in range(400):
        assert not isinstance(dog.observe(turn * TICK_S, Sample(turn), [READ, WRITE]), Kill)
        assert not dog.wants_silence


def test_quiet_without_work_is_well() -> None:
    said, _ = watch(Watchdog(Limits()), lambda _: Sample(7), [], 60)
    assert set(said) == {"fine"}


def test_a_process_that_waits_for_the_disk_is_hung_but_not_ended() -> None:
    said, _ = watch(Watchdog(Limits()), lambda _: Sample(7, waits_for_disk=True), [WRITE], 60)
    assert said[-1] == "stalled"


@pytest.mark.parametrize("calls", [[], [READ]])
def test_a_stopped_process_is_ended_also_while_idle_and_nobody_is_to_blame(calls: list[Underway]) -> None:
    said, at = watch(Watchdog(Limits()), lambda _: Sample(7, stopped=True), calls, 60)
    assert 1.5 <= at <= 2.0
    assert isinstance(said[-1], Kill)
    assert (said[-1].why, said[-1].culprits) == ("stopped", frozenset())


def test_a_read_that_never_ends_is_to_blame_and_each_time_it_gets_longer() -> None:
    dog = Watchdog(Limits())
    start = 0.0
    for expected in (25, 50, 100):
        dog.new_process()
        said, at = watch(dog, lambda turn: Sample(turn, runs=True), [READ, WRITE], 500, start=start)
        assert expected <= at <= expected + 1
        assert isinstance(said[-1], Kill)
        assert (said[-1].why, said[-1].culprits) == ("slow", {1})
        start += at + 10
    dog.new_process()
    _, at = watch(dog, lambda turn: Sample(turn), [READ], 500, start=start + 7200)
    assert at < 30, "after two hours it is forgiven"


def test_time_in_which_this_process_stood_still_is_nobodys() -> None:
    dog = Watchdog(Limits())
    said, _ = watch(dog, lambda _: Sample(7), [READ], 90, tick_s=30)
    assert not [verdict for verdict in said if isinstance(verdict, Kill)]


def test_a_new_process_begins_from_nothing() -> None:
    dog = Watchdog(Limits())
    watch(dog, lambda _: Sample(7), [WRITE], 3.5)
    dog.new_process()
    said, at = watch(dog, lambda _: Sample(7), [WRITE], 60, start=10)
    assert at >= 4.0, said


def test_back_off_grows_and_is_reset_by_a_long_life() -> None:
    backoff = Backoff()
    assert [backoff.after(1.0) for _ in range(7)] == [0.0, 0.2, 0.5, 1.0, 2.0, 5.0, 5.0]
    assert backoff.after(31.0) == 0.0
    assert backoff.after(1.0) == 0.2


@pytest.mark.parametrize(
    ("returncode", "underway", "proven"),
    [
        (-11, {1}, True),
        (-6, {1}, True),
        (3, {1}, True),
        (-11, {1, 2}, False),
        (-9, {1}, False),
        (-15, {1}, False),
    ],
)
def test_a_call_is_proven_to_be_the_cause_only_if_it_was_alone_in_a_crash(
    returncode: int, underway: set[int], proven: bool
) -> None:
    death = death_of(77, returncode, frozenset(underway), None, None)
    verdict = death.verdict(1)
    assert isinstance(verdict, EngineDied)
    assert verdict.proven is proven
    assert "77" in verdict.message
    assert death.verdict(9) is None, "that call was not begun"


@pytest.mark.parametrize(("why", "blamed"), [("stopped", set[int]()), ("slow", {1}), ("hung", {1, 2})])
def test_who_is_not_to_blame_for_a_kill_may_try_elsewhere(why: str, blamed: set[int]) -> None:
    kill = Kill(why, frozenset(blamed), 4.0)  # type: ignore[arg-type]
    death = death_of(77, -9, frozenset({1, 2, 3}), kill, None)
    verdicts = {number: death.verdict(number) for number in (1, 2, 3)}
    assert {number for number, verdict in verdicts.items() if isinstance(verdict, EngineDied)} == blamed
    assert all(isinstance(verdicts[number], EngineUnavailable) for number in {1, 2, 3} - blamed)


def test_nobody_is_to_blame_for_a_restart_that_was_asked_for() -> None:
    death = death_of(77, -9, frozenset({1}), None, "to check")
    assert isinstance(death.verdict(1), EngineUnavailable)
