"""What a node notices of itself: a leader heard over the log only, entries that it can get nowhere."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cluster.apply.impasse import Impasse
from cluster.errors import Unavailable
from cluster.raft.interface import Lack, RaftStatus
from cluster.service import vitals
from cluster.service.health import Health
from cluster.service.vitals import Vitals
from cluster.verify.alarms import Alarms


class Parts:
    """A follower of b, all of whose parts are well."""

    def __init__(self) -> None:
        self.answers: list[str | None] = []
        self.all_told = asyncio.Event()
        self.url = "http://b"
        self.raft = RaftStatus(
            "a", "follower", 3, "b", 1, 10, 10, 5.0, connected=("b", "c"), leader_commit=10
        )
        settings: Any = SimpleNamespace(
            ready_lag_ms=10_000, election_timeout_max_ms=2000, peers={"b": 0, "c": 0}
        )
        raft: Any = SimpleNamespace(status=lambda: self.raft)
        leader: Any = SimpleNamespace(is_here=lambda: False, url=lambda: self.url, id=lambda: "b")
        tending: Any = SimpleNamespace(condition=lambda: SimpleNamespace(state="serving"))
        applier: Any = SimpleNamespace(applied_index=10)
        peers: Any = self
        self.health = Health("a", raft, tending, Impasse(lambda: 0.0))
        self.vitals = Vitals(
            settings,
            raft,
            applier,
            leader,
            self.health,
            peers,
            Alarms(Path("nowhere/alarms.json")),
            clock=lambda: 1.0,
        )

    async def why_unreachable(self, url: str) -> str | None:
        assert url == self.url
        if not self.answers:
            self.all_told.set()
            await asyncio.Event().wait()
        return self.answers.pop(0)


async def _watch(parts: Parts, *answers: str | None) -> None:
    parts.answers = list(answers)
    task = asyncio.create_task(parts.vitals.watch_line())
    await parts.all_told.wait()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:  # pyright: ignore[reportUnusedFunction]
    monkeypatch.setattr(vitals, "_PING_S", 0)


@pytest.mark.parametrize(
    ("answers", "state"),
    [
        (["refused"] * 3, "leader out of reach"),
        (["refused"] * 2, "ready"),
        (["refused", "refused", None, "refused", "refused"], "ready"),
        (["refused"] * 5 + [None], "ready"),
    ],
)
def test_a_leader_that_fails_to_answer_three_times_in_a_row_is_out_of_reach(
    answers: list[str | None], state: str
) -> None:
    parts = Parts()
    asyncio.run(_watch(parts, *answers))
    assert parts.vitals.diagnosis().state == state
    trouble = parts.vitals.leader_trouble()
    assert (trouble is None) is (state == "ready")
    if trouble is not None:
        assert "follows b over the log, but cannot reach it over HTTP at http://b (refused)" in trouble


def test_a_node_that_lacks_entries_serves_no_read_and_says_why() -> None:
    parts = Parts()
    parts.health.require_serving()
    parts.raft = RaftStatus("a", "follower", 3, "b", 1, 0, 0, 5.0, leader_commit=10, lacks=Lack(1, 8))
    with pytest.raises(Unavailable, match=r"lacks log entries from 1 on.*Nothing was read.*ask another node"):
        parts.health.require_serving()
    assert parts.vitals.diagnosis().state == "lacks entries"
