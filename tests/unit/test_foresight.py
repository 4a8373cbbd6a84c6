"""What is answered at commit is what the log decides later, whatever has not been applied yet."""

from __future__ import annotations

import asyncio
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from cluster.errors import OutcomeUnknown, Refusal
from cluster.raft.interface import Position
from cluster.service.foresight import Foresight
from cluster.state.catalog import Catalog, decide, initial_changes
from cluster.state.commands import (
    Command,
    CreateCollection,
    DeleteCollection,
    DeleteRecords,
    Reset,
    UpdateCollection,
    WriteRecords,
)

T, D = "default_tenant", "default_database"


def create(name: str) -> CreateCollection:
    return CreateCollection(T, D, name, f"id-{name}", False, None, None, None)


def write(collection: str, dimension: int | None = 2, model: str | None = None) -> WriteRecords:
    rows = None if dimension is None else (b"\0" * 4 * dimension,)
    kind = "update" if dimension is None else "upsert"
    return WriteRecords(kind, f"id-{collection}", ("a",), dimension, rows, None, None, None, model)


class World:
    """A log of which only a beginning is applied; every entry was proposed by the node that looks."""

    def __init__(self) -> None:
        self.foresight = Foresight()
        self.catalog = Catalog()
        for change in initial_changes():
            self.catalog.put(change)
        self.log: list[Command] = []
        self.applied = 0

    async def propose(self, command: Command, term: int = 1, *, here: bool = True) -> bool | None:
        """Commit it; what foresight says of it at its commit, if it is a write of records."""
        self.log.append(command)
        if here:
            position: asyncio.Future[Position] = asyncio.get_running_loop().create_future()
            self.foresight.watch(command, position)
            position.set_result(Position(len(self.log), term))
            await asyncio.sleep(0)
        if isinstance(command, WriteRecords):
            return self.foresight.is_accepted(command, self.catalog, self.applied)
        return None

    def apply(self) -> bool:
        """Apply the next entry; whether it was accepted."""
        command = self.log[self.applied]
        self.applied += 1
        try:
            effect = decide(self.catalog, command)
        except Refusal:
            return False
        for change in effect.changes:
            self.catalog.put(change)
        return True

    def apply_all(self) -> None:
        while self.applied < len(self.log):
            self.apply()


def run(scenario: Any) -> None:
    asyncio.run(scenario())


def test_a_write_that_fits_what_is_applied_is_accepted_at_commit() -> None:
    async def scenario() -> None:
        world = World()
        await world.propose(create("x"))
        assert await world.propose(write("x")) is False
        world.apply_all()
        for _ in range(3):
            assert await world.propose(write("x")) is True
        assert await world.propose(write("x", None)) is True
        await world.propose(DeleteRecords("id-x", ("a",), None, None, None))
        assert await world.propose(write("x")) is True

    run(scenario)


def test_what_the_log_will_refuse_is_not_accepted_at_commit() -> None:
    async def scenario() -> None:
        world = World()
        await world.propose(create("x"))
        await world.propose(write("x"))
        world.apply_all()
        assert await world.propose(write("y")) is False
        assert await world.propose(write("x", 3)) is False
        await world.propose(DeleteCollection(T, D, "x"))
        assert await world.propose(write("x")) is False

    run(scenario)


def test_entries_of_another_leader_and_lost_proposals_are_unclear_until_applied() -> None:
    async def scenario() -> None:
        world = World()
        await world.propose(create("x"))
        await world.propose(write("x"))
        world.apply_all()
        await world.propose(DeleteCollection(T, D, "x"), here=False)
        assert await world.propose(write("x"), 3) is False
        world = World()
        await world.propose(create("x"))
        await world.propose(write("x"))
        world.apply_all()
        lost: asyncio.Future[Position] = asyncio.get_running_loop().create_future()
        world.foresight.watch(DeleteCollection(T, D, "x"), lost)
        lost.set_exception(OutcomeUnknown("lost"))
        await asyncio.sleep(0)
        world.log.append(DeleteCollection(T, D, "x"))
        assert await world.propose(write("x")) is False

    run(scenario)


COMMANDS = st.one_of(
    st.builds(create, st.sampled_from("xy")),
    st.builds(lambda name: DeleteCollection(T, D, name), st.sampled_from("xy")),
    st.builds(write, st.sampled_from("xy"), st.sampled_from([None, 2, 3]), st.sampled_from([None, "m", "n"])),
    st.builds(write, st.sampled_from("xy")),
    st.just(Reset()),
    st.just(UpdateCollection("id-x", "z", None, None)),
)


@given(st.lists(st.tuples(COMMANDS, st.integers(0, 4), st.booleans(), st.booleans()), max_size=30))
def test_what_is_answered_at_commit_is_never_refused_later(steps: list[Any]) -> None:
    async def scenario() -> None:
        world = World()
        said: list[bool | None] = []
        term = 1

        def catch_up() -> None:
            number = world.applied
            accepted = world.apply()
            assert accepted or not said[number]

        for command, applies, here, elected in steps:
            term += elected or not here
            said.append(await world.propose(command, term, here=here))
            term += not here
            if not here:
                said[-1] = None
            for _ in range(min(applies, len(world.log) - world.applied)):
                catch_up()
        while world.applied < len(world.log):
            catch_up()

    run(scenario)
