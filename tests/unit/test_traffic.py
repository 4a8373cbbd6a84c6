"""What clients decide and conclude: from the seed and the answers alone, and only by proof."""

from __future__ import annotations

import random

import pytest

from evaluation.history import WORKLOADS, Action, Fate, Phase
from evaluation.systems.interface import Entry
from evaluation.traffic import answers
from evaluation.traffic.clients import Pace, sessions
from evaluation.traffic.decision import Decision, KeyPool, Session
from evaluation.traffic.mix import NAMES, Mix
from evaluation.traffic.recorder import Completion, Recorder
from evaluation.traffic.vectors import DIMENSION, vector
from evaluation.traffic.workloads import batch
from evaluation.traffic.workloads.append import Append
from evaluation.traffic.workloads.counter import Counter

SESSION = Session("s0-lb", 0, "lb", "session", "applied")


@pytest.mark.parametrize(
    ("action", "status", "error", "outcome"),
    [
        (Action.UPSERT, 200, "", Fate.OK),
        (Action.ADD, 201, "", Fate.OK),
        (Action.CREATE, 409, "ChromaError", Fate.OK),
        (Action.DROP, 404, "NotFoundError", Fate.OK),
        (Action.EXISTS, 404, "NotFoundError", Fate.OK),
        # The collection is not there: nothing was written, and no document was read.
        (Action.UPSERT, 404, "NotFoundError", Fate.REFUSED),
        (Action.GET, 404, "NotFoundError", Fate.REFUSED),
        (Action.UPSERT, 400, "InvalidArgumentError", Fate.REFUSED),
        (Action.UPSERT, 408, "", Fate.UNKNOWN),
        (Action.UPSERT, 429, "OverloadedError", Fate.REFUSED),
        (Action.UPSERT, 503, "NotLeaderError", Fate.REFUSED),
        (Action.UPSERT, 503, "UnavailableError", Fate.REFUSED),
        # It may have failed after it had begun.
        (Action.UPSERT, 503, "NodeFaultError", Fate.UNKNOWN),
        (Action.UPSERT, 503, "", Fate.UNKNOWN),
        (Action.UPSERT, 504, "OutcomeUnknownError", Fate.UNKNOWN),
        (Action.UPSERT, 500, "InternalError", Fate.UNKNOWN),
        (Action.CREATE, 500, "InternalError", Fate.UNKNOWN),
    ],
)
def test_an_outcome_is_concluded_by_proof(action: Action, status: int, error: str, outcome: Fate) -> None:
    assert answers.outcome_of(action, status, error) is outcome


def test_errors_are_read_from_any_body() -> None:
    assert answers.error_of(b'{"error": "NotLeaderError", "message": "no"}') == ("NotLeaderError", "no")
    assert answers.error_of(b"<html>") == ("", "<html>")
    assert answers.error_of(b"[1]") == ("", "[1]")


def test_a_document_that_contradicts_its_metadata_is_no_value() -> None:
    assert answers.register_value({"ids": [], "metadatas": [], "documents": []}) is None
    found = {"ids": ["r"], "metadatas": [{"value": "v1"}], "documents": ["v1"]}
    assert answers.register_value(found) == "v1"
    assert answers.register_value(found | {"documents": ["v2"]}) == "torn: v1 / v2"


def _play(seed: int, turns: int, outcome: Fate = Fate.OK) -> list[Decision]:
    mix, rng = Mix(NAMES), random.Random(seed)
    decisions: list[Decision] = []
    for turn in range(turns):
        session = Session(f"s{turn % 7}-lb", turn % 7, "lb", "session", "applied")
        decision = mix.next(session, rng)
        decisions.append(decision)
        mix.answered(session, decision, outcome, None)
    return decisions


def test_decisions_follow_from_the_seed() -> None:
    assert _play(1, 500) == _play(1, 500)
    assert _play(1, 500) != _play(2, 500)
    assert {decision.workload for decision in _play(1, 500)} == set(WORKLOADS)


def test_values_are_written_once() -> None:
    unique = [
        (decision.workload, decision.value)
        for decision in _play(3, 4000)
        if decision.action.is_write
        and decision.value is not None
        and decision.workload in ("register", "set", "append", "batch")
    ]
    assert len(unique) == len(set(unique)) > 1000


def test_no_key_grows_hot() -> None:
    counts: dict[tuple[str, str], int] = {}
    for decision in _play(4, 6000):
        if decision.workload in ("register", "batch", "catalogue"):
            key = decision.workload, decision.key
            counts[key] = counts.get(key, 0) + 1
    assert max(counts.values()) < 120
    assert len(counts) > 40


def test_few_writes_of_a_key_are_unknown() -> None:
    unknown: dict[tuple[str, str], int] = {}
    for decision in _play(5, 4000, Fate.UNKNOWN):
        if decision.action.is_write and decision.workload not in ("set", "counter"):
            key = decision.workload, decision.key
            unknown[key] = unknown.get(key, 0) + 1
    assert max(unknown.values()) <= 10


def test_a_pool_replaces_keys() -> None:
    pool, rng = KeyPool("k", size=2, most_operations=5, most_unknown=2), random.Random(0)
    assert pool.any_old(rng) is None
    for _ in range(20):
        pool.choose(rng)
    assert len(pool.keys) >= 4
    assert pool.any_old(rng) in pool.keys
    before = len(pool.keys)
    newest = pool.keys[-1]
    pool.unknown(newest)
    pool.unknown(newest)
    assert len(pool.keys) == before + 1


