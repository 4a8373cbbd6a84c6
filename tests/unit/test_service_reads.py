"""What reads do while a collection is hidden: wait without a thread, and look again if it may be read."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from cluster.errors import Hidden, Refusal
from cluster.reads import Level
from cluster.service import reads as module
from cluster.service.reads import Reads
from cluster.state.refusals import Trouble


class Host:
    """Applier, waiting and health of a node, and an engine; one collection is hidden for some looks."""

    def __init__(self, looks: int) -> None:
        self.looks = looks
        self.asked = 0
        self.broken: Trouble | None = None
        self.then: Trouble | None = None

    def started_index(self, collection_id: str | None) -> int:
        return 7

    def trouble(self, collection_id: str) -> Trouble | None:
        return self.broken

    def require_serving(self) -> None: ...

    async def guaranteed(self, *_: Any, **__: Any) -> Any:
        return SimpleNamespace(check=lambda: None)

    def __getattr__(self, name: str) -> Any:
        return lambda *_, **__: None

    def get(self, collection_id: str) -> str:
        if collection_id != "hidden":
            return "at once"
        self.asked += 1
        if self.asked <= self.looks:
            self.broken = self.then
            raise Hidden("a write is half done")
        return "shown"


def reads_of(host: Host) -> Reads:
    return Reads(host, host, host, host, 1)  # type: ignore[arg-type]


async def read(reads: Reads, name: str) -> tuple[str, int]:
    return await reads.read(Level.EVENTUAL, None, None, name, lambda engine: engine.get(name))  # type: ignore[arg-type,attr-defined]


def test_a_hidden_collection_is_waited_for_and_takes_no_thread_from_others() -> None:
    host = Host(looks=3)

    async def both() -> None:
        reads = reads_of(host)
        waiting = asyncio.create_task(read(reads, "hidden"))
        assert await read(reads, "other") == ("at once", 7)  # there is one thread for both
        assert await waiting == ("shown", 7)
        reads.close()

    asyncio.run(both())
    assert host.asked == 4


def test_who_waited_for_what_is_then_set_aside_does_not_touch_it() -> None:
    host = Host(looks=1)

    async def wait() -> None:
        reads = reads_of(host)
        host.then = Trouble(1, True, "it died")
        with pytest.raises(Refusal, match="set aside"):
            await read(reads, "hidden")
        reads.close()

    asyncio.run(wait())
    assert host.asked == 1


def test_it_is_not_waited_for_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_HIDDEN_S", 0.05)

    async def wait() -> None:
        reads = reads_of(Host(looks=1_000_000))
        with pytest.raises(Hidden):
            await read(reads, "hidden")
        reads.close()

    asyncio.run(wait())
