"""The applier with a real machine and store, and an engine that does as it is told."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any

import msgpack
import pytest

from cluster.apply.agreement import encode_agreement
from cluster.apply.applier import Applier
from cluster.apply.store import Marker, Store
from cluster.chroma.interface import Records
from cluster.chroma.local_ids import LOCAL_PREFIX
from cluster.errors import (
    ClusterError,
    EngineDied,
    EngineUnavailable,
    Fault,
    OutcomeUnknown,
    Refusal,
    Unavailable,
)
from cluster.raft.interface import Entry, Position, RaftStatus
from cluster.state.catalog import Change, Outcome
from cluster.state.commands import (
    NEWEST_LEVEL,
    Command,
    CreateCollection,
    DeleteRecords,
    Proposal,
    RaiseLevel,
    RefuseEntry,
    WriteRecords,
    encode_group,
    encode_proposal,
)
from cluster.state.machine import Machine
from cluster.state.work import Call, Resolve

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from concurrent.futures import Future
    from pathlib import Path

C1 = "00000000-0000-4000-8000-000000000001"
WAIT_S = 20


class MemoryLog:
    """A Raft of one whose entries are committed when appended."""

    def __init__(self) -> None:
        self.log: list[bytes] = []
        self.applied: list[int] = []
        self.last_index = 0
        self._grown = threading.Condition()

    def append(self, *commands: Command | Proposal, time_ms: int = 1) -> int:
        proposals = [
            item if isinstance(item, Proposal) else Proposal(f"q{len(self.log)}-{at}", b"d", item)
            for at, item in enumerate(commands)
        ]
        with self._grown:
            payload = encode_group(time_ms, [encode_proposal(item) for item in proposals])
            self.log.append(payload if proposals else b"")
            self._grown.notify_all()
            return len(self.log)

    def append_payload(self, payload: bytes) -> None:
        with self._grown:
            self.log.append(payload)
            self._grown.notify_all()

    def status(self) -> RaftStatus:
        return RaftStatus("n", "leader", 1, "n", 1, self.last_index or len(self.log), len(self.log), 0.0)

    def wait_commit(self, after: int, timeout_s: float) -> int:
        with self._grown:
            self._grown.wait_for(lambda: len(self.log) > after, timeout_s)
            return len(self.log)

    def entries(self, start: int, max_bytes: int) -> list[Entry]:
        if start < 1:
            raise LookupError(start)
        return [Entry(at + 1, 1, self.log[at]) for at in range(start - 1, len(self.log))]

    def set_applied(self, index: int) -> None:
        self.applied.append(index)

    def start(self) -> None: ...
    def stop(self) -> None: ...
    def transfer_leadership(self, to: str | None = None) -> Future[None]:
        raise NotImplementedError

    def fail(self, reason: str) -> None: ...

    def propose(self, payload: bytes) -> Future[Position]:
        raise NotImplementedError

    def read_index(self) -> Future[int]:
        raise NotImplementedError


class ToldEngine:
    """Records calls; `before` may raise or block."""

    def __init__(self) -> None:
        self.calls: list[Any] = []
        self.before: Callable[[Any], None] = lambda call: None
        self.found: tuple[str, ...] = ()
        self.reopened = 0

    def reopen(self) -> None:
        self.reopened += 1

    def count(self, collection_id: str) -> int:
        return 0

    def get(self, collection_id: str, wanted: Any) -> Records:
        return Records([], None, None, None, None)

    def collection(self, collection_id: str) -> dict[str, Any]:
        return {}

    def apply(self, call: Call) -> tuple[Change, ...]:
        self.before(call)
        self.calls.append(call.command)
        if isinstance(call.command, CreateCollection):
            return (Change(LOCAL_PREFIX + call.command.collection_id, b"local"),)
        return ()

    def resolve(self, work: Resolve) -> tuple[str, ...]:
        self.before(work)
        return self.found


class Node:
    """One applier over a directory; `again` is a restart from what is durable."""

    def __init__(
        self,
        directory: Path,
        raft: MemoryLog,
        hide: Callable[[str | None], None] = lambda collection_id: None,
        machine_fault: Callable[[ClusterError], Fault | None] = lambda failure: None,
    ) -> None:
        self.raft = raft
        self.engine = ToldEngine()
        self.store = Store(directory / "state.sqlite")
        self.machine = Machine.load(self.store.items(but=LOCAL_PREFIX))
        self.faults: list[Fault] = []
        self.applier = Applier(
            raft,
            self.machine,
            self.engine,  # type: ignore[arg-type]
            self.store,
            self.faults.append,
            hide,
            machine_fault=machine_fault,
        )
        self._told = self.applier.applied_index
        self._rise = threading.Condition()
        self.applier.add_listener(self._on_rise)

    def _on_rise(self, index: int) -> None:
        with self._rise:
            self._told = index
            self._rise.notify_all()

    def wait_applied(self, index: int) -> bool:
        """Block until `index` is applied; False if the time is over, or applying has stopped."""
        deadline = time.monotonic() + WAIT_S
        with self._rise:
            while self._told < index and not self.faults and time.monotonic() < deadline:
                self._rise.wait(0.01)
            return self._told >= index

    def close(self) -> None:
        self.applier.stop(WAIT_S)
        self.store.close()

    def done(self, index: int) -> None:
        assert self.wait_applied(index), self.faults


@pytest.fixture
def raft() -> MemoryLog:
    return MemoryLog()


@pytest.fixture
def node(tmp_path: Path, raft: MemoryLog) -> Iterator[Node]:
    made = Node(tmp_path, raft)
    yield made
    made.close()


def create(name: str = "first", collection_id: str = C1) -> CreateCollection:
    return CreateCollection(
        "default_tenant", "default_database", name, collection_id, False, None, None, None
    )


def add(*ids: str) -> WriteRecords:
    return WriteRecords("add", C1, ids, 1, tuple(b"\0\0\0\0" for _ in ids), None, None, None)


def test_entries_are_applied_in_order_durably_and_answered(node: Node) -> None:
    created, added = node.applier.expect("q0-0"), node.applier.expect("q1-0")
    node.raft.append(create())
    node.raft.append(add("a"))
    node.raft.append()  # Raft's own
    node.applier.start()
    assert created.result(WAIT_S) == (Outcome(200, {"$collection": C1}), 1)
    assert added.result(WAIT_S) == (Outcome(201, {}), 2)
    node.done(3)
    assert node.applier.applied_index == 3
    assert node.store.marker() == Marker(3, 0)
    assert node.store.items(LOCAL_PREFIX) == [(LOCAL_PREFIX + C1, b"local")]
    assert node.store.items(but=LOCAL_PREFIX) == node.machine.dump()
    assert node.raft.applied == sorted(set(node.raft.applied))
    assert node.raft.applied[-1] == 3


def test_waiting_writes_become_one_engine_call(node: Node) -> None:
    node.raft.append(create())
    for name in "abc":
        node.raft.append(add(name))
    waiting = [node.applier.expect(f"q{at}-0") for at in (1, 2, 3)]
    node.applier.start()
    assert [future.result(WAIT_S) for future in waiting] == [(Outcome(201, {}), at) for at in (2, 3, 4)]
    node.done(4)
    assert node.engine.calls[1:] == [add("a", "b", "c")]


def test_a_restart_goes_on_behind_the_marker(tmp_path: Path, raft: MemoryLog) -> None:
    first = Node(tmp_path, raft)
    raft.append(create())
    first.applier.start()
    first.done(1)
    first.close()
    raft.append(add("a"))
    second = Node(tmp_path, raft)
    second.applier.start()
    second.done(2)
    second.close()
    assert second.engine.calls == [add("a")]


def test_a_fault_stops_for_good_without_skipping(tmp_path: Path, raft: MemoryLog) -> None:
    node = Node(tmp_path, raft)

    def full(call: Any) -> None:
        if isinstance(call.command, WriteRecords):
            raise Fault("disk full")

    node.engine.before = full
    unknown = node.applier.expect("q1-0")
    raft.append(create())
    raft.append(add("a"))
    raft.append(create("second", C1.replace("1", "2")))
    node.applier.start()
    with pytest.raises(OutcomeUnknown, match="disk full"):
        unknown.result(WAIT_S)
    assert not node.wait_applied(2)
    node.applier.stop(WAIT_S)
    assert [fault.message for fault in node.faults] == ["disk full"]
    assert node.applier.fault is node.faults[0]
    with pytest.raises(Fault, match="disk full"):
        node.applier.expect("q9")
    node.close()
    # The disk has space again: the entry that failed is the next one applied.
    again = Node(tmp_path, raft)
    assert again.applier.applied_index == 1
    again.applier.start()
    again.done(3)
    again.close()
    assert [type(command).__name__ for command in again.engine.calls] == ["WriteRecords", "CreateCollection"]


def test_a_call_that_the_engine_did_not_survive_is_repeated_once(node: Node) -> None:
    deaths = iter(
        [EngineDied("crashed", proven=True), EngineUnavailable("restarting"), EngineUnavailable("still")]
    )

    def die(call: Any) -> None:
        if (death := next(deaths, None)) is not None:
            raise death

    node.engine.before = die
    created = node.applier.expect("q0-0")
    node.raft.append(create())
    node.applier.start()
    assert created.result(WAIT_S) == (Outcome(200, {"$collection": C1}), 1)
    assert node.faults == []


def test_a_second_death_over_the_same_call_leaves_the_node_stuck_there_until_it_passes(node: Node) -> None:
    passed = threading.Event()

    def die(call: Any) -> None:
        if isinstance(call.command, WriteRecords) and "bad" in call.command.ids and not passed.is_set():
            raise EngineDied("crashed with SIGSEGV", proven=True)

    node.engine.before = die
    node.raft.append(create())
    node.raft.append(add("a"), add("bad"), add("c"))
    node.applier.start()
    deadline = time.monotonic() + WAIT_S
    while node.applier.impasse.at is None:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert node.applier.impasse.at.point == (2, 1, 0)  # not its neighbours
    assert "SIGSEGV" in node.applier.impasse.at.cause
    assert node.store.marker() == Marker(1, 1)
    assert node.engine.reopened >= 2
    passed.set()
    node.done(2)
    assert node.applier.impasse.at is None
    assert node.engine.calls[1:] == [add("a"), add("bad"), add("c")]
    assert node.faults == []


def test_what_a_failed_merged_call_left_is_neither_shown_nor_denied_until_it_is_settled(
    tmp_path: Path, raft: MemoryLog
) -> None:
    """The engine does all of a merged call and dies; its writes are then taken one by one."""
    hidden: list[str | None] = []
    node = Node(tmp_path, raft, hidden.append)
    seen: list[tuple[int, int, str | None]] = []
    busy, gathered, died = threading.Event(), threading.Event(), threading.Event()

    def die(call: Any) -> None:
        if not isinstance(call.command, WriteRecords):
            return
        if call.command == add("z"):
            busy.set()
            gathered.wait(WAIT_S)
        elif not died.is_set():
            died.set()
            raise EngineDied("crashed", proven=True)
        else:
            seen.append((node.applier.started_index(C1), node.applier.started_index(None), hidden[-1]))

    node.engine.before = die
    raft.append(create())
    node.applier.start()
    node.done(1)  # what the log held at the start is claimed anyway
    raft.append(add("z"))
    assert busy.wait(WAIT_S)
    raft.append(add("a"))
    raft.append(add("b"))
    raft.append(add("c"))
    gathered.set()
    node.done(5)
    assert node.engine.calls[1:] == [add("z"), add("a"), add("b"), add("c")]
    assert seen == [(5, 5, C1)] * 3
    assert hidden == [None, C1, None]
    node.close()


@pytest.mark.parametrize("failure", [Fault("Error in compaction"), EngineDied("crashed", proven=True)])
def test_what_this_machine_explains_is_its_fault_and_never_a_write_to_be_refused(
    tmp_path: Path, raft: MemoryLog, failure: Exception
) -> None:
    """So it is with a disk that is full on every node: no node is stuck, and none counts for a majority."""

    def fail(call: Any) -> None:
        raise failure

    node = Node(tmp_path, raft, machine_fault=lambda failed: Fault(f"The disk is full: {failed.message}"))
    node.engine.before = fail
    raft.append(create())
    node.applier.start()
    assert not node.wait_applied(1)
    assert node.applier.impasse.at is None
    assert [fault.message for fault in node.faults] == [f"The disk is full: {failure}"]
    node.close()


def test_a_stuck_node_goes_on_when_the_log_refuses_the_write(node: Node) -> None:
    def fail(call: Any) -> None:
        if isinstance(call.command, WriteRecords) and "bad" in call.command.ids:
            raise Fault("it fails")

    node.engine.before = fail
    node.raft.append(create())
    node.raft.append(add("bad"))
    refused = node.applier.expect("q1-0")
    node.applier.start()
    deadline = time.monotonic() + WAIT_S
    while node.applier.impasse.at is None:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    agreement = RefuseEntry(2, 0, 0, 500, "ContainedWriteError", "it fails", False)
    node.raft.log.append(encode_agreement(1, agreement))
    body = {"error": "ContainedWriteError", "message": "it fails"}
    assert refused.result(WAIT_S) == (Outcome(500, body), 2)
    node.done(3)
    assert node.applier.impasse.at is None


def test_a_node_that_stops_while_its_engine_is_away_stops_without_a_fault(node: Node) -> None:
    def away(call: Any) -> None:
        raise EngineUnavailable("restarting")

    node.engine.before = away
    unknown = node.applier.expect("q0-0")
    node.raft.append(create())
    node.applier.start()
    node.applier.stop(WAIT_S)
    assert node.faults == []
    assert node.store.marker() == Marker(0, 0)
    with pytest.raises(OutcomeUnknown):
        unknown.result(WAIT_S)


@pytest.mark.parametrize("error", [RuntimeError("bug"), MemoryError(), SystemExit()])
def test_whatever_fails_is_a_fault(node: Node, error: BaseException) -> None:
    def fail(call: Any) -> None:
        raise error

    node.engine.before = fail
    node.raft.append(create())
    node.applier.start()
    assert not node.wait_applied(1)
    node.applier.stop(WAIT_S)
    [fault] = node.faults
    assert "no entry was skipped" in fault.message


def test_a_refusal_of_one_is_not_its_neighbours(node: Node) -> None:
    def refuse(call: Any) -> None:
        if isinstance(call.command, WriteRecords) and "bad" in call.command.ids:
            raise Refusal(400, "InvalidArgumentError", "bad id")

    node.engine.before = refuse
    node.raft.append(create())
    node.raft.append(add("a"), add("bad"), add("c"))
    waiting = [node.applier.expect(f"q1-{at}") for at in range(3)]
    node.applier.start()
    outcomes = [future.result(WAIT_S)[0] for future in waiting]
    refused = Outcome(400, {"error": "InvalidArgumentError", "message": "bad id"})
    assert outcomes == [Outcome(201, {}), refused, Outcome(201, {})]
    assert node.engine.calls[1:] == [add("a"), add("c")]


def test_a_delete_by_filter_reads_its_ids_first(node: Node) -> None:
    node.engine.found = ("x", "y")
    node.raft.append(create())
    node.raft.append(DeleteRecords(C1, None, '{"k": 1}', None, 5))
    deleted = node.applier.expect("q1-0")
    node.applier.start()
    assert deleted.result(WAIT_S)[0] == Outcome(200, {"deleted": 2})
    assert node.engine.calls[1:] == [DeleteRecords(C1, ("x", "y"), None, None, None)]


def test_a_refused_filter_is_the_outcome(node: Node) -> None:
    def refuse(work: Any) -> None:
        if isinstance(work, Resolve):
            raise Refusal(400, "InvalidArgumentError", "Invalid where clause")

    node.engine.before = refuse
    node.raft.append(create())
    node.raft.append(DeleteRecords(C1, None, "[]", None, None))
    refused = node.applier.expect("q1-0")
    node.applier.start()
    assert refused.result(WAIT_S)[0].status == 400


def test_started_index_covers_work_under_way(node: Node) -> None:
    begun, go = threading.Event(), threading.Event()

    def block(call: Any) -> None:
        if isinstance(call.command, WriteRecords) and "b" in call.command.ids:
            begun.set()
            assert go.wait(WAIT_S)

    node.engine.before = block
    node.raft.append(create())
    node.raft.append(add("a"))
    node.applier.start()
    node.done(2)
    assert node.applier.started_index(C1) == 2
    assert node.applier.started_index("another") == 0
    assert node.applier.started_index(None) == 2
    node.raft.append(add("b"))
    assert begun.wait(WAIT_S)
    assert (node.applier.applied_index, node.applier.started_index(C1)) == (2, 3)
    assert node.applier.started_index(None) == 3  # listings show what record writes fix, too
    go.set()
    node.done(3)


def test_after_a_crash_reads_may_see_what_the_log_holds(tmp_path: Path, raft: MemoryLog) -> None:
    raft.append(create())
    node = Node(tmp_path, raft)
    raft.last_index = 4  # in the journal, not known to be committed: a call of it may be half done
    node.applier.start()
    node.done(1)
    assert node.applier.started_index(C1) == 4
    raft.last_index = 2  # a new leader cut the log
    assert node.applier.started_index(C1) == 2
    raft.last_index = 0
    for name in "abc":
        raft.append(add(name))
    node.done(4)
    assert node.applier.started_index("another") == 0
    node.close()


def test_a_restart_amid_an_entry_knows_what_its_first_part_showed(tmp_path: Path, raft: MemoryLog) -> None:
    """Found by the simulation: the token said 1, though a read showed a record of entry 2."""
    broken = Node(tmp_path, raft)

    def full(call: Any) -> None:
        if isinstance(call.command, CreateCollection) and call.command.name == "second":
            raise Fault("disk full")

    broken.engine.before = full
    raft.append(create())
    raft.append(add("a"), create("second", C1.replace("1", "2")))
    stopped = broken.applier.expect("q1-1")
    broken.applier.start()
    with pytest.raises(OutcomeUnknown, match="disk full"):
        stopped.result(WAIT_S)
    assert broken.store.marker() == Marker(1, 1)
    broken.close()
    node = Node(tmp_path, raft)
    node.applier.start()
    node.done(2)
    assert node.applier.started_index(C1) == 2
    node.close()


def test_listeners_hear_every_rise_until_removed(node: Node) -> None:
    heard: list[int] = []

    def broken(index: int) -> None:
        raise RuntimeError("the loop is closed")

    node.applier.add_listener(broken)
    node.applier.add_listener(heard.append)
    node.applier.start()
    node.done(node.raft.append(create()))
    node.done(node.raft.append(add("a")))
    node.applier.stop(WAIT_S)
    assert heard == [1, 2]
    node.applier.remove_listener(heard.append)
    node.applier.remove_listener(heard.append)


def test_who_waits_at_the_end_learns_that_the_outcome_is_unknown(node: Node) -> None:
    node.applier.start()
    unknown = node.applier.expect("never proposed")
    node.applier.stop(WAIT_S)
    with pytest.raises(OutcomeUnknown):
        unknown.result(WAIT_S)
    with pytest.raises(Unavailable):
        node.applier.expect("too late")


def test_one_of_two_who_wait_may_forget(node: Node) -> None:
    first, second = node.applier.expect("q0-0"), node.applier.expect("q0-0")
    node.applier.forget("q0-0", first)
    gone = node.applier.expect("q1-0")
    node.applier.forget("q1-0")
    cancelled = node.applier.expect("q0-0")
    cancelled.cancel()
    node.raft.append(create())
    node.raft.append(add("a"))
    node.applier.start()
    assert second.result(WAIT_S)[1] == 1
    node.done(2)
    assert not first.done()
    assert not gone.done()


def test_an_entry_that_cannot_be_read_stops_after_those_before_it(node: Node) -> None:
    node.raft.append(create())
    node.raft.log.append(b"\x93\x63\x01\x90")  # wire version 99
    node.applier.start()
    node.done(1)
    assert not node.wait_applied(2)
    node.applier.stop(WAIT_S)
    assert "Log entry 2 cannot be read: log entry has wire version 99" in node.faults[0].message


def test_a_log_that_begins_later_is_a_fault(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(start: int, max_bytes: int) -> list[Entry]:
        raise LookupError(start)

    monkeypatch.setattr(node.raft, "entries", gone)
    node.raft.append(create())
    node.applier.start()
    assert not node.wait_applied(1)
    node.applier.stop(WAIT_S)
    assert "they fill it" in node.faults[0].message


def test_a_marker_beside_the_state_is_a_fault(tmp_path: Path, raft: MemoryLog) -> None:
    store = Store(tmp_path / "state.sqlite")
    store.write([], 7)
    store.close()
    with pytest.raises(Fault, match="says that entry 7 is applied"):
        Node(tmp_path, raft)


def test_what_this_build_does_not_understand_stops_the_node_before_it_is_applied(node: Node) -> None:
    node.raft.append(create())
    node.raft.append(add("a"), RaiseLevel(NEWEST_LEVEL + 1))
    node.applier.start()
    node.done(1)
    assert not node.wait_applied(2)
    [fault] = node.faults
    assert f"Log entry 2 cannot be applied: it needs command level {NEWEST_LEVEL + 1}" in fault.message
    assert "It was not skipped" in fault.message
    assert "Start this node with a newer build" in fault.message
    assert node.store.marker() == Marker(1, 0)
    assert node.engine.calls == [create()], "not even what stands before it in the same entry"


def test_an_unknown_kind_stops_the_node_too(node: Node) -> None:
    node.raft.append_payload(encode_group(1, [msgpack.packb(["q", b"d", 99, []])]))
    node.applier.start()
    assert not node.wait_applied(1)
    [fault] = node.faults
    assert "Log entry 1 cannot be applied: it has a command with the unknown tag 99" in fault.message
    assert "Start this node with a newer build" in fault.message


def test_a_directory_of_a_newer_level_is_not_opened(tmp_path: Path, raft: MemoryLog) -> None:
    first = Node(tmp_path, raft)
    raft.append(RaiseLevel(NEWEST_LEVEL))
    first.applier.start()
    first.done(1)
    assert first.applier.level == NEWEST_LEVEL
    first.close()
    again = Node(tmp_path, raft)
    try:
        with pytest.raises(
            Fault, match=f"of command level {NEWEST_LEVEL}, this build understands levels up to"
        ):
            Applier(
                raft,
                again.machine,
                again.engine,  # type: ignore[arg-type]
                again.store,
                again.faults.append,
                newest_level=NEWEST_LEVEL - 1,
            )
    finally:
        again.close()
