"""A verification stands at one place of the log: all before it is in the engine, and nothing behind it.

However the entries come to a node, and however it merges them, it digests at that place the same state.
"""

from __future__ import annotations

import pytest

from cluster.state.commands import (
    CreateCollection,
    Group,
    Proposal,
    Verify,
    WriteRecords,
    decode_command,
    encode_command,
)
from cluster.state.machine import LogEntry, Machine, Verification
from cluster.state.work import Call

CREATE = CreateCollection("default_tenant", "default_database", "c", "c", False, None, None, None)


def write(record_id: str) -> WriteRecords:
    return WriteRecords("upsert", "c", (record_id,), 1, (bytes(4),), None, None, None)


def entry(index: int, *commands: object) -> LogEntry:
    proposals = tuple(
        Proposal(f"p{index}-{position}", b"", command)  # type: ignore[arg-type]
        for position, command in enumerate(commands)
    )
    return index, Group(index * 10, proposals)


LOG = [
    entry(1, CREATE, write("a")),
    entry(2, write("b")),
    entry(3, write("c"), Verify("whole", None), write("d")),
    entry(4, write("e")),
    entry(5, Verify("narrow", {"c": [1, 2]})),
    (6, None),
]


def applied(batches: list[int]) -> tuple[list[str], dict[str, tuple[list[str], object]], Machine]:
    """Apply the log in batches of these sizes: the records written, and at each verification those before it
    and the replicated state."""
    machine = Machine.load(())
    written: list[str] = []
    seen: dict[str, tuple[list[str], object]] = {}
    start = 0
    for size in batches:
        batch = LOG[start : start + size]
        start += size
        while (step := machine.next_step(batch)) is not None:
            if isinstance(step.work, Call) and isinstance(step.work.command, WriteRecords):
                assert step.verification is None
                written += step.work.command.ids
            machine.commit(step)
            if isinstance(step.verification, Verification):
                assert step.work is None
                seen[step.verification.command.round_id] = (list(written), machine.dump())
    assert start == len(LOG)
    return written, seen, machine


@pytest.mark.parametrize("batches", [[6], [1] * 6, [2, 4], [3, 3], [4, 2], [1, 2, 3]], ids=str)
def test_all_before_it_and_nothing_behind_it(batches: list[int]) -> None:
    written, seen, machine = applied(batches)
    assert written == ["a", "b", "c", "d", "e"]
    assert {name: records for name, (records, _) in seen.items()} == {
        "whole": ["a", "b", "c"],
        "narrow": ["a", "b", "c", "d", "e"],
    }
    # The replicated state there is the same too, whatever the batches.
    assert seen == applied([6])[1]
    assert machine.verified_ms == 30, "of the last verification of everything"
    assert Machine.load(machine.dump()).verified_ms == 30


def test_it_is_read_back_as_it_was_written() -> None:
    for command in (Verify("r", None), Verify("r", {"c": [1, 255], "d": []})):
        assert decode_command(encode_command(command)) == command
