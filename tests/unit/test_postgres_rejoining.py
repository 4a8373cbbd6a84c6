"""When an old primary is made to follow the new one, and when it is left alone."""

from __future__ import annotations

import asyncio
import dataclasses
from typing import TYPE_CHECKING

import pytest

from evaluation.failure import SystemFailure
from evaluation.processes import wait_until
from evaluation.systems.interface import Observation
from evaluation.systems.postgres import rejoining
from evaluation.systems.postgres.rejoining import Agent, Hands, Word, whom_to_follow
from evaluation.systems.postgres.seen import Seen, fenced
from evaluation.systems.postgres.servers import Condition, Server

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

WORD = Word("pg-2", 2, ("pg-1",))
OLD = Observation("pg-1", 0, "primary", term=1)


def test_an_old_primary_that_is_fenced_is_made_to_follow() -> None:
    assert whom_to_follow(WORD, OLD, Condition.RUNNING) == "pg-2"


def test_what_was_taken_down_goes_on_whatever_it_was() -> None:
    silent = Observation("pg-1", 0, "stopped", healthy=False)
    assert whom_to_follow(dataclasses.replace(WORD, fenced=()), silent, Condition.TAKEN_DOWN) == "pg-2"
    assert whom_to_follow(dataclasses.replace(WORD, primary=None), silent, Condition.TAKEN_DOWN) is None


@pytest.mark.parametrize("condition", [Condition.DEAD, Condition.PAUSED, Condition.FULL])
def test_a_server_that_does_not_run_as_it_should_is_left_alone(condition: Condition) -> None:
    assert whom_to_follow(WORD, OLD, condition) is None


@pytest.mark.parametrize(
    ("word", "seen"),
    [
        (None, OLD),  # cut off
        (Word(None, 2, ("pg-1",)), OLD),  # nobody to follow
        (Word("pg-2", 2, ()), OLD),  # not fenced, or seen by nobody
        (Word("pg-2", 2, ("pg-3",)), OLD),
        (Word("pg-1", 1, ("pg-1",)), OLD),  # the primary itself
        (WORD, dataclasses.replace(OLD, term=2)),  # not older than the supervisor's primary
        (WORD, dataclasses.replace(OLD, term=None)),
        (WORD, dataclasses.replace(OLD, role="replica")),
        (WORD, dataclasses.replace(OLD, role="silent")),
    ],
)
def test_in_doubt_it_is_left_alone(word: Word | None, seen: Observation) -> None:
    assert whom_to_follow(word, seen, Condition.RUNNING) is None


def _seen(member: str, *, replica: bool = False, read_only: bool = False) -> Seen:
    return Seen(member, replica, 1, 0, "", "", read_only)


def test_the_supervisor_names_old_primaries_that_are_read_only() -> None:
    new, old = _seen("pg-2"), _seen("pg-1", read_only=True)
    others = {"pg-2": new, "pg-3": _seen("pg-3", replica=True)}
    assert fenced({"pg-1": old, **others}, "pg-2") == ("pg-1",)
    assert fenced({"pg-1": _seen("pg-1"), **others}, "pg-2") == ()  # not yet
    assert fenced({"pg-1": _seen("pg-1", replica=True, read_only=True), **others}, "pg-2") == ()
    assert fenced(others, "pg-2") == ()


def test_without_a_primary_nobody_is_named() -> None:
    old = _seen("pg-1", read_only=True)
    assert fenced({"pg-1": old}, "pg-2") == ()
    assert fenced({"pg-1": old, "pg-2": _seen("pg-2", replica=True)}, "pg-2") == ()
    assert fenced({"pg-1": old}, "pg-1") == ()


class Stage(Server):
    """A server without processes, and an agent's hands that write down what they do."""

    def __init__(self, folder: Path, words: Iterator[Word | None], failing: str = "") -> None:
        super().__init__("pg-1", folder / "pg-1", 1, folder, folder / "log")
        self.state = Condition.RUNNING
        self.done: list[str] = []
        self._words = words
        self._failing = failing
        self.agent = Agent(self, Hands(self.hear, self.look, self.prepare, self.fill, self.done.append))

    def condition(self) -> Condition:
        return self.state

    @property
    def taken_down(self) -> bool:
        return self.state is Condition.TAKEN_DOWN

    async def take_down(self) -> None:
        assert self.lock.locked()
        self.done.append("taken down")
        self.state = Condition.TAKEN_DOWN

    async def hear(self) -> Word | None:
        return next(self._words)

    async def look(self) -> Observation:
        return OLD

    async def prepare(self, primary: str) -> None:
        await self._do(f"prepare {primary}")

    async def fill(self, primary: str) -> None:
        assert self.lock.locked()
        await self._do(f"fill from {primary}")
        self.state = Condition.RUNNING

    async def _do(self, what: str) -> None:
        failing, self._failing = self._failing, ""
        if what == failing:
            raise SystemFailure(f"cannot {what}")
        self._failing = failing
        self.done.append(what)

    @property
    def acts(self) -> list[str]:
        return [text for text in self.done if not text.startswith("pg-1")]


def test_the_new_primary_is_reached_before_the_old_one_is_stopped(tmp_path: Path) -> None:
    stage = Stage(tmp_path, iter([WORD, WORD]))
    asyncio.run(stage.agent.attend())
    assert stage.acts == ["prepare pg-2", "taken down", "fill from pg-2"]


def test_what_is_no_business_of_its_own_costs_one_question(tmp_path: Path) -> None:
    stage = Stage(tmp_path, iter([Word("pg-1", 1, ())]))
    asyncio.run(stage.agent.attend())
    assert stage.done == []


@pytest.mark.parametrize("second", [None, Word("pg-3", 3, ("pg-1", "pg-2")), Word(None, 2, ("pg-1",))])
def test_nothing_is_stopped_for_a_word_that_has_changed(tmp_path: Path, second: Word | None) -> None:
    stage = Stage(tmp_path, iter([WORD, second]))
    asyncio.run(stage.agent.attend())
    assert stage.acts == ["prepare pg-2"]


def test_it_waits_for_whoever_is_at_the_server(tmp_path: Path) -> None:
    stage = Stage(tmp_path, iter([WORD, WORD]))

    async def body() -> None:
        async with stage.lock:
            attending = asyncio.create_task(stage.agent.attend())
            for _ in range(5):
                await asyncio.sleep(0)
            assert stage.done == []
            # The operator was faster: it is killed, and stays so.
            stage.state = Condition.DEAD
        await attending
        assert stage.acts == ["prepare pg-2"]

    asyncio.run(body())


@pytest.mark.parametrize("failing", ["prepare pg-2", "fill from pg-2"])
def test_what_fails_is_noted_and_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    monkeypatch.setattr(rejoining, "_RETRY_S", 0)
    monkeypatch.setattr(rejoining, "_PAUSE_S", 0)

    def words() -> Iterator[Word]:
        while True:
            yield WORD if "fill from pg-2" not in stage.done else Word("pg-2", 2, ())

    stage = Stage(tmp_path, words(), failing)

    async def filled() -> bool:
        return "fill from pg-2" in stage.done

    async def body() -> None:
        running = asyncio.create_task(stage.agent.run())
        await wait_until("it to be filled", filled, 10, pause_s=0)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running

    asyncio.run(body())
    assert any(failing in text and "tried again" in text for text in stage.done)
    assert stage.acts.count("taken down") == 1
    assert stage.acts[-1] == "fill from pg-2"
