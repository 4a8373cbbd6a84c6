"""Who differs, in what, and what each node is told: from digests alone."""

from __future__ import annotations

from typing import Any

import pytest

from cluster.verify.comparison import NAMED, Finding, findings, judge, poor_indexes
from cluster.verify.conclusion import (
    NODE,
    Report,
    Result,
    conclude,
    donors_for,
    doubtful,
    narrowed,
    verdict_for,
)
from cluster.verify.digest import DELETED, SET_ASIDE, CollectionDigest

X, Y, Z = "x" * 8, "y" * 8, "z" * 8


def digest(root: str, **more: Any) -> CollectionDigest:
    return CollectionDigest(root, 10, {"name": "n", "metadata": "m"}, **more)


def report(root: str, **more: Any) -> Report:
    return Report({"c": digest(root)}, "state", **more)


UNREADABLE = CollectionDigest(trouble="Error finding id")


@pytest.mark.parametrize(
    ("copies", "right", "wrong"),
    [
        ("AAA", "123", ""),
        ("AAB", "12", "3"),
        ("ABA", "13", "2"),
        ("BAA", "23", "1"),
        ("ABC", "", "123"),
        ("AB", "", "12"),
        ("AABB", "", "1234"),
        ("AAABB", "123", "45"),
        ("AABC", "", "1234"),
        ("AABBC", "", "12345"),
        ("A", "1", ""),
        ("-", "", "1"),
        ("A-", "1", "2"),
        ("AA-", "12", "3"),
        ("AB-", "", "123"),
        ("A--", "1", "23"),
        ("---", "", "123"),
    ],
)
def test_a_majority_of_those_who_can_read_it_is_right(copies: str, right: str, wrong: str) -> None:
    found = judge({str(at + 1): None if copy == "-" else copy for at, copy in enumerate(copies)})
    assert ("".join(sorted(found.right)), "".join(sorted(found.wrong))) == (right, wrong)


def test_the_records_that_differ_are_named_by_what_differs() -> None:
    parts = {"vector": 0, "document": 1, "metadata": 2, "uri": 3}
    sound = {f"r{number}": bytes(32) for number in range(8)}
    broken = dict(sound)
    for number, at in enumerate(parts.values()):
        changed = bytearray(32)
        changed[at * 8] = 1
        broken[f"r{number}"] = bytes(changed)
    del broken["r4"]
    broken["r5"] = b""
    broken["extra"] = bytes(32)
    digests = {"1": digest(X), "2": digest(Y), "3": digest(X)}
    [found] = findings("c", digests, {"1": sound, "2": broken, "3": sound})
    assert (found.node, found.undecided, found.differing) == ("2", False, 7)
    assert found.records == {
        "r0": ("vector",),
        "r1": ("document",),
        "r2": ("metadata of records",),
        "r3": ("uri",),
        "r4": ("missing",),
        "r5": ("unreadable",),
        "extra": ("extra",),
    }


def test_many_records_are_counted_and_some_are_named() -> None:
    sound = {f"r{number:04}": bytes(32) for number in range(500)}
    digests = {"1": digest(X), "2": digest(Y), "3": digest(X)}
    [found] = findings("c", digests, {"1": sound, "2": {}, "3": sound})
    assert (len(found.records), found.differing) == (NAMED, 500)


def test_a_header_that_differs_is_named() -> None:
    other = CollectionDigest(Y, 10, {"name": "n", "metadata": "changed"})
    [found] = findings("c", {"1": digest(X), "2": other, "3": digest(X)}, {})
    assert (found.node, found.parts) == ("2", ("metadata",))


def test_without_a_majority_nobody_is_right() -> None:
    found = findings("c", {"1": digest(X), "2": digest(Y)}, {})
    assert [(one.node, one.undecided) for one in found] == [("1", True), ("2", True)]


def test_a_difference_that_is_seen_twice_counts() -> None:
    looks = {"1": report(X), "2": report(X), "3": report(Y)}
    result = conclude(looks, looks, {})
    assert result.standing == "differs"
    assert [finding.node for finding in result.findings] == ["3"]


def test_a_difference_that_passed_raises_no_alarm() -> None:
    first = {"1": report(X), "2": report(X), "3": report(Y)}
    second = {"1": report(Z), "2": report(Z), "3": report(Z)}
    result = conclude(first, second, {})
    assert (result.standing, result.passed) == ("same", ("c",))
    assert verdict_for("3", result, first)["differs"] == {}


