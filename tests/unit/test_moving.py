"""Moving in and out, the decisions: what is done, what counts as the same, what an interrupted move knows."""

from __future__ import annotations

import json
import math
import struct
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.moving import cosine, exact, journal, keeping
from cluster.moving.comparison import Comparison, Difference
from cluster.moving.plan import PREFIX, Collection, Listing, NothingDone, Place, changes, plan, unlike
from cluster.moving.records import NOTHING, Record, batches, chained, differing, same
from cluster.moving.report import Report, Result, exit_code, lines

PLACE = Place("t", "d", "notes")
FLOATS = st.floats(allow_nan=False, allow_infinity=False)
VALUES = st.one_of(st.booleans(), st.integers(-(2**63), 2**63 - 1), FLOATS, st.text())


def record(key: str, *, vector: tuple[float, ...] = (1.0, 2.0), **fields: Any) -> Record:
    packed = struct.pack(f"<{len(vector)}f", *vector)
    whole = {"document": None, "uri": None, "metadata": None, **fields}
    return Record(key, packed, **whole)


def collection(name: str = "notes", uid: str = "1", **fields: Any) -> Collection:
    whole: dict[str, Any] = {"metadata": None, "configuration": {"hnsw": {"space": "l2"}}, "schema": {}}
    return Collection(Place("t", "d", name), uid, **{**whole, **fields})


def listing(*collections: Collection) -> Listing:
    return Listing(("t",), (("t", "d"),), collections)


# -- what counts as the same ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (1, 1.0),
        (1, True),
        (0.0, -0.0),
        ("1", 1),
        ([1], [1.0]),
        ({"a": 1}, {"a": True}),
        (None, {}),
        ([], None),
    ],
)
def test_types_and_signs_count(one: Any, other: Any) -> None:
    assert not same(one, other)
    assert same(one, one)
    assert same(other, other)


def test_fields_that_differ_are_named() -> None:
    one = record("a", document="x", uri="u", metadata={"k": 1, "l": [1, 2], "m": 0.5})
    other = record("a", vector=(1.0, 2.5), document="y", metadata={"k": 1.0, "l": [1, 2], "n": 0.5})
    assert differing(one, other) == [
        "vector", "document", "uri", "metadata 'k'", "metadata 'm'", "metadata 'n'",
    ]  # fmt: skip
    assert differing(record("a", document=""), record("a")) == ["document"]
    assert differing(record("a", metadata={}), record("a")) == ["metadata"]


@given(st.dictionaries(st.text(), VALUES), st.dictionaries(st.text(), VALUES))
@settings(deadline=None)
def test_the_digest_sees_what_the_comparison_sees(one: dict[str, Any], other: dict[str, Any]) -> None:
    digests = [chained(NOTHING, [record("a", metadata=it)]) for it in (one, other)]
    assert (digests[0] == digests[1]) == same(one, other)


def test_the_digest_does_not_depend_on_how_records_come() -> None:
    records = [record(str(number), document="x" * number) for number in range(7)]
    parts = chained(chained(NOTHING, records[:3]), records[3:])
    assert parts == chained(NOTHING, records) != chained(NOTHING, records[::-1])
    assert chained(NOTHING, [record("ab", document="c")]) != chained(NOTHING, [record("a", document="bc")])


# -- the comparison ------------------------------------------------------------------------------


def compared(sources: list[Record], targets: list[Record], step: int = 2) -> list[Difference]:
    comparison = Comparison()
    for start in range(0, max(len(sources), len(targets)), step):
        comparison.source(sources[start : start + step])
        comparison.target(targets[start : start + step])
    return comparison.finish()


def test_every_kind_of_difference_is_named() -> None:
    records = [record(str(number)) for number in range(5)]
    assert compared(records, records) == []
    assert compared(records, records[:-1]) == [Difference("4", "missing in the target")]
    assert compared(records[1:], records) == [Difference("0", "not in the source")]
    assert compared(records, [*records[:4], record("4", document="x")]) == [Difference("4", "document")]
    swapped = [records[1], records[0], *records[2:]]
    assert {one.what for one in compared(records, swapped)} == {"its place in the order"}
    assert Difference("4", "twice in the source") in compared([*records, records[4]], records)


def test_differences_beyond_measure_are_counted() -> None:
    comparison = Comparison()
    comparison.source(record(str(number)) for number in range(3000))
    assert len(comparison.finish()) == 1000
    assert comparison.differing == 3000


# -- the plan ------------------------------------------------------------------------------------


