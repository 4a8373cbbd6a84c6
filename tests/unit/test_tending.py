"""What a node does about its Chroma process, with a process, a raft and peers that do as they are told."""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import Future
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from cluster.apply.impasse import Impasse
from cluster.chroma.interface import Condition
from cluster.errors import (
    ClusterError,
    EngineDied,
    EngineUnavailable,
    Fault,
    NotHandedOver,
    Quarantined,
    Refusal,
)
from cluster.raft.interface import RaftStatus
from cluster.service.guard import Guard
from cluster.service.health import Health
from cluster.service.sickness import Sickness
from cluster.service.stewardship import Stewardship, is_to_hand_over, successors
from cluster.verify.alarms import Alarms

if TYPE_CHECKING:
    from collections.abc import Callable


class Tended:
    """Plays the process, and the reads that go to it."""

    def __init__(self, *failures: Exception) -> None:
        self.state: Any = "serving"
        self.restarted: list[str] = []
        self._failures = list(failures)

    def condition(self) -> Condition:
        return Condition(self.state, 0, 7, "7 crashed with SIGSEGV", 0.0)

    def restart(self, why: str) -> None:
        self.restarted.append(why)

    async def on_engine(self, fn: Callable[[Any], Any]) -> Any:
        if self._failures:
            raise self._failures.pop(0)
        return None


class DeafPeers:
    """Is told, and never answers in time."""

    def __init__(self) -> None:
        self.told: list[tuple[str, bytes, float]] = []

    async def tell_suspect(self, url: str, digest: bytes, cause: str, for_s: float) -> None:
        self.told.append((url, digest, for_s))
        await asyncio.sleep(60)


@pytest.mark.parametrize(
    ("leads", "down_s", "since_last_s", "expected"),
    [(True, 2.5, 10.0, True), (True, 1.9, 10.0, False), (False, 60.0, 10.0, False), (True, 60.0, 1.0, False)],
)
def test_a_leader_hands_over_after_two_seconds_and_not_all_the_time(
    leads: bool, down_s: float, since_last_s: float, expected: bool
) -> None:
    assert is_to_hand_over(leads=leads, down_s=down_s, since_last_s=since_last_s) is expected


def test_nobody_is_handed_leadership_whose_chroma_does_not_serve() -> None:
    stuck = {"healthy": True, "stuck": {"entry": 3}, "applied_index": 9}
    assert successors({"a": None, "b": {"healthy": False, "applied_index": 9}, "c": {}, "d": stuck}) == []
    well = {"b": {"healthy": True, "applied_index": 7}, "c": {"healthy": True, "applied_index": 8}}
    assert successors({**well, "a": None}) == ["c", "b"]
    assert successors({"b": {"healthy": True, "applied_index": "x"}}) == ["b"]


def test_who_does_not_take_over_is_followed_by_the_next_who_is_well() -> None:
    class Raft:
        def __init__(self) -> None:
            self.asked: list[str | None] = []
            self.enough = asyncio.Event()

        def status(self) -> Any:
            return RaftStatus("a", "leader", 1, "a", 1, 1, 1, 0.0)

        def transfer_leadership(self, to: str | None = None) -> Future[None]:
            self.asked.append(to)
            future: Future[None] = Future()
            if to == "c":
                future.set_exception(NotHandedOver("c is not connected to a."))
            else:
                future.set_result(None)
            if len(self.asked) == 2:
                self.enough.set()
            return future

    class Peers:
        async def status(self, url: str) -> dict[str, Any] | None:
            return {"http://c": {"healthy": True, "applied_index": 8}, "http://b": {"healthy": True}}.get(url)

    class Down:
        def condition(self) -> Condition:
            return Condition("hung", 0, 7, "", 5.0)

    raft = Raft()
    urls = {name: f"http://{name}" for name in "bcd"}
    stewardship = Stewardship(raft, Down(), Peers(), urls, Alarms(Path("nowhere/alarms.json")))  # type: ignore[arg-type]

    async def watch() -> None:
        task = asyncio.create_task(stewardship.watch())
        async with asyncio.timeout(20):
            await raft.enough.wait()
        task.cancel()

    asyncio.run(watch())
    assert raft.asked[:2] == ["c", "b"]


@pytest.mark.parametrize(("state", "words"), [("hung", "does nothing"), ("restarting", "SIGSEGV")])
def test_a_node_without_chroma_is_not_healthy_and_says_why(state: str, words: str) -> None:
    tended = Tended()
    raft = SimpleNamespace(status=lambda: SimpleNamespace(lacks=None))
    health = Health("node-1", raft, tended, Impasse(lambda: 0.0))  # type: ignore[arg-type]
    assert health.reason is None
    tended.state = state
    assert words in (health.reason or "")
    health.require_serving()  # it is for the engine to say that it is away: the catalogue is there


async def _checks(*failures: Exception) -> tuple[Tended, dict[str, Any], dict[str, Any]]:
    tended = Tended(*failures)
    sickness = Sickness(tended, tended)  # type: ignore[arg-type]
    return tended, await sickness.check("c"), await sickness.check("c")


@pytest.mark.parametrize(
    ("failures", "sick"),
    [
        ([], {}),
        ([EngineUnavailable("asked"), EngineUnavailable("away")], {}),
        ([EngineUnavailable("asked"), ClusterError("damaged")], {"c": "damaged"}),
        ([Fault("incomplete")], {"c": "incomplete"}),
        ([Refusal(404, "NotFoundError", "gone")], {}),
    ],
)
def test_a_doubted_collection_is_read_after_a_restart_of_chroma_and_not_again_at_once(
    failures: list[Exception], sick: dict[str, str]
) -> None:
    tended, first, second = asyncio.run(_checks(*failures))
    assert len(tended.restarted) == 1, "however often it is asked for"
    assert first == {"checked": True, "sick_collections": sick}
    assert second == {"checked": False, "sick_collections": sick}


def test_peers_are_told_and_deaf_ones_hold_the_answer_up_only_shortly() -> None:
    peers = DeafPeers()

    async def die() -> float:
        guard = Guard("node-1", peers, ["http://a", "http://b"])  # type: ignore[arg-type]
        began = time.monotonic()
        await guard.died(b"d", EngineDied("crashed", proven=True))
        with pytest.raises(Quarantined, match="node-1: crashed"):
            guard.admit(b"d")
        return time.monotonic() - began

    assert asyncio.run(die()) < 30, "they answer after a minute"
    assert peers.told == [("http://a", b"d", 60.0), ("http://b", b"d", 60.0)]
