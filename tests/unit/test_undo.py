"""What a large write overwrites is read, kept within bounds, and brought back."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any

import pytest

from cluster.apply.remembering import remember
from cluster.chroma.interface import Records
from cluster.errors import EngineUnavailable, Fault, Refusal, Unavailable
from cluster.state.catalog import Outcome
from cluster.state.commands import DeleteRecords, WriteRecords
from cluster.state.undo import Before, Undoing, undoing_calls
from cluster.state.work import Remember, Target

if TYPE_CHECKING:
    from cluster.chroma.interface import Get

TARGET = Target("t", "d", "n", "c")


class Holder:
    """An engine that holds ids with a document of a hundred letters each, and answers in its own order."""

    def __init__(self, *ids: str) -> None:
        self.ids = set(ids)
        self.asked: list[Get] = []

    def get(self, collection_id: str, wanted: Get) -> Records:
        self.asked.append(wanted)
        ids = sorted((name for name in wanted.ids or () if name in self.ids), reverse=True)
        if not wanted.include:
            return Records(ids, None, None, None, None)
        return Records(
            ids, [[1.0, 0.1] for _ in ids], ["x" * 100 for _ in ids], None, [{"k": [1]} for _ in ids]
        )


def write(kind: Any, *ids: str) -> WriteRecords:
    return WriteRecords(kind, "c", ids, 2, tuple(b"\0" * 8 for _ in ids), None, None, None)


def read(engine: Any, command: WriteRecords, max_bytes: int = 10_000) -> Before:
    return remember(engine, Remember(command, TARGET, 1), max_bytes)


def test_of_an_add_only_the_ids_that_exist_are_read() -> None:
    engine = Holder("b", "c", "z")
    assert read(engine, write("add", "a", "b", "c", "b")) == Before(("c", "b"))
    assert all(wanted.include == () for wanted in engine.asked)


def test_of_an_upsert_the_records_are_read_in_the_order_of_the_write_on_every_node() -> None:
    vector = struct.pack("<2f", 1.0, 0.1)
    text = "x" * 100
    records = WriteRecords(
        "add", "c", ("b", "c"), 2, (vector, vector), ({"k": [1]}, {"k": [1]}), (text, text), (None, None)
    )
    before = read(Holder("c", "b"), write("upsert", "a", "b", "c"))
    assert before == Before(("b", "c"), records)
    assert Before.decode(before.encode()) == before


def test_what_is_too_large_is_not_kept() -> None:
    ids = tuple(str(at) for at in range(1000))
    engine = Holder(*ids)
    assert read(engine, write("update", *ids)) == Before((), is_whole=False)
    assert len(engine.asked) == 1  # no more than shows that
    assert read(engine, write("add", *ids)).is_whole


@pytest.mark.parametrize(
    ("error", "becomes"),
    [
        (Refusal(500, "InternalError", "damaged"), Fault),  # another node may read it: no outcome of the log
        (Refusal(404, "NotFoundError", "gone"), Fault),
        (Unavailable("the gate"), EngineUnavailable),
        (EngineUnavailable("restarting"), EngineUnavailable),
        (Fault("broken"), Fault),
    ],
)
def test_what_reading_meets_is_never_an_outcome(error: Exception, becomes: type[Exception]) -> None:
    class Failing:
        def get(self, collection_id: str, wanted: Get) -> Records:
            raise error

    with pytest.raises(becomes):
        read(Failing(), write("add", "a"))


def test_only_what_may_have_changed_is_brought_back() -> None:
    old = write("add", "b", "g")
    large = write("upsert", *"abcdefgh")
    calls = undoing_calls(large, Before(("b", "g"), old), 2, 3)
    assert calls == [
        DeleteRecords("c", ("a", "b", "c"), None, None, None),
        DeleteRecords("c", ("d", "e", "f"), None, None, None),
        write("add", "b"),  # g is in the part that failed
    ]
    assert undoing_calls(write("update", *"abcdefgh"), Before(("b", "g"), old), 1, 3) == [
        DeleteRecords("c", ("b",), None, None, None),
        write("add", "b"),
    ]
    assert undoing_calls(write("add", *"abcd"), Before(tuple("abcd")), 1, 2) == []


def test_an_undoing_survives_the_store() -> None:
    undoing = Undoing(3, Outcome(500, {"error": "E", "message": "m"}))
    assert Undoing.decode(undoing.encode()) == undoing