def test_who_is_missing_at_the_second_look_is_neither_right_nor_wrong() -> None:
    first = {"1": report(X), "2": report(X), "3": report(Y)}
    suspect_gone = conclude(first, {"1": report(X), "2": report(X)}, {"3": "it does not answer"})
    assert suspect_gone.standing == "incomplete"
    told = verdict_for("3", suspect_gone, first)
    assert (told["differs"], "c" in told["equal"], told["complete"]) == ({}, False, False)

    # With one of the majority gone, one stands against one: nobody is blamed for that.
    majority_gone = conclude(first, {"1": report(X), "3": report(Y)}, {"2": "it does not answer"})
    assert (majority_gone.standing, majority_gone.findings) == ("incomplete", ())
    for node in first:
        told = verdict_for(node, majority_gone, first)
        assert (told["differs"], "c" in told["equal"]) == ({}, False)


@pytest.mark.parametrize(
    ("why", "standing"), [(DELETED, "same"), (SET_ASIDE, "same"), ("away", "incomplete")]
)
def test_what_was_skipped_is_not_compared(why: str, standing: str) -> None:
    skipped = Report({"c": CollectionDigest(skipped=why)}, "state")
    first = {"1": report(X), "2": skipped, "3": report(X)}
    result = conclude(first, {}, {})
    assert (doubtful(first), result.standing, result.skipped) == ([], standing, {"c": {"2": why}})
    told = verdict_for("2", result, first)
    assert ("c" in told["equal"], told["complete"]) == (False, False)
    assert "c" in verdict_for("1", result, first)["equal"]


def test_a_collection_deleted_between_the_looks_is_no_difference() -> None:
    first = {"1": report(X), "2": report(X), "3": report(Y)}
    gone = Report({}, "state")
    result = conclude(first, dict.fromkeys("123", gone), {})
    assert (result.standing, result.passed) == ("same", ("c",))


def test_a_node_that_lacks_a_collection_differs() -> None:
    looks = {"1": report(X), "2": report(X), "3": Report({}, "state")}
    result = conclude(looks, looks, {})
    assert [(finding.node, finding.parts) for finding in result.findings] == [("3", ("unreadable",))]


def test_a_node_s_own_state_and_strangers_are_findings() -> None:
    looks = {
        "1": report(X),
        "2": Report({"c": digest(X)}, "another state"),
        "3": report(X, strangers=("t/d/mine",)),
    }
    result = conclude(looks, {}, {})
    assert [(finding.node, finding.collection_id, finding.parts) for finding in result.findings] == [
        ("2", NODE, ("replicated state",)),
        ("3", NODE, ("strange collections",)),
    ]
    assert NODE in verdict_for("2", result, looks)["differs"]
    assert NODE in verdict_for("1", result, looks)["equal"]
    assert donors_for("2", result, ("1", "2", "3")) == ["1"]


def test_nobody_is_told_to_be_equal_to_nobody() -> None:
    first = {"1": report(X)}
    told = verdict_for("1", conclude(first, {}, {"2": "away", "3": "away"}), first)
    assert told["equal"] == []


def test_where_to_look_again() -> None:
    first = {"1": report(X), "2": report(X), "3": report(Y)}
    most = {"c": {3: "a", 9: "b"}}
    buckets = {"1": most, "2": most, "3": {"c": {3: "a", 9: "c", 200: "d"}}}
    assert narrowed(["c"], first, buckets) == {"c": [9, 200]}
    # What a node cannot read may be anywhere.
    unread = first | {"3": Report({"c": UNREADABLE}, "state")}
    assert narrowed(["c"], unread, buckets) == {"c": list(range(256))}
    # Of a huge collection some of it is enough.
    roots = {"1": X, "2": X, "3": Y}
    huge = {node: Report({"c": CollectionDigest(root, 10**7)}, "state") for node, root in roots.items()}
    everywhere = {node: {"c": {at: node if node == "3" else "1" for at in range(256)}} for node in huge}
    assert len(narrowed(["c"], huge, everywhere)["c"]) == 1


def test_a_node_whose_index_finds_less_is_warned_of() -> None:
    digests = {
        "1": digest(X, asked=200, found=200),
        "2": digest(X, asked=200, found=199),
        "3": digest(X, asked=200, found=150),
    }
    assert poor_indexes(digests) == {"3": (200, 150)}
    looks = {node: Report({"c": one}, "state") for node, one in digests.items()}
    result = conclude(looks, {}, {})
    assert (result.standing, result.poor_indexes) == ("same", {"c": {"3": (200, 150)}})


def test_a_result_is_json() -> None:
    import json

    result = Result("differs", (Finding("1", "c", ("vector",), {"a": ("vector",)}, 1),))
    assert json.loads(json.dumps(result.as_json()))["findings"][0]["records"] == {"a": ["vector"]}
