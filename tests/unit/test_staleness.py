"""How old what a node holds may be: arithmetic, one node message by message, reads judged twice."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.errors import Refusal, Unavailable
from cluster.raft.freshness import NO_CLAIM, Stamps, claim, conclusion
from cluster.raft.interface import RaftStatus
from cluster.raft.messages import Accepted, Append, Heartbeat, HeartbeatReply
from cluster.reads import Level
from cluster.service.reads import Reads
from cluster.service.waiting import Waiting
from cluster.staleness import NOTHING_KNOWN, Knowledge, age_ms, newer, seen_as_of
from cluster.steady import steady_s
from cluster.verify.alarms import Alarms
from tests.unit.test_raft_node import Bench, entries

NEVER_S = float("-inf")

# ------------------------------------------------------------------ the arithmetic


def test_a_stamp_is_never_later_than_the_truth_and_the_first_time_counts() -> None:
    stamps = Stamps()
    assert stamps.at(0) == stamps.at(1) == NEVER_S
    truth: dict[int, float] = {}
    for number in range(3, 9000, 3):  # thousands within a second, more than are kept
        truth[number] = number / 3000
        stamps.note(number, truth[number])
        stamps.note(number, 99.0)
        stamps.note(number - 1, 99.0)
    for number, at_s in truth.items():
        assert stamps.at(number) <= at_s
    assert stamps.at(8997) > truth[8997] - 0.02
    assert stamps.at(8998) == NEVER_S, "it did not come by"
    stamps.clear()
    assert stamps.at(8997) == NEVER_S
    stamps.note(1, 5.0)
    assert stamps.at(1) == 5.0


def test_a_leader_that_has_heard_nothing_or_proven_nothing_claims_nothing() -> None:
    assert claim(0, 1.0, 1.0, 2.0) == NO_CLAIM
    assert claim(7, 1.0, NEVER_S, 2.0) == NO_CLAIM
    assert claim(7, 1.5, 1.0, 2.0).echo == 7


@given(
    answered=st.floats(0, 100),
    up=st.floats(0, 10),
    led=st.floats(-100, 0),
    held=st.floats(0, 100),
    offsets=st.tuples(st.floats(-1e6, 1e6), st.floats(-1e6, 1e6)),
    rates=st.tuples(st.floats(0.99, 1.01), st.floats(0.99, 1.01)),
)
def test_a_conclusion_is_never_newer_than_what_the_leader_proved(
    answered: float,
    up: float,
    led: float,
    held: float,
    offsets: tuple[float, float],
    rates: tuple[float, float],
) -> None:
    """Whatever the clocks show and however long messages take, in true time."""

    def shows(node: int, true_s: float) -> float:
        return offsets[node] + true_s * rates[node]

    came_in, sent = answered + up, answered + up + held
    proven = sent + led
    said = claim(1, shows(0, came_in), shows(0, proven), shows(0, sent))
    known = conclusion(9, shows(1, answered), said.heard_us, said.led_us, 0.0203)
    assert (known.as_of_s - offsets[1]) / rates[1] <= proven + 1e-6
    # On a quick link between good clocks little is given away.
    exact = conclusion(9, answered, *(int(x * 1e6) for x in (sent - came_in, sent - proven)), 0.0)
    assert exact.as_of_s == pytest.approx(proven - up, abs=1e-5)


def test_age_counts_the_drift_of_clocks_and_nothing_known_is_infinitely_old() -> None:
    assert age_ms(Knowledge(3, 10.0), 11.0, 0.002) == pytest.approx(1002)
    assert age_ms(Knowledge(3, 10.0), 9.0) == 0
    assert age_ms(NOTHING_KNOWN, 5.0) == float("inf")
    assert newer(Knowledge(1, 3.0), Knowledge(9, 2.0)) == Knowledge(1, 3.0)


def test_a_read_is_as_fresh_as_what_was_applied_when_it_began() -> None:
    known = Knowledge(5, 1.0)
    assert seen_as_of(known, Knowledge(7, 2.0), 7) == Knowledge(7, 2.0)
    assert seen_as_of(known, Knowledge(8, 2.0), 7) == known
    assert seen_as_of(known, Knowledge(4, 0.5), 7) == known


def test_the_clock_goes_on() -> None:
    before = steady_s()
    assert steady_s() >= before


# ------------------------------------------------------------------ one node


def beat(number: int, commit: int = 1, echo: int = 0, heard_s: float = 0.0, led_s: float = 0.0) -> Heartbeat:
    return Heartbeat(1, commit, 0, number, echo, int(heard_s * 1e6), int(led_s * 1e6))


def test_a_follower_knows_nothing_before_its_own_answer_is_echoed() -> None:
    bench = Bench()
    bench.say("n2", Append(1, 0, 0, 1, 0, entries(1, 1)))
    bench.say("n2", beat(1))
    assert bench.node.known() == NOTHING_KNOWN
    bench.say("n2", beat(2, echo=77))
    assert bench.node.known() == NOTHING_KNOWN, "it never answered such a round"


def test_what_arrives_late_is_as_old_as_it_is() -> None:
    """A heartbeat that waited for six seconds, in a slow link or while this process stood still."""
    bench = Bench()
    bench.say("n2", beat(1))
    answered = bench.net.now
    bench.wait(0.1)
    bench.say("n2", beat(2, commit=5, echo=1, heard_s=0.05, led_s=0.2))
    drift = bench.node.settings.max_drift
    known = bench.node.known()
    assert known.index == 5
    assert known.as_of_s == pytest.approx(answered - 0.15 * (1 + drift))
    bench.wait(6)
    bench.say("n2", beat(3, commit=6, echo=1, heard_s=0.15, led_s=0.1))
    assert bench.node.known().as_of_s == pytest.approx(answered + 0.05 * (1 - drift))
    bench.say("n2", beat(4, commit=5, echo=1, heard_s=0.05, led_s=0.2))
    assert bench.node.known().index == 6, "an older word does not undo a newer one"


def test_a_new_leaders_numbers_are_not_the_old_ones() -> None:
    bench = Bench()
    bench.say("n2", beat(40))
    bench.say("n3", Heartbeat(2, 3, 0, 1, 40, 0, 1))
    assert bench.node.known() == NOTHING_KNOWN


def test_a_leader_knows_by_a_majority_and_only_after_its_own_commit() -> None:
    bench = Bench()
    term = bench.lead()
    number, began = bench.node.reads.number, bench.net.now
    bench.wait(0.05)
    bench.say("n2", HeartbeatReply(term, number))
    assert bench.node.known() == NOTHING_KNOWN, "what its predecessor had committed may be missing"
    bench.say("n2", Accepted(term, bench.node.journal.last_index))
    assert bench.node.known().index == bench.node.commit_index > 0
    known = bench.node.known()
    assert known.as_of_s <= began + 0.01
    bench.wait(0.3)
    assert bench.node.known() == known
    bench.node.become_follower(term + 1, None)
    assert bench.node.known() == known, "what was known stays true"


def test_a_leader_echoes_an_answer_on_the_connection_it_came_by() -> None:
    """The process at the other end may be a new one, which answered nothing."""
    bench = Bench()
    term = bench.lead()
    bench.say("n2", Accepted(term, bench.node.journal.last_index))
    number = bench.node.reads.number
    bench.say("n2", HeartbeatReply(term, number))
    assert bench.node.reads.claim("n2").echo == number
    assert bench.node.reads.claim("n3") == NO_CLAIM
    peer = bench.node.peers["n2"]
    bench.node._on_disconnected(peer)
    assert bench.node.reads.claim("n2") == NO_CLAIM
    bench.node._on_connected(peer)
    bench.say("n2", HeartbeatReply(term, number))
    assert bench.node.reads.claim("n2") == NO_CLAIM, "an answer to an old round again"
    bench.wait(0.2)
    bench.say("n2", HeartbeatReply(term, bench.node.reads.number))
    assert bench.node.reads.claim("n2").echo == bench.node.reads.number > number


# ------------------------------------------------------------------ reads


class Host:
    """A node's raft, applier and health, all made of values; its clock stands until told otherwise."""

    applied_index = 10
    catalog = "the catalogue"

    def __init__(self, known: Knowledge) -> None:
        self.now_s = 100.0
        self.known = known
        self.waiting = Waiting(
            SimpleNamespace(node_id="n1", read_timeout_ms=3_600_000, election_timeout_max_ms=2000),  # type: ignore[arg-type]
            self,  # type: ignore[arg-type]
            self,  # type: ignore[arg-type]
            SimpleNamespace(read_index=None),  # type: ignore[arg-type]
            SimpleNamespace(ask=self._ask),  # type: ignore[arg-type]
            self,  # type: ignore[arg-type]
            clock=lambda: self.now_s,
        )
        self.reads = Reads("engine", self, self.waiting, self, 1, Alarms(Path("nowhere/alarms.json")))  # type: ignore[arg-type]

    async def _ask(self, *_: Any) -> int:
        return 10

    def status(self) -> RaftStatus:
        return RaftStatus("n1", "follower", 1, "n2", 1, 10, 10, 0.0, known=self.known)

    def require_serving(self) -> None: ...

    def started_index(self, collection_id: str | None) -> int:
        return 10

    def trouble(self, collection_id: str) -> None: ...

    def add_listener(self, listener: Any) -> None: ...

    def remove_listener(self, listener: Any) -> None: ...

    def read(
        self,
        bound_ms: float | None,
        *,
        takes_s: float = 0.0,
        learns: Knowledge | None = None,
        fails: Refusal | None = None,
        level: Level = Level.EVENTUAL,
    ) -> tuple[str, str]:
        """A read of the engine and one of the catalogue, while `takes_s` go by and the node learns."""

        def fn(source: Any) -> str:
            self.now_s += takes_s
            self.known = learns or self.known
            if fails is not None:
                raise fails
            return str(source)

        async def both() -> tuple[str, str]:
            began, known = self.now_s, self.known
            found, _ = await self.reads.read(level, None, bound_ms, "c", fn)
            self.now_s, self.known = began, known
            listed, _ = await self.reads.look_up(level, None, bound_ms, None, fn)
            return found, listed

        return asyncio.run(both())


