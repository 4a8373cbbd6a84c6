"""Who the members are: the entry's form, and which change is allowed when, case by case."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import msgpack
import pytest

from cluster.raft.configuration import (
    ChangeNotNow,
    ChangeRefused,
    Circumstances,
    bound,
    changed,
    decode_configuration,
    electorates,
    encode_configuration,
    founding,
    is_configuration,
    split_address,
)
from cluster.raft.interface import Add, Admit, Change, Configuration, Member, Move, Promote, Remove
from cluster.state.commands import encode_group

if TYPE_CHECKING:
    from cluster.errors import ClusterError

THREE = founding(["n3", "n1", "n2"])
WITH_LEARNER = replace(
    THREE, number=4, members=(*THREE.members, Member("n4", "h4:4", "http://h4", is_voter=False))
)


def at(
    present: str = "n1 n2 n3 n4",
    *,
    committed: bool = True,
    match: dict[str, int] | None = None,
    last_index: int = 100,
) -> Circumstances:
    return Circumstances(
        committed,
        frozenset(present.split()),
        match or dict.fromkeys(("n2", "n3", "n4"), 100),
        last_index,
        10,
        {"n1": ("h1:1", "http://h1"), "n2": ("h2:2", "http://h2"), "n3": ("h3:3", "")},
        {"n3": "its new journal"},
    )


def test_a_configuration_is_no_entry_of_the_cluster_and_comes_back() -> None:
    configuration = Configuration(7, (Member("a", "h:1", "http://h", False, "life"), Member("b")))
    payload = encode_configuration(configuration)
    assert decode_configuration(payload) == configuration
    assert is_configuration(payload)
    assert not is_configuration(encode_group(1, []))
    assert not is_configuration(b"")
    with pytest.raises(msgpack.exceptions.FormatError):
        msgpack.unpackb(payload)


def test_only_what_encode_writes_is_a_configuration() -> None:
    good = [1, 3, [["a", "", "", True, ""], ["b", "", "", True, ""]]]
    bad: list[object] = [
        [2, *good[1:]],
        [1, -1, []],
        [1, True, []],
        [1, 3, {}],
        [1, 3, [["a", "", "", 1, ""]]],
        [1, 3, [["", "", "", True, ""]]],
        [1, 3, [["a" * 65, "", "", True, ""]]],
        [1, 3, [["a", "", "", True]]],
        [1, 3, [["b", "", "", True, ""], ["a", "", "", True, ""]]],
        [1, 3, [["a", "", "", True, ""], ["a", "", "", True, ""]]],
        [1, 3],
        7,
    ]
    for fields in bad:
        with pytest.raises(ValueError, match="configuration"):
            decode_configuration(b"\xc1" + msgpack.packb(fields))
    payload = encode_configuration(decode_configuration(b"\xc1" + msgpack.packb(good)))
    for cut in range(len(payload)):
        with pytest.raises(ValueError, match="configuration"):
            decode_configuration(payload[:cut])


@pytest.mark.parametrize(
    ("change", "voters", "learners"),
    [
        (Add("n5", "h5:5", "http://h5"), "n1 n2 n3", "n4 n5"),
        (Promote("n4"), "n1 n2 n3 n4", ""),
        (Admit("n3"), "n1 n2 n3", "n4"),
        (Remove("n4"), "n1 n2 n3", ""),
        (Remove("n1"), "n2 n3", "n4"),
        (Move("n2", "other:9"), "n1 n2 n3", "n4"),
    ],
)
def test_what_a_change_makes(change: Change, voters: str, learners: str) -> None:
    after = changed(WITH_LEARNER, change, at())
    assert (after.number, after.voters) == (5, set(voters.split()))
    assert {member.id for member in after.members if not member.is_voter} == set(learners.split())
    assert len(after.voters ^ WITH_LEARNER.voters) <= 1


def test_who_is_admitted_is_bound_to_the_journal_that_waits() -> None:
    lost = replace(WITH_LEARNER, members=tuple(replace(it, incarnation="old") for it in WITH_LEARNER.members))
    after = changed(lost, Admit("n3"), at())
    assert [it.incarnation for it in after.members] == ["old", "old", "its new journal", "old"]


def test_a_new_member_is_told_of_addresses_that_were_in_the_settings_only() -> None:
    after = changed(THREE, Add("n4", "h4:4"), at())
    assert [(it.address, it.http) for it in after.members] == [
        ("h1:1", "http://h1"),
        ("h2:2", "http://h2"),
        ("h3:3", ""),
        ("h4:4", ""),
    ]


@pytest.mark.parametrize(
    ("now", "change", "circumstances", "error", "status", "words"),
    [
        (THREE, Add("n4", "h4:4"), at(committed=False), ChangeNotNow, 503, "one change is made at a time"),
        (THREE, Add("n2", "h4:4"), at(), ChangeRefused, 409, "n2 is a member already"),
        (THREE, Add("n2", "h4:4"), at(committed=False), ChangeRefused, 409, "n2 is a member already"),
        (THREE, Add("n4", ""), at(), ChangeRefused, 400, "needs the address"),
        (THREE, Add("n4", "nowhere"), at(), ChangeRefused, 400, "HOST:PORT"),
        (THREE, Add("n4", "h:" + "9" * 600), at(), ChangeRefused, 400, "too long"),
        (THREE, Add("", "h4:4"), at(), ChangeRefused, 400, "no node id"),
        (THREE, Add("n\n4", "h4:4"), at(), ChangeRefused, 400, "no node id"),
        (THREE, Add("n4\n", "h4:4"), at(), ChangeRefused, 400, "no node id"),
        (THREE, Add("../n4", "h4:4"), at(), ChangeRefused, 400, "no node id"),
        (THREE, Remove("n" * 65), at(), ChangeRefused, 400, "no node id"),
        (THREE, Add("n4", "h2:2"), at(), ChangeRefused, 409, "belongs to n2"),
        (THREE, Add("n4", "h4:4", "http://h2"), at(), ChangeRefused, 409, "belongs to n2"),
        (WITH_LEARNER, Move("n2", "h4:4"), at(), ChangeRefused, 409, "belongs to n4"),
        (THREE, Move("n2"), at(), ChangeRefused, 400, "No new address"),
        (THREE, Promote("n4"), at(), ChangeRefused, 409, "n4 is no member"),
        (THREE, Promote("n2"), at(), ChangeRefused, 409, "voter already"),
        (WITH_LEARNER, Promote("n4"), at("n1 n2 n3"), ChangeNotNow, 503, "cannot be reached"),
        (WITH_LEARNER, Promote("n4"), at(match={"n4": 89}), ChangeNotNow, 503, "lacks 11 entries"),
        (THREE, Admit("n2"), at(), ChangeRefused, 409, "does not wait to be admitted"),
        (THREE, Admit("n9"), at(), ChangeRefused, 409, "n9 is no member"),
        (THREE, Admit("n3"), at(committed=False), ChangeNotNow, 503, "one change is made at a time"),
        (THREE, Remove("n9"), at(), ChangeRefused, 409, "the members are n1, n2, n3"),
        (founding(["n1"]), Remove("n1"), at(), ChangeRefused, 409, "without a voter"),
        (THREE, Remove("n2"), at("n1 n2"), ChangeNotNow, 503, "n3 away"),
        (founding(["n1", "n2"]), Remove("n2"), at("n1"), ChangeNotNow, 503, "n2 away"),
        (WITH_LEARNER, Promote("n4"), at("n1 n4"), ChangeNotNow, 503, "fewer than a majority"),
    ],
)
def test_a_change_that_may_not_be_made(
    now: Configuration,
    change: Change,
    circumstances: Circumstances,
    error: type[ClusterError],
    status: int,
    words: str,
) -> None:
    with pytest.raises(error, match=words) as raised:
        changed(now, change, circumstances)
    assert raised.value.status == status
    assert "Nothing was changed." in raised.value.message


def test_a_dead_voter_can_be_removed_while_a_majority_is_there() -> None:
    assert changed(THREE, Remove("n3"), at("n1 n2")).voters == {"n1", "n2"}


def test_a_change_that_is_not_committed_needs_both_majorities() -> None:
    after = changed(WITH_LEARNER, Promote("n4"), at())
    assert electorates(after, WITH_LEARNER) == (after.voters, WITH_LEARNER.voters)
    assert electorates(after, None) == (after.voters,)
    moved = changed(THREE, Move("n2", "other:9"), at())
    assert electorates(moved, THREE) == (THREE.voters,)
    assert electorates(Configuration(), None) == ()


def test_an_id_is_bound_to_a_journal() -> None:
    after = bound(THREE, {"n2": "life"})
    assert (after.number, [it.incarnation for it in after.members]) == (1, ["", "life", ""])
    assert after.voters == THREE.voters


@pytest.mark.parametrize("text", ["", "h", "h:", ":1", "h:0", "h:65536", "h:x", "h:-1", "h:\u0663"])
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(ValueError, match="HOST:PORT"):
        split_address(text)


def test_what_is_an_address() -> None:
    assert split_address("[::1]:80") == ("::1", 80)
    assert split_address("node-1.example:9001") == ("node-1.example", 9001)
