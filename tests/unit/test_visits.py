"""Visitors of the applier are let in between two entries, at the index that they asked for."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest

from cluster.apply.visits import Visits
from cluster.errors import Unavailable
from tests.unit.test_applier import WAIT_S, MemoryLog, Node, add, create

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    made = Node(tmp_path, MemoryLog())
    yield made
    made.close()


def test_a_visitor_sees_exactly_one_index_although_writes_are_merged(node: Node) -> None:
    all_there = threading.Event()
    node.engine.before = lambda call: None if all_there.wait(WAIT_S) else pytest.fail("too late")
    node.applier.start()
    seen = [node.applier.visits.ask(lambda index: (index, len(node.engine.calls)), at) for at in (3, 1, 4)]
    node.raft.append(create())
    for name in "abcd":
        node.raft.append(add(name))
    all_there.set()
    assert [visit.result(WAIT_S) for visit in seen] == [(3, 2), (1, 1), (4, 3)]
    node.done(5)
    assert node.engine.calls[1:] == [add("a", "b"), add("c"), add("d")], "merged up to each, not beyond"
    assert node.store.marker().index == 5


def test_an_idle_node_lets_visitors_in_and_stands_still_meanwhile(node: Node) -> None:
    node.applier.start()
    node.raft.append(create())
    node.done(1)
    inside, leave = threading.Event(), threading.Event()

    def look(index: int) -> int:
        inside.set()
        node.raft.append(add("a"))
        assert leave.wait(WAIT_S)
        assert node.store.marker().index == index
        return index

    visit = node.applier.visits.ask(look)
    assert inside.wait(WAIT_S)
    assert node.applier.applied_index == 1
    leave.set()
    assert visit.result(WAIT_S) == 1
    node.done(2)


def test_nobody_is_let_in_while_the_node_is_stuck(node: Node) -> None:
    def fail(call: object) -> None:
        raise RuntimeError("out of order")

    node.raft.append(create())
    node.applier.start()
    node.done(1)
    node.engine.before = fail
    node.raft.append(add("a"))
    for _ in range(1000):
        if node.applier.impasse.at is not None or node.applier.fault is not None:
            break
        threading.Event().wait(0.01)
    visit = node.applier.visits.ask(lambda index: index)
    with pytest.raises((TimeoutError, Unavailable)):
        visit.result(0.3)


def test_too_late_cancelled_failed_and_closed() -> None:
    visits = Visits()
    late, gone = visits.ask(lambda index: index, 3), visits.ask(lambda index: index)
    broken = visits.ask(lambda index: 1 // 0, 5)
    ahead = visits.ask(lambda index: index, 9)
    assert visits.next_stop() == 3
    assert gone.cancel()
    visits.admit(5)
    with pytest.raises(Unavailable, match="has applied entry 5 already, not 3"):
        late.result(0)
    with pytest.raises(ZeroDivisionError):
        broken.result(0)
    assert not ahead.done()
    assert visits.next_stop() == 9
    visits.close()
    with pytest.raises(Unavailable, match="stopping"):
        ahead.result(0)
    with pytest.raises(Unavailable, match="stopping"):
        visits.ask(lambda index: index).result(0)
    assert visits.next_stop() is None
