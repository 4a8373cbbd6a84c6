"""A write that nobody waits for any more: dropped before the log, counted until decided after it."""

from __future__ import annotations

import asyncio
from concurrent.futures import Future
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest

from cluster.errors import Overloaded, Unavailable
from cluster.propose.grouping import GroupLimits
from cluster.propose.proposer import Proposer
from cluster.raft.interface import Position
from cluster.service.writes import Writes
from cluster.state.catalog import Outcome
from cluster.state.commands import WriteRecords

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from cluster.acks import Ack

OK = Outcome(201, {})


class Bench:
    """Real line, proposer and writes; a log and an applier that do what the test says."""

    def __init__(
        self, timeout_ms: int = 60_000, require: Callable[[Any], None] = lambda command: None
    ) -> None:
        """`require` says which commands all members understand."""
        self.proposed: list[Future[Position]] = []
        self.expected: dict[str, Future[Any]] = {}
        limits = GroupLimits(in_flight=1, queue_bytes=10_000)
        loop = asyncio.get_running_loop()
        self.proposer = Proposer(cast("Any", self), limits, lambda: 0, loop)
        leader = SimpleNamespace(is_here=lambda: True, id=lambda: "a")
        health = SimpleNamespace(require_serving=lambda: None)
        room = SimpleNamespace(require=lambda command: None)
        leveling = SimpleNamespace(require=require)
        parts = (self, self.proposer, leader, health, room, leveling)
        self.writes = Writes(*cast("Any", parts), timeout_ms=timeout_ms)

    def propose(self, payload: bytes) -> Future[Position]:
        del payload
        self.proposed.append(Future())
        return self.proposed[-1]

    def expect(self, request_id: str) -> Future[Any]:
        return self.expected.setdefault(request_id, Future())

    def forget(self, request_id: str, future: Future[Any] | None = None) -> None:
        del future
        self.expected.pop(request_id, None)

    def write(self, key: str, ack: Ack = "applied") -> asyncio.Task[Any]:
        command = WriteRecords("add", "c", (key,), 1, (b"\0\0\0\0",), None, ("x" * 3_000,), None)
        return asyncio.create_task(self.writes.write(command, key=key, digest=b"d", ack=ack))

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(30):
            while not condition():  # noqa: ASYNC110
                await asyncio.sleep(0)


def run(scenario: Coroutine[Any, Any, None]) -> None:
    asyncio.run(scenario)


def test_what_not_all_members_understand_is_not_proposed() -> None:
    def refuse(command: Any) -> None:
        raise Unavailable(f"not all understand {type(command).__name__}")

    async def scenario() -> None:
        bench = Bench(require=refuse)
        with pytest.raises(Unavailable, match="not all understand WriteRecords"):
            await bench.write("first")
        assert bench.proposed == []
        assert bench.expected == {}
        assert bench.proposer.queued_bytes == 0

    run(scenario())


@pytest.mark.parametrize("ack", ["applied", "committed"])
def test_a_write_whose_client_is_gone_leaves_the_line_at_once(ack: Ack) -> None:
    async def scenario() -> None:
        bench = Bench()
        bench.write("first", ack)
        waiting = bench.write("second", ack)
        await bench.until(lambda: bench.proposer.queued_bytes > 6_000)
        waiting.cancel()
        await bench.until(lambda: bench.proposer.queued_bytes < 4_000)
        assert list(bench.expected) == ["k:first"]
        bench.proposed[0].set_result(Position(1, 1))
        bench.expected["k:first"].set_result((OK, 1))
        await bench.until(lambda: bench.proposer.queued_bytes == 0)
        assert len(bench.proposed) == 1

    run(scenario())


@pytest.mark.parametrize("ack", ["applied", "committed"])
@pytest.mark.parametrize("committed_first", [True, False])
def test_a_write_in_the_log_counts_until_it_is_decided_also_if_its_client_is_gone(
    ack: Ack, committed_first: bool
) -> None:
    async def scenario() -> None:
        bench = Bench()
        task = bench.write("first", ack)
        await bench.until(lambda: len(bench.proposed) == 1)
        if committed_first:
            bench.proposed[0].set_result(Position(1, 1))
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        if not committed_first:
            bench.proposed[0].set_result(Position(1, 1))
        await asyncio.sleep(0.01)
        assert bench.proposer.queued_bytes > 3_000
        bench.expected["k:first"].set_result((OK, 1))
        await bench.until(lambda: bench.proposer.queued_bytes == 0)
        assert bench.expected == {}

    run(scenario())


def test_a_write_that_the_log_lost_gives_its_bytes_back() -> None:
    async def scenario() -> None:
        bench = Bench()
        task = bench.write("first")
        await bench.until(lambda: len(bench.proposed) == 1)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        bench.proposed[0].set_exception(Overloaded("gone"))
        await bench.until(lambda: bench.proposer.queued_bytes == 0)
        assert bench.expected == {}

    run(scenario())


def test_a_write_that_the_log_did_not_take_in_time_surely_changed_nothing() -> None:
    async def scenario() -> None:
        bench = Bench(timeout_ms=100)
        first = bench.write("first")
        second = bench.write("second")
        with pytest.raises(Overloaded, match="changed nothing"):
            await second
        first.cancel()

    run(scenario())
