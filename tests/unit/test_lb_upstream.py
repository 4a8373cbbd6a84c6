"""Headers of one connection stay on that connection."""

from __future__ import annotations

import pytest
from multidict import CIMultiDict

from lb.budget import Budget
from lb.ring import Ring, Status
from lb.upstream import Upstream
from wire.hops import strip_hop_by_hop
from wire.prover import Prover


@pytest.mark.parametrize(
    ("headers", "left"),
    [
        ([("Accept", "*/*"), ("Connection", "keep-alive")], ["Accept"]),
        ([("connection", "X-Mine, close"), ("X-Mine", "1"), ("X-Other", "2")], ["X-Other"]),
        ([("Transfer-Encoding", "chunked"), ("Content-Encoding", "gzip")], ["Content-Encoding"]),
        ([("TE", "trailers"), ("Upgrade", "h2c"), ("Keep-Alive", "timeout=5")], []),
    ],
)
def test_hop_by_hop_headers_are_removed(headers: list[tuple[str, str]], left: list[str]) -> None:
    values = CIMultiDict(headers)
    strip_hop_by_hop(values)
    assert list(values) == left


def test_the_budget_is_never_overdrawn_and_is_given_back() -> None:
    budget = Budget(10)
    assert budget.take(6)
    assert not budget.take(5)
    assert budget.used == 6
    assert budget.take(4)
    budget.give_back(6)
    assert budget.take(6)


def _ring(state: str, *, healthy: bool) -> Ring:
    ring = Ring.of({"a": "http://a", "b": "http://b"})
    line = {"role": "follower", "term": 1, "applied_index": 1, "healthy": True}
    sick = {**line, "id": "a", "healthy": healthy, "engine": {"state": state}}
    return ring.heard("b", Status.of({**line, "id": "b"}), 0.0).heard("a", Status.of(sick), 0.0)


@pytest.mark.parametrize(
    ("after", "interrupted"),
    [
        (_ring("serving", healthy=False), True),
        (_ring("restarting", healthy=False), False),
        (_ring("hung", healthy=False), False),
        (_ring("restarting", healthy=False).lost("a", "gone"), True),
    ],
)
def test_a_read_that_may_have_ended_the_engine_is_not_taken_from_its_node_to_another(
    monkeypatch: pytest.MonkeyPatch, after: Ring, interrupted: bool
) -> None:
    upstream = Upstream(1.0, Prover(b"secret"))
    seen: list[tuple[str, str]] = []
    monkeypatch.setattr(upstream, "interrupt", lambda node_id, kind: seen.append((node_id, kind)))
    upstream.on_change(_ring("serving", healthy=True), after)
    assert (("a", "read") in seen) is interrupted
