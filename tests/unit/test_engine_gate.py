"""The gate of a collection: no read beside a write, none between the parts of one, and no lock-up."""

from __future__ import annotations

import contextlib
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from cluster.chroma.gate import Gate
from cluster.errors import EngineDied, EngineUnavailable, Fault, Hidden, Refusal, Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable

LONG_S = 30.0


def in_thread(do: Callable[[], object]) -> threading.Event:
    """Do it elsewhere; set when it is done."""
    done = threading.Event()

    def run() -> None:
        do()
        done.set()

    threading.Thread(target=run, daemon=True).start()
    return done


def in_place(do: Callable[[], object]) -> None:
    """Do it in another thread than the writer's, and fail as it does."""
    with ThreadPoolExecutor(1) as pool:
        pool.submit(do).result(LONG_S)


def read(gate: Gate, collection_id: str) -> None:
    with gate.reading(collection_id, LONG_S):
        pass


def write(gate: Gate, collection_id: str | None) -> None:
    with gate.writing(collection_id):
        pass


def refused(gate: Gate, collection_id: str) -> bool:
    """Whether a read, from another thread than the writer's, may not begin at once."""
    refusals: list[Unavailable] = []

    def try_it() -> None:
        try:
            with gate.reading(collection_id, 0.0):
                pass
        except Unavailable as refusal:
            refusals.append(refusal)

    assert in_thread(try_it).wait(LONG_S)
    return bool(refusals)


def test_reads_of_the_written_collection_wait_for_the_write_and_others_do_not() -> None:
    gate = Gate()
    with gate.writing("a"):
        assert refused(gate, "a")
        assert not refused(gate, "b")
        waiting = in_thread(lambda: read(gate, "a"))
        assert not waiting.is_set()
    assert waiting.wait(LONG_S)


def test_a_write_waits_for_reads_under_way_and_goes_before_later_ones() -> None:
    gate = Gate()
    with gate.reading("a", LONG_S):
        written = in_thread(lambda: write(gate, "a"))
        while not refused(gate, "a"):  # until the writer has come to the gate
            pass
        assert not written.is_set()
    assert written.wait(LONG_S)
    assert not refused(gate, "a")


def test_a_hidden_collection_is_written_and_not_read_until_it_is_shown() -> None:
    gate = Gate()
    gate.hide("a")
    assert in_thread(lambda: write(gate, "a")).wait(LONG_S)
    with pytest.raises(Hidden):  # who waits for that does so elsewhere, and takes no thread for it
        in_place(lambda: read(gate, "a"))
    gate.hide(None)
    assert not refused(gate, "a")


def test_who_waits_for_a_call_that_fails_does_not_wait_on() -> None:
    gate = Gate()
    seen: list[type[Exception]] = []

    def wait() -> None:
        try:
            read(gate, "a")
        except Hidden:
            seen.append(Hidden)

    begun: list[threading.Event] = []
    with contextlib.suppress(Fault), gate.writing("a"):
        begun.append(in_thread(wait))
        raise Fault("it fails")
    assert begun[0].wait(LONG_S)
    assert seen == [Hidden]


def test_the_writer_itself_may_look_at_what_it_has_hidden() -> None:
    gate = Gate()
    write(gate, "a")
    gate.hide("a")
    read(gate, "a")
    assert refused(gate, "a")


def test_a_refused_call_and_a_failed_read_leave_the_gate_open() -> None:
    gate = Gate()
    with pytest.raises(Refusal, match="no"), gate.writing("a"):
        raise Refusal(400, "InvalidArgumentError", "no")
    with pytest.raises(ValueError, match="no"), gate.reading("a", LONG_S):
        raise ValueError("no")
    assert in_thread(lambda: write(gate, "a")).wait(LONG_S)
    assert not refused(gate, "a")


def test_a_call_that_changes_no_records_closes_no_gate() -> None:
    gate = Gate()
    with gate.writing(None):
        assert not refused(gate, "a")


@pytest.mark.parametrize(
    ("error", "is_doubtful"),
    [
        (EngineDied("crashed", proven=True), True),
        (Fault("it fails"), True),
        (Refusal(400, "InvalidArgumentError", "no"), False),  # it changed nothing
        (EngineUnavailable("restarting"), False),  # it was not begun
    ],
)
def test_nobody_gets_in_between_a_failed_write_and_the_word_of_who_wrote(
    error: Exception, is_doubtful: bool
) -> None:
    gate = Gate()
    with pytest.raises(type(error)), gate.writing("a"):
        raise error
    assert refused(gate, "a") is is_doubtful
    with gate.reading("a", 0.0):  # the writer's own thread looks what the call left
        pass
    gate.hide(None)
    assert not refused(gate, "a")
