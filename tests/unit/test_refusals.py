"""Writes that the cluster refuses: what the machine does with them, and with their collections."""

from __future__ import annotations

import pytest

from cluster.errors import Fault
from cluster.state.commands import (
    Command,
    CreateCollection,
    DeleteCollection,
    DeleteRecords,
    Group,
    Proposal,
    RefuseEntry,
    WriteRecords,
)
from cluster.state.machine import Limits, Machine, Step
from cluster.state.undo import Before
from cluster.state.work import Call, Remember

HERE = ("default_tenant", "default_database")
C1 = "00000000-0000-4000-8000-000000000001"


def add(*ids: str) -> WriteRecords:
    return WriteRecords("add", C1, ids, 1, tuple(b"\0\0\0\0" for _ in ids), None, None, None)


def refuse(index: int, position: int = 0, *, broken: bool = False) -> RefuseEntry:
    return RefuseEntry(index, position, 0, 500, "ContainedWriteError", "it fails", broken)


class Log:
    """Entries, and a machine that applies them; a call with an id `bad` must not be made."""

    def __init__(self) -> None:
        self.entries: list[tuple[int, Group]] = []
        self.machine = Machine.load([])
        self.calls: list[Command] = []
        self.outcomes: dict[str, int] = {}
        self.pairs: dict[str, bytes] = {}
        self.append(CreateCollection(*HERE, "first", C1, False, None, None, None))

    def append(self, *commands: Command) -> int:
        index = len(self.entries) + 1
        proposals = tuple(Proposal(f"q{index}-{at}", b"d", command) for at, command in enumerate(commands))
        self.entries.append((index, Group(index, proposals)))
        return index

    def look_ahead(self) -> None:
        for _, group in self.entries:
            for proposal in group.proposals:
                if isinstance(proposal.command, RefuseEntry):
                    self.machine.refusals.expect(proposal.command)

    def run(self, *, until_bad: bool = False) -> Step | None:
        while (step := self.machine.next_step(self.entries)) is not None:
            if isinstance(step.work, Call):
                if isinstance(step.work.command, WriteRecords) and "bad" in step.work.command.ids:
                    assert until_bad, "a call that the log refuses further on was planned"
                    return step
                self.calls.append(step.work.command)
            self.commit(step)
        return None

    def commit(self, step: Step) -> None:
        for change in step.changes:
            if change.value is None:
                self.pairs.pop(change.key, None)
            else:
                self.pairs[change.key] = change.value
        self.machine.commit(step)
        self.outcomes.update({name: outcome.status for name, outcome, _ in step.outcomes})

    def restart(self) -> None:
        self.machine = Machine.load(sorted(self.pairs.items()))


def test_what_is_refused_further_on_is_not_tried_and_its_neighbours_are() -> None:
    log = Log()
    log.append(add("a"), add("bad"), add("b"))
    log.append(add("c"))
    log.append(refuse(2, 1))
    log.look_ahead()
    log.run()
    assert log.calls[1:] == [add("a"), add("b", "c")]
    assert [log.outcomes[f"q2-{at}"] for at in range(3)] == [201, 500, 201]
    assert log.outcomes["q4-0"] == 200
    assert sorted(log.pairs.items()) == log.machine.dump()


def test_a_node_that_applied_it_stops_and_says_so() -> None:
    log = Log()
    log.append(add("a"))
    log.append(refuse(2))
    with pytest.raises(Fault, match="differs from the others"):
        log.run()
    assert log.machine.applied_index == 2
    log.restart()
    with pytest.raises(Fault, match="differs from the others"):
        log.run()


def test_the_note_outlives_a_restart_and_a_second_agreement() -> None:
    log = Log()
    log.append(add("bad"))
    log.append(refuse(2))
    log.look_ahead()
    step = log.machine.next_step(log.entries)
    while step is not None and log.machine.applied_index < 2:
        log.commit(step)
        step = log.machine.next_step(log.entries)
    log.restart()
    log.append(refuse(2, broken=True))
    log.look_ahead()
    log.run()
    assert log.machine.applied_index == 4
    assert log.machine.refusals.broken() == ()  # the first one counts


def test_of_two_agreements_the_first_in_the_log_counts() -> None:
    log = Log()
    log.append(add("bad"))
    log.append(refuse(2, broken=True))
    log.append(refuse(2))
    log.look_ahead()
    log.run()
    assert log.machine.refusals.broken() == (C1,)


def test_an_agreement_about_itself_or_the_future_is_refused() -> None:
    log = Log()
    log.append(refuse(2))
    log.append(refuse(9))
    log.run()
    assert (log.outcomes["q2-0"], log.outcomes["q3-0"]) == (400, 400)


