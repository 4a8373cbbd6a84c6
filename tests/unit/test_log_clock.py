"""Log time goes on from what was seen, by a monotonic clock only."""

from __future__ import annotations

from cluster.propose.log_clock import LogClock


class Node:
    """The two things that a log clock looks at."""

    def __init__(self, seen_ms: int, monotonic_ms: int) -> None:
        self.seen_ms = seen_ms
        self.monotonic_ms = monotonic_ms
        self.clock = LogClock(lambda: self.seen_ms, lambda: self.monotonic_ms * 1_000_000)


def test_it_goes_on_from_what_was_seen_at_the_pace_of_the_monotonic_clock() -> None:
    node = Node(seen_ms=5_000, monotonic_ms=77)
    assert node.clock.now_ms() == 5_000
    node.monotonic_ms += 250
    assert node.clock.now_ms() == 5_250


def test_a_new_cluster_begins_at_nought_whatever_the_day() -> None:
    assert Node(seen_ms=0, monotonic_ms=123_456).clock.now_ms() == 0


def test_it_follows_what_other_leaders_wrote_and_never_goes_back() -> None:
    node = Node(seen_ms=1_000, monotonic_ms=0)
    node.monotonic_ms = 100
    node.seen_ms = 9_000
    assert node.clock.now_ms() == 9_000
    node.monotonic_ms = 150
    assert node.clock.now_ms() == 9_050
    node.seen_ms = 9_020  # applied is behind what it stamped itself
    assert node.clock.now_ms() == 9_050


def test_nodes_take_turns_without_a_jump() -> None:
    """Each node's monotonic clock has an origin of its own."""
    first, second = Node(0, 1_000_000), Node(0, 5)
    stamps: list[int] = []
    for turn in range(20):
        for node in (first, second):
            node.monotonic_ms += 10
        stamps.append((first if turn % 3 else second).clock.now_ms())
        first.seen_ms = second.seen_ms = stamps[-1]
    assert stamps == [10 * turn for turn in range(1, 21)]
