"""The balancer over nodes that die, refuse, stall and change leaders: what clients get to see of it."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from typing import Any

import pytest

from tests.integration.lb_nodes import (
    COLLECTION_ID,
    Behaviour,
    answers,
    bench,
    breaks_off,
    dies_in_the_middle_of_its_answer,
    fails,
    hangs,
)


@pytest.mark.parametrize(
    "behaviour",
    [
        dies_in_the_middle_of_its_answer,
        breaks_off,
        fails(503, "UnavailableError"),
        fails(503, "NotLeaderError"),
        fails(503, "NodeFaultError"),
        fails(429, "OverloadedError"),
    ],
)
def test_a_read_that_fails_on_one_node_is_answered_by_another(behaviour: Behaviour) -> None:
    async def scenario() -> None:
        async with bench() as b:
            b.nodes[0].behaviour = b.nodes[1].behaviour = behaviour
            for _ in range(6):
                assert await b.get() == (200, {"node": "node-3"})
            assert b.nodes[0].received or b.nodes[1].received

    asyncio.run(scenario())


def test_a_read_on_a_node_that_hangs_is_answered_by_another_after_the_try_timeout() -> None:
    async def scenario() -> None:
        async with bench(2, read_try_timeout_ms=200) as b:
            b.nodes[0].behaviour = hangs
            assert [await b.get() for _ in range(2)] == [(200, {"node": "node-2"})] * 2

    asyncio.run(scenario())


def test_reads_under_way_on_a_node_that_is_ejected_are_answered_by_others() -> None:
    async def scenario() -> None:
        async with bench() as b:
            for node in b.nodes:
                node.behaviour = hangs
            waiting = [asyncio.create_task(b.get()) for _ in range(6)]
            await b.until(lambda: sum(len(node.received) for node in b.nodes) == 6, "all under way")
            b.nodes[1].behaviour = b.nodes[2].behaviour = answers
            b.nodes[0].become(healthy=False)
            stuck = {r.node_id for node in b.nodes for r in node.received}
            assert stuck == {"node-1", "node-2", "node-3"}
            done, _ = await asyncio.wait(waiting, timeout=10, return_when=asyncio.FIRST_COMPLETED)
            assert done
            assert all(task.result()[0] == 200 for task in done)
            for node in b.nodes[1:]:
                await node.kill()
            b.nodes[0].behaviour = answers
            b.nodes[0].become(healthy=True)
            assert {status for status, _ in await asyncio.gather(*waiting)} == {200}

    asyncio.run(scenario())


def test_a_killed_node_is_ejected_and_taken_back_when_it_returns() -> None:
    async def scenario() -> None:
        async with bench() as b:
            await b.nodes[2].kill()
            assert {(await b.get())[0] for _ in range(6)} == {200}
            await b.until(lambda: b.usable() == {"node-1", "node-2"}, "node-3 ejected")
            (row,) = [n for n in b.balancer.status()["nodes"] if n["id"] == "node-3"]
            assert row["reason"]
            await b.nodes[2].start()
            await b.until(lambda: len(b.usable()) == 3, "node-3 taken back")
            assert {(await b.get())[1]["node"] for _ in range(3)} == {"node-1", "node-2", "node-3"}

    asyncio.run(scenario())


def test_writes_are_held_through_an_election_and_none_sees_an_error() -> None:
    async def scenario() -> None:
        async with bench() as b:
            await b.nodes[0].kill()
            waiting = [asyncio.create_task(b.post()) for _ in range(20)]
            await b.until(lambda: b.balancer.status()["held"] >= 20, "all held")
            assert not any(task.done() for task in waiting)
            b.nodes[1].become(role="leader", term=2)
            assert await asyncio.gather(*waiting) == [(200, {"node": "node-2"})] * 20

    asyncio.run(scenario())


@pytest.mark.parametrize(
    "behaviour",
    [
        breaks_off,
        dies_in_the_middle_of_its_answer,
        fails(503, "NotLeaderError"),
        fails(503, "UnavailableError"),
        fails(504, "OutcomeUnknownError"),
        fails(503, "NodeFaultError"),
    ],
)
def test_a_write_that_fails_is_sent_to_the_next_leader_under_the_same_key(behaviour: Behaviour) -> None:
    async def scenario() -> None:
        async with bench() as b:
            b.nodes[0].behaviour = behaviour
            write = asyncio.create_task(b.post())
            await b.until(lambda: len(b.nodes[0].received) >= 2, "the first leader tried twice")
            b.nodes[0].become(role="follower")
            b.nodes[2].become(role="leader", term=2)
            assert await write == (200, {"node": "node-3"})
            sent = [r for node in b.nodes for r in node.received]
            assert len({r.headers["Idempotency-Key"] for r in sent}) == 1
            assert len({r.body for r in sent}) == 1

    asyncio.run(scenario())


def test_a_write_stuck_at_a_deposed_leader_goes_to_its_successor() -> None:
    """A leader cut off from its peers still claims its term, and still talks to the balancer."""

    async def scenario() -> None:
        async with bench() as b:
            b.nodes[0].behaviour = hangs
            write = asyncio.create_task(b.post())
            await b.until(lambda: bool(b.nodes[0].received), "the old leader has it")
            b.nodes[1].become(role="leader", term=2)
            assert await write == (200, {"node": "node-2"})

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("behaviour", "status", "error"),
    [
        (fails(503, "NotLeaderError"), 503, "UnavailableError"),
        (fails(503, "UnavailableError"), 503, "UnavailableError"),
        (breaks_off, 504, "OutcomeUnknownError"),
        (fails(504, "OutcomeUnknownError"), 504, "OutcomeUnknownError"),
        (fails(503, "NodeFaultError"), 504, "OutcomeUnknownError"),
    ],
)
def test_a_write_that_nobody_takes_ends_with_an_honest_word(
    behaviour: Behaviour, status: int, error: str
) -> None:
    async def scenario() -> None:
        async with bench(hold_ms=300) as b:
            b.nodes[0].behaviour = behaviour
            got, body = await b.post()
            assert (got, body["error"]) == (status, error)
            assert ("outcome unknown" in body["message"]) is (status == 504)

    asyncio.run(scenario())


def test_a_write_without_a_leader_ends_with_503() -> None:
    async def scenario() -> None:
        async with bench(hold_ms=300) as b:
            await b.nodes[0].kill()
            status, body = await b.post()
            assert (status, body["error"]) == (503, "UnavailableError")
            assert "surely not applied" in body["message"]

    asyncio.run(scenario())


def test_a_refusal_of_the_leader_is_passed_on_and_not_tried_again() -> None:
    async def scenario() -> None:
        async with bench() as b:
            b.nodes[0].behaviour = fails(409, "UniqueConstraintError")
            assert (await b.post())[0] == 409
            assert len(b.nodes[0].received) == 1

    asyncio.run(scenario())


def test_if_no_node_is_healthy_reads_are_held_and_then_refused_clearly() -> None:
    async def scenario() -> None:
        async with bench(hold_ms=400) as b:
            for node in b.nodes:
                await node.kill()
            await b.until(lambda: not b.usable(), "all ejected")
            status, body = await b.get()
            assert (status, body["error"]) == (503, "UnavailableError")
            assert "No healthy node" in body["message"]

    asyncio.run(scenario())


def test_a_read_is_answered_by_the_first_node_that_returns() -> None:
    async def scenario() -> None:
        async with bench() as b:
            for node in b.nodes:
                await node.kill()
            await b.until(lambda: not b.usable(), "all ejected")
            read = asyncio.create_task(b.get())
            await b.until(lambda: b.balancer.status()["held"] > 0, "held")
            await b.nodes[1].start()
            assert await read == (200, {"node": "node-2"})

    asyncio.run(scenario())


def test_a_minority_serves_eventual_reads() -> None:
    async def scenario() -> None:
        async with bench(hold_ms=300) as b:
            for node in b.nodes:
                node.become(healthy=False, role="follower")
            await b.until(lambda: not b.usable(), "none healthy")
            assert (await b.get(X_Chroma_Consistency="eventual"))[0] == 200
            assert (await b.get())[0] == 503

    asyncio.run(scenario())


def test_a_node_under_a_wrong_name_is_not_used_and_the_reason_is_told() -> None:
    async def scenario() -> None:
        async with bench(1, wait=False) as b:
            b.nodes[0].node_id = "node-x"
            await b.until(
                lambda: "answers as node-x" in b.balancer.status()["nodes"][0]["reason"],
                "the wrong name to be told",
            )
            assert not b.usable()

    asyncio.run(scenario())


def test_a_stopped_process_is_ejected_its_reads_go_elsewhere_and_it_comes_back() -> None:
    """SIGSTOP: the kernel still accepts connections and takes requests, but nobody answers."""

    async def scenario(process: subprocess.Popen[str], url: str) -> None:
        async with bench(2, wait=False, others={"stopped": url}) as b:
            await b.until(lambda: len(b.usable()) == 3, "all in rotation")
            os.kill(process.pid, signal.SIGSTOP)
            loop = asyncio.get_running_loop()
            stopped_at = loop.time()
            answers = await asyncio.gather(*(b.get() for _ in range(9)))
            assert {status for status, _ in answers} == {200}
            assert {body["node"] for _, body in answers} == {"node-1", "node-2"}
            # The promise is 2 s; the bound leaves room for a busy machine, the margin is in silence_ms.
            assert loop.time() - stopped_at < 10
            assert "stopped" not in b.usable()
            os.kill(process.pid, signal.SIGCONT)
            await b.until(lambda: "stopped" in b.usable(), "it to be taken back")
            assert "stopped" in {(await b.get())[1]["node"] for _ in range(6)}

    with _process("stopped", "follower") as (process, url):
        asyncio.run(scenario(process, url))


def test_a_write_at_a_stopped_leader_goes_to_the_next_one_under_its_key() -> None:
    async def scenario(process: subprocess.Popen[str], url: str) -> None:
        async with bench(2, wait=False, others={"stopped": url}) as b:
            b.nodes[0].become(role="follower")
            for node in b.nodes:
                node.become(outside=("stopped", 1))
            await b.until(lambda: b.balancer.status()["leader"] == "stopped", "it to lead")
            os.kill(process.pid, signal.SIGSTOP)
            write = asyncio.create_task(b.post())
            await b.until(lambda: "stopped" not in b.usable(), "it to be ejected")
            assert not write.done()
            b.nodes[1].become(role="leader", term=2)
            assert await write == (200, {"node": "node-2"})
            # It wakes up and still thinks that it leads, in the old term.
            os.kill(process.pid, signal.SIGCONT)
            await b.until(lambda: "stopped" in b.usable(), "it to be heard again")
            assert await b.post() == (200, {"node": "node-2"})

    with _process("stopped", "leader") as (process, url):
        asyncio.run(scenario(process, url))


def test_a_client_that_gives_up_takes_along_its_write_that_no_node_has_yet() -> None:
    """What nobody waits for and no log has is dropped: a client that tries again must not fill the line."""

    async def scenario() -> None:
        async with bench() as b:
            await b.nodes[0].kill()
            write = asyncio.create_task(b.post())
            await b.until(lambda: b.balancer.status()["held"] > 0, "held")
            write.cancel()
            await asyncio.gather(write, return_exceptions=True)
            await b.until(lambda: b.balancer.status()["in_flight"] == 0, "nothing left behind")
            b.nodes[1].become(role="leader", term=2)
            assert (await b.post())[0] == 200
            assert len(b.nodes[1].received) == 1, "the write that was given up arrived too"

    asyncio.run(scenario())


class _process:
    """A node in a process of its own, so that signals can stop it."""

    def __init__(self, node_id: str, role: str) -> None:
        self._arguments = [sys.executable, "-m", "tests.integration.lb_nodes", node_id, role]

    def __enter__(self) -> tuple[subprocess.Popen[str], str]:
        self._process = subprocess.Popen(self._arguments, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        return self._process, self._process.stdout.readline().strip()

    def __exit__(self, *error: Any) -> None:
        self._process.kill()
        self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()


def test_a_node_that_alone_fails_a_read_is_told_to_check_the_collection() -> None:
    async def scenario() -> None:
        async with bench() as b:
            for node in b.nodes[:2]:
                node.behaviour = fails(500, "InternalError")
            answered = [await b.get() for _ in range(6)]
            # Of three, two fail: one other node is asked, and that one may fail too.
            assert (200, {"node": "node-3"}) in answered
            assert {status for status, _ in answered} <= {200, 500}
            b.nodes[1].behaviour = answers
            assert {status for status, _ in [await b.get() for _ in range(6)]} == {200}
            told = [r for node in b.nodes for r in node.received if r.target == "/cluster/check"]
            await b.until(
                lambda: any(r.target == "/cluster/check" for r in b.nodes[0].received), "it is told"
            )
            assert {r.node_id for r in told} <= {"node-1", "node-2"}, "who answered well is not"
            order = next(r for r in b.nodes[0].received if r.target == "/cluster/check")
            # Whose proof was none was not received.
            assert COLLECTION_ID.encode() in order.body

    asyncio.run(scenario())


@pytest.mark.parametrize("error", ["EngineDiedError", "QuarantinedError"])
def test_a_read_that_took_an_engine_down_reaches_one_node_only(error: str) -> None:
    async def scenario() -> None:
        async with bench() as b:
            for node in b.nodes:
                node.behaviour = fails(500, error)
            status, body = await b.get()
            assert (status, body["error"]) == (500, error)
            assert sum(len(node.received) for node in b.nodes) == 1

    asyncio.run(scenario())