def test_a_list_ends_with_an_unknown_append() -> None:
    """The old request may arrive late and put back the list as it was."""
    workload, rng = Append(), random.Random(0)
    first = workload.next(SESSION, rng)
    assert first == Decision("append", Action.APPEND, "a-0", "a-0.1")
    workload.answered(SESSION, first, Fate.UNKNOWN, None)
    appends = {decision.key for _ in range(50) if (decision := workload.next(SESSION, rng)).action.is_write}
    assert appends
    assert "a-0" not in appends
    assert Decision("append", Action.GET, "a-0") in workload.final()


def test_a_counter_ends_with_an_unknown_write() -> None:
    workload, rng = Counter(), random.Random(0)
    first = workload.next(SESSION, rng)
    assert first == Decision("counter", Action.UPSERT, "c-0", 1)
    workload.answered(SESSION, first, Fate.UNKNOWN, None)
    written = {decision.key for _ in range(50) if (decision := workload.next(SESSION, rng)).action.is_write}
    assert written
    assert "c-0" not in written


def test_one_session_copies_what_it_has_just_read() -> None:
    workload, rng = Counter(), random.Random(1)
    workload.answered(SESSION, workload.next(SESSION, rng), Fate.OK, None)
    reader = Session("s1-lb", 1, "lb", "session", "applied")
    read = Decision("counter", Action.GET, "c-0")
    workload.answered(reader, read, Fate.OK, 1)
    assert workload.next(reader, rng) == Decision("counter", Action.UPSERT, "c-0/copy", 1)
    # Not the same value again, not by another session, not by one whose reads may go back.
    workload.answered(reader, read, Fate.OK, 1)
    assert workload.next(reader, rng).action is Action.GET
    for number, level in ((3, "session"), (4, "eventual")):
        other = Session(f"s{number}-lb", number, "lb", level, "applied")
        workload.answered(other, read, Fate.OK, 2)
        assert workload.next(other, rng).action is Action.GET


def test_every_entry_has_readers_of_every_level_and_both_kinds_of_writers() -> None:
    entries = [Entry("lb", "http://x"), *(Entry(f"n{n}", "http://x", f"n{n}") for n in (1, 2, 3))]
    levels = ("linearizable", "session", "eventual")
    found = sessions(entries, levels, Pace())
    assert len({session.name for session in found}) == len(found) == 18
    for entry in entries:
        assert {session.level for session in found if session.entry == entry.name} == set(levels)
    assert {session.ack for session in found} == {"applied", "committed"}
    plain = sessions(entries, ("default",), Pace())
    assert {(session.level, session.ack) for session in plain} == {("default", "default")}


def test_an_operation_counts_as_open_until_it_is_answered() -> None:
    recorder = Recorder()
    write = Decision("register", Action.UPSERT, "r-0", "v1")
    begun = recorder.invoke(SESSION, recorder.new_process(), write, "id-1")
    assert recorder.operations == [begun]
    assert (begun.outcome, begun.returned_ns, begun.level) == (Fate.UNKNOWN, None, "applied")
    done = recorder.complete(begun, Completion(Fate.OK, status=200, index=7))
    assert (done.outcome, done.value, done.index, done.phase) == (Fate.OK, "v1", 7, Phase.WARMUP)
    assert done.returned_ns is not None
    assert done.returned_ns >= done.invoked_ns
    read = Decision("register", Action.GET, "r-0")
    reading = recorder.invoke(SESSION, recorder.new_process(), read, "id-2")
    assert (reading.level, reading.request_id) == ("session", None)
    assert recorder.complete(reading, Completion(Fate.OK, "v1", status=200)).value == "v1"
    lost = recorder.complete(
        recorder.invoke(SESSION, 3, write, "id-3"), Completion(Fate.UNKNOWN, returned=False)
    )
    assert lost.returned_ns is None
    assert recorder.since(reading.invoked_ns) == recorder.operations[1:]


def test_vectors_are_unique_and_the_same_in_every_run() -> None:
    texts = [f"r-{number}=v{number}" for number in range(2000)]
    assert len({tuple(vector(text)) for text in texts}) == len(texts)
    assert vector("r-1=v1") == vector("r-1=v1")
    assert len(vector("")) == DIMENSION
    assert all(-1 <= each < 1 for text in texts for each in vector(text))


def test_an_unknown_workload_is_refused() -> None:
    with pytest.raises(ValueError, match="no such workload: nothing"):
        Mix(["nothing"])


def test_a_wide_group_that_is_half_written_is_seen_as_such() -> None:
    values = ["w1"] * 250 + ["w2"] * 350
    assert batch.shown("wide-0", values) == ["w1", "w2"]
    assert batch.shown("wide-0", ["w1"] * batch.WIDE) == ["w1"]
    assert batch.shown("wide-0", [None, *values]) == [None, "w1", "w2"]
    assert batch.shown("b-0", ["w1"] * batch.WIDTH) == ["w1"] * batch.WIDTH
    assert len(batch.members("wide-0")) == batch.WIDE
    assert len(batch.members("b-0")) == batch.WIDTH


def test_wide_groups_are_a_small_part_of_the_batches_and_are_read_at_the_end() -> None:
    workload, rng = batch.Batch(), random.Random(1)
    session = Session("s", 0, "lb", "session", "applied")
    keys = [workload.next(session, rng).key for _ in range(1_000)]
    assert 50 < sum(key.startswith("wide") for key in keys) < 150
    assert {decision.key for decision in workload.final()} >= set(keys)


def test_a_client_that_waited_no_longer_is_told_from_one_that_was_refused() -> None:
    assert answers.gave_up(f"{answers.NO_ANSWER} in 4 s")
    assert answers.gave_up(answers.READ_NOTHING)
    for error in ("", "NoAnswer: ServerDisconnectedError: disconnected", "UnavailableError: no leader"):
        assert not answers.gave_up(error)