def test_three_in_a_row_set_the_collection_aside_until_it_is_deleted() -> None:
    log = Log()
    for _ in range(3):
        index = log.append(add("bad"))
        log.append(refuse(index))
    log.append(add("fine"))
    log.look_ahead()
    log.run()
    assert log.outcomes["q8-0"] == 500
    trouble = log.machine.refusals.trouble(C1)
    assert trouble is not None
    assert trouble.is_aside
    assert not trouble.is_broken
    log.restart()
    log.append(add("fine"))
    log.append(DeleteCollection(*HERE, "first"))
    log.append(CreateCollection(*HERE, "first", C1, False, None, None, None))
    log.append(add("fine"))
    log.run()
    assert [log.outcomes[f"q{at}-0"] for at in (9, 10, 12)] == [500, 200, 201]


def test_a_good_write_ends_the_row() -> None:
    log = Log()
    for number in range(4):
        index = log.append(add("bad"))
        log.append(refuse(index))
        log.append(add(f"good {number}"))
    log.look_ahead()
    log.run()
    assert log.machine.refusals.trouble(C1) is None
    assert len(log.calls) == 5


def test_a_collection_that_cannot_be_read_is_set_aside_at_once() -> None:
    log = Log()
    log.append(add("bad"))
    log.append(refuse(2, broken=True))
    log.append(add("fine"))
    log.look_ahead()
    log.run()
    assert log.outcomes["q4-0"] == 500
    assert log.machine.refusals.broken() == (C1,)


def test_a_failed_call_of_several_writes_is_taken_apart() -> None:
    log = Log()
    log.append(add("a"), add("bad"), add("b"))
    step = log.run(until_bad=True)
    assert step is not None
    assert step.proposals == 3
    assert log.machine.narrow(step)
    assert log.machine.is_narrowed
    alone = log.run(until_bad=True)
    assert alone is not None
    assert (alone.proposals, log.machine.place) == (1, (2, 1, 0))
    assert not log.machine.narrow(alone)


class TestLargeWrites:
    """Writes of two records a call; the call with an id `bad` must not be made."""

    def log(self) -> Log:
        log = Log()
        log.machine = Machine.load([], Limits(max_records=2))
        return log

    def run(self, log: Log, *, refusals: dict[int, RefuseEntry]) -> None:
        """Until nothing is left; of the refused write the call of each part in `refusals` is refused."""
        while (step := log.machine.next_step(log.entries)) is not None:
            if isinstance(step.work, Remember):
                step = log.machine.remembered(step, Before(("b",)))
            elif isinstance(step.work, Call):
                place = log.machine.place
                if place.entry == 2 and place.part in refusals:
                    log.append(refusals[place.part])
                    log.look_ahead()
                    continue
                log.calls.append(step.work.command)
            log.commit(step)

    def test_a_later_part_that_is_refused_has_the_earlier_ones_undone(self) -> None:
        log = self.log()
        log.append(add(*"abcd", "bad", "e"))
        log.append(add("f"))
        self.run(log, refusals={2: RefuseEntry(2, 0, 2, 500, "ContainedWriteError", "it fails.", False)})
        undone = [DeleteRecords(C1, ids, None, None, None) for ids in (("a", "c"), ("d",))]
        assert log.calls[1:] == [add("a", "b"), add("c", "d"), *undone, add("f")]
        assert log.outcomes["q2-0"] == 500
        assert log.outcomes["q3-0"] == 201
        assert log.machine.half_written is None
        assert log.pairs.keys() & {"half", "before", "undoing"} == set()

    def test_refusals_of_later_parts_count_in_a_row_though_the_first_part_is_good(self) -> None:
        log = self.log()
        for number in range(3):
            index = log.append(add("a", "c", f"bad{number}"))
            log.append(RefuseEntry(index, 0, 1, 500, "ContainedWriteError", "it fails.", False))
        log.append(add("f"))
        log.look_ahead()
        self.run(log, refusals={})
        trouble = log.machine.refusals.trouble(C1)
        assert trouble is not None
        assert (trouble.refused, trouble.is_aside, trouble.is_broken) == (3, True, False)
        assert log.outcomes["q8-0"] == 500

    @pytest.mark.parametrize("part", [3, 4])
    def test_if_undoing_fails_too_the_collection_is_set_aside_and_not_read(self, part: int) -> None:
        log = self.log()
        log.append(add(*"abcd", "bad", "e"))
        log.append(add("f"))
        refusals = {
            2: RefuseEntry(2, 0, 2, 500, "ContainedWriteError", "it fails.", False),
            part: RefuseEntry(2, 0, part, 500, "ContainedWriteError", "this fails too.", False),
        }
        self.run(log, refusals=refusals)
        trouble = log.machine.refusals.trouble(C1)
        assert trouble is not None
        assert trouble.is_broken
        assert "it fails. Undoing its first engine calls failed too: this fails too." in trouble.cause
        assert (log.outcomes["q2-0"], log.outcomes["q3-0"]) == (500, 500)
        assert log.machine.half_written is None

    def test_a_broken_collection_is_not_undone(self) -> None:
        log = self.log()
        log.append(add(*"abcd", "bad", "e"))
        self.run(log, refusals={1: RefuseEntry(2, 0, 1, 500, "ContainedWriteError", "it fails.", True)})
        assert log.calls[1:] == [add("a", "b")]
        assert log.machine.refusals.broken() == (C1,)