def test_what_exists_is_refused_skipped_or_replaced() -> None:
    source, target = listing(collection(), collection("new")), listing(collection(uid="9"))
    with pytest.raises(NothingDone, match=r"t/d/notes already\. Nothing was changed"):
        plan(source, target, "refuse", {})
    for existing, action in (("skip", "skip"), ("replace", "replace")):
        steps = plan(source, target, existing, {}).steps  # type: ignore[arg-type]
        assert [(step.source.place.name, step.action) for step in steps] == [
            ("new", "make"),
            ("notes", action),
        ]


def test_what_this_very_move_made_is_done() -> None:
    steps = plan(listing(collection()), listing(collection(uid="9")), "refuse", {PLACE: "9"}).steps
    assert [step.action for step in steps] == ["done"]


def test_only_what_is_missing_is_made() -> None:
    source = Listing(("a", "t"), (("a", "x"), ("t", "d")), ())
    done = plan(source, Listing(("t",), (("t", "d"),), ()), "refuse", {})
    assert (done.tenants, done.databases) == (("a",), (("a", "x"),))


def test_half_done_collections_are_not_moved() -> None:
    temporary = PLACE.temporary
    assert temporary.name.startswith(PREFIX)
    assert temporary == PLACE.temporary != Place("t", "d", "other").temporary
    assert plan(listing(collection(temporary.name)), listing(), "refuse", {}).steps == ()


def test_settings_in_metadata_count_for_what_an_old_chroma_made() -> None:
    told = {"hnsw:space": "cosine", "hnsw:M": 24}
    old = collection(metadata=told, configuration={"hnsw": {"space": "l2", "max_neighbors": 16}})
    new = collection(metadata=told, configuration={"hnsw": {"space": "cosine", "max_neighbors": 24}})
    assert unlike(old, new) == ["configuration"]
    assert unlike(old, new, as_meant=True) == []
    assert old.is_cosine
    assert new.is_cosine
    other = collection(
        metadata=told, configuration={"hnsw": {"space": "l2", "ef_search": 7, "max_neighbors": 1}}
    )
    assert unlike(old, other, as_meant=True) == ["configuration"]


def test_the_number_of_processors_is_no_difference() -> None:
    one, other = ({"keys": [{"hnsw": {"num_threads": number, "m": 1}}]} for number in (2, 16))
    assert unlike(collection(schema=one), collection(schema=other)) == []
    assert unlike(collection(schema=one), collection(schema={"keys": []})) == ["schema"]


def test_keys_that_chroma_notes_by_itself_are_no_difference() -> None:
    usual, other = {"index": {"enabled": True}}, {"index": {"enabled": False}}
    schemas = [
        {"defaults": {"int": usual}, "keys": keys}
        for keys in ({}, {"a": {"int": usual}}, {"a": {"int": other}})
    ]
    assert unlike(collection(schema=schemas[0]), collection(schema=schemas[1])) == []
    assert unlike(collection(schema=schemas[0]), collection(schema=schemas[2])) == ["schema"]


def test_every_change_of_a_source_is_named() -> None:
    before = listing(collection("a"), collection("b"), collection("c"), collection("d"))
    after = listing(
        collection("b", uid="2"), collection("c", metadata={"x": 1}), collection("d"), collection("e")
    )
    counts = {Place("t", "d", "d"): 5}
    assert changes(before, after, counts, {Place("t", "d", "d"): 6}) == [
        "t/d/e was made",
        "t/d/a was deleted",
        "t/d/b was made anew",
        "t/d/c has another metadata",
        "t/d/d had 5 records and has 6",
    ]
    assert changes(before, before, counts, counts) == []


# -- requests ------------------------------------------------------------------------------------


def test_a_request_is_bounded_and_nothing_is_lost() -> None:
    small = [record(str(number)) for number in range(25)]
    assert [len(batch) for batch in batches(small, 10)] == [10, 10, 5]
    large = [record(str(number), document="x" * 5_000_000) for number in range(3)]
    assert [len(batch) for batch in batches(large, 10)] == [1, 1, 1]
    wide = [record(str(number), metadata={"k": [1] * 60_000}) for number in range(3)]
    assert [len(batch) for batch in batches(wide, 10)] == [1, 1, 1]
    assert list(batches([], 10)) == []


# -- the journal ---------------------------------------------------------------------------------


def told(*written: dict[str, Any], torn: bytes = b"") -> journal.Journal:
    return journal.read([*(json.dumps(line).encode() + b"\n" for line in written), torn])


