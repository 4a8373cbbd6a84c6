"""What the log's benchmark makes of the times that it measured."""

from __future__ import annotations

import pytest

from evaluation.quantiles import quantile
from evaluation.raft.bench import LOADS
from evaluation.raft.figures import Round, lost, summarize
from evaluation.raft.load import Done, Driven, Load, drive


@pytest.mark.parametrize(
    ("values", "q", "expected"),
    [
        ([], 50, None),
        ([7.0], 50, 7.0),
        ([7.0], 99, 7.0),
        ([3.0, 1.0, 2.0, 4.0], 50, 2.0),
        ([float(number) for number in range(1, 101)], 99, 99.0),
        ([float(number) for number in range(1, 101)], 100, 100.0),
    ],
)
def test_percentile(values: list[float], q: float, expected: float | None) -> None:
    assert quantile(values, q / 100) == expected


def test_loads_have_names_of_their_own() -> None:
    assert [load.name for load in LOADS] == ["1 x 2 KB", "16 x 2 KB", "64 x 2 KB", "4 x 1 MiB", "1 x 16 MiB"]


def test_every_proposal_is_counted_once() -> None:
    asked: list[None] = []

    def propose(done: Done) -> None:
        asked.append(None)
        done(None if len(asked) % 3 else "NotLeader")

    driven = drive(propose, Load(2, 1, 9), timeout_s=60)
    assert (len(asked), len(driven.latencies_ms), driven.errors) == (9, 6, {"NotLeader": 3})
    assert driven.unanswered == 0


def test_no_more_than_so_many_are_under_way() -> None:
    waiting: list[Done] = []
    most = 0

    def propose(done: Done) -> None:
        nonlocal most
        waiting.append(done)
        most = max(most, len(waiting))
        if len(waiting) == 3:
            waiting.pop(0)(None)
            waiting.pop(0)(None)
            waiting.pop(0)(None)

    driven = drive(propose, Load(3, 1, 9), timeout_s=60)
    assert (most, len(driven.latencies_ms)) == (3, 9)


def test_what_is_never_answered_ends_the_load() -> None:
    calls: list[Done] = []
    driven = drive(calls.append, Load(4, 1, 100), timeout_s=0.01)
    assert (len(calls), driven.latencies_ms, driven.errors) == (4, [], {})
    assert driven.unanswered == 100


def test_rounds_are_taken_together() -> None:
    rounds = [
        Round(Driven([1.0, 2.0], 1.0, {"NotLeader": 1}, 0), 0, 0.5),
        Round(Driven([3.0], 2.0, {"NotLeader": 2, "Overloaded": 1}, 4), 1, 1.5),
    ]
    latency = summarize(rounds)
    assert (latency.commits, latency.per_second) == (3, [2.0, 0.5])
    assert (latency.p50_ms, latency.p99_ms, latency.max_ms) == (2.0, 3.0, 3.0)
    assert (latency.elections, latency.unanswered) == (1, 4)
    assert latency.errors == {"NotLeader": 3, "Overloaded": 1}
    assert latency.load_averages == [0.5, 1.5]


def test_nothing_committed_has_no_percentiles() -> None:
    latency = summarize([Round(Driven([], 1.0, {}, 5), 0, 0.0)])
    assert (latency.commits, latency.p50_ms, latency.p99_ms, latency.max_ms) == (0, None, None, None)


def test_a_write_missing_in_one_log_is_lost() -> None:
    assert lost(["a", "b"], [["b", "a", "c"], ["a", "b"]]) == []
    assert lost(["a", "b", "d"], [["b", "a"], ["a"]]) == ["b", "d"]
