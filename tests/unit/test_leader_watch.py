"""An answer of the leader is awaited only while it may still come."""

from __future__ import annotations

import asyncio

import pytest

from cluster.leader_watch import LeaderChanged, unless_leader_changes


def test_the_answer_is_passed_on() -> None:
    async def answer() -> int:
        return 7

    assert asyncio.run(unless_leader_changes(answer(), "a", lambda: "b", leaderless_s=60)) == 7


def test_the_error_is_passed_on() -> None:
    async def broken() -> int:
        raise OSError("gone")

    with pytest.raises(OSError, match="gone"):
        asyncio.run(unless_leader_changes(broken(), "a", lambda: "a", leaderless_s=60))


@pytest.mark.parametrize(("now_leads", "leaderless_s"), [("b", 60.0), (None, 0.0)])
def test_the_question_is_dropped_when_the_leader_changed(now_leads: str | None, leaderless_s: float) -> None:
    dropped: list[bool] = []

    async def hang() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            dropped.append(True)

    with pytest.raises(LeaderChanged):
        asyncio.run(unless_leader_changes(hang(), "a", lambda: now_leads, leaderless_s=leaderless_s))
    assert dropped == [True]


def test_a_moment_without_a_leader_drops_nothing() -> None:
    seen = iter(["a", None, "a", None])

    async def course() -> str:
        done = asyncio.Event()

        def leader() -> str | None:
            now_leads = next(seen, "a")
            if now_leads == "a" and not list(seen):
                done.set()
            return now_leads

        async def answer() -> str:
            await done.wait()
            return "late"

        return await unless_leader_changes(answer(), "a", leader, leaderless_s=60)

    assert asyncio.run(course()) == "late"