def test_an_interrupted_move_knows_where_it_was() -> None:
    place = list(PLACE)
    begun = {"place": place, "building": "7", "outcome": "moved"}
    done = {"place": place, "records": 5, "digest": "ab" * 32}
    assert told(begun).built[PLACE] == journal.Built("7", "moved")
    assert told(begun, done).built[PLACE] == journal.Built("7", "moved", 5, b"\xab" * 32)
    assert told(begun, done, {"place": place, "dropped": True}).built == {}
    assert told(begun, done, begun).built[PLACE].records == 0
    placed = told(begun, {"place": place, "verified": True, "rounded": 2}, {"place": place, "placed": True})
    assert (placed.built[PLACE].verified, placed.built[PLACE].placed, placed.built[PLACE].rounded) == (
        True,
        True,
        2,
    )
    assert placed.ours == {PLACE: "7"}


@pytest.mark.parametrize("torn", [b'{"place":["t","d","notes"],"rec', b"\0\0\0\n", b"[\n"])
def test_a_torn_line_never_happened(torn: bytes) -> None:
    begun = {"place": list(PLACE), "building": "7", "outcome": "moved"}
    assert told(begun, torn=torn).built[PLACE].records == 0


# -- what Chroma rounds --------------------------------------------------------------------------


@given(st.floats(min_value=1e-290, max_value=1e290), st.sampled_from([1, -1]))
@settings(deadline=None, max_examples=100)
def test_a_number_is_read_as_it_by_every_reader(number: float, sign: int) -> None:
    text = exact.literal(sign * number)
    assert float(text) == sign * number
    assert json.loads(text) == sign * number
    assert isinstance(json.loads(text), float)


@given(FLOATS)
@settings(deadline=None, max_examples=100)
def test_a_number_that_a_chroma_kept_is_kept_again(number: float) -> None:
    shown = exact.through_log(number)
    if math.isfinite(shown) and abs(shown) > 1e-300:
        written = exact.to_write(shown)
        assert written is not None
        assert exact.through_log(written) == shown


VECTORS = st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=40)


@given(VECTORS, st.integers(-20, 20))
@settings(deadline=None, max_examples=100)
def test_a_cosine_vector_is_given_back_to_the_bit(values: list[float], power: int) -> None:
    scaled = struct.unpack(f"<{len(values)}f", struct.pack(f"<{len(values)}f", *values))
    vector = struct.pack(f"<{len(values)}f", *(value * 2.0**power for value in scaled))
    shown = cosine.as_given_back(vector)
    [written] = cosine.to_write([shown])
    if written is not None:
        assert cosine.as_given_back(written) == shown


def test_a_usual_cosine_vector_always_has_one_to_write() -> None:
    import numpy as np

    random = np.random.default_rng(4)
    for width in (1, 2, 3, 8, 128, 384, 1536):
        made = random.normal(size=(20, width)).astype("<f4")
        shown = [cosine.as_given_back(row.tobytes()) for row in made]
        shown[0] = cosine.as_given_back(np.array([-0.0, *made[0][1:]], dtype="<f4").tobytes())
        written = cosine.to_write(shown)
        assert [it is not None and cosine.as_given_back(it) for it in written] == shown


def test_what_cannot_be_kept_is_known() -> None:
    number = 90.28571428571429  # Chroma reads it as ...28, and no number as this one
    assert exact.to_write(number) is None
    raw = record("a", vector=(0.1, 0.7, 0.3), metadata={"f": number, "i": 1, "l": [number, 1.5]})
    [shown] = keeping.kept([raw], is_cosine=True)
    assert shown.metadata == {"f": 90.28571428571428, "i": 1, "l": [90.28571428571428, 1.5]}
    built = journal.Built("7", "moved")
    built.note_rounded([raw], [shown])
    assert (built.rounded, built.roundings[0].key) == (1, "a")
    [plain] = keeping.kept([record("b", metadata={"f": 0.5, "s": "x"})], is_cosine=False)
    assert plain == record("b", metadata={"f": 0.5, "s": "x"})


# -- the report ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("result", "problems", "changed", "code"),
    [
        (Result(PLACE, "moved", 5), [], [], 0),
        (Result(PLACE, "replaced", 5), [], [], 0),
        (Result(PLACE, "skipped"), [], [], 0),
        (Result(PLACE, "moved", 5, rounded=1), [], [], 1),
        (Result(PLACE, "failed", reason="no"), [], [], 1),
        (Result(PLACE, "differs", 5, "no", (Difference("a", "vector"),), 1), [], [], 1),
        (Result(PLACE, "moved", 5), ["a tenant"], [], 1),
        (Result(PLACE, "moved", 5), [], ["written to"], 1),
    ],
)
def test_only_all_moved_and_verified_is_good(
    result: Result, problems: list[str], changed: list[str], code: int
) -> None:
    report = Report("a", "b", results=[result], problems=problems, changes=changed).as_json()
    assert exit_code(json.loads(json.dumps(report))) == code
    text = "\n".join(lines(report))
    assert ("NOT everything" in text) == (code == 1)
    assert str(PLACE) in text