DONE = ("engine", "the catalogue")
FRESH, OLD = Knowledge(10, 99.8), Knowledge(10, 93.9)


def test_a_read_within_its_bound_is_answered() -> None:
    assert Host(FRESH).read(300) == DONE
    assert Host(FRESH).read(300, level=Level.SESSION) == DONE
    assert Host(OLD).read(None, takes_s=60) == DONE, "without a bound nothing is asked"


@pytest.mark.parametrize("known", [OLD, NOTHING_KNOWN])
def test_a_node_that_knows_nothing_recent_refuses_before_it_reads(known: Knowledge) -> None:
    with pytest.raises(Unavailable, match="allows 300 ms"):
        Host(known).read(300, fails=Refusal(500, "X", "it was read"))


def test_a_read_during_which_the_node_stood_still_is_refused() -> None:
    with pytest.raises(Unavailable, match=r"61\d\d ms old"):
        Host(FRESH).read(300, takes_s=5.9)
    with pytest.raises(Unavailable, match="ms old"):
        Host(FRESH).read(300, takes_s=5.9, level=Level.LINEARIZABLE)


@pytest.mark.parametrize("which", ["read", "look_up"])
def test_each_kind_of_read_is_judged_again_its_refusals_too(which: str) -> None:
    for fails in (None, Refusal(404, "NotFoundError", "no such collection, a while ago")):
        host = Host(FRESH)

        def fn(source: Any, host: Host = host, fails: Refusal | None = fails) -> str:
            host.now_s += 1.0
            if fails is not None:
                raise fails
            return str(source)

        with pytest.raises(Unavailable, match="ms old"):
            asyncio.run(getattr(host.reads, which)(Level.EVENTUAL, None, 300, "c", fn))


def test_a_slow_read_of_what_nobody_changed_is_answered() -> None:
    assert Host(FRESH).read(300, takes_s=2.0, learns=Knowledge(10, 101.9)) == DONE
    with pytest.raises(Unavailable, match="ms old"):
        Host(FRESH).read(300, takes_s=2.0, learns=Knowledge(11, 101.9))


def test_a_node_that_lags_waits_no_longer_than_the_bound_allows() -> None:
    with pytest.raises(Unavailable, match="applied the log up to 10"):
        Host(Knowledge(11, 99.75)).read(300)
