"""Command levels: who fits whom, when the level rises, which command needs which."""

from __future__ import annotations

import re
import tarfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.apply.store import Store
from cluster.chroma.local_ids import LOCAL_PREFIX
from cluster.levels import Levels, claimed, lacking, levels_of_fields, next_level, quarrel
from cluster.state import commands
from cluster.state.commands import (
    NEWEST_LEVEL,
    CreateTenant,
    Group,
    NotUnderstood,
    Proposal,
    RaiseLevel,
    RefuseEntry,
    Reset,
    Verify,
    decode_group,
    encode_raise,
    level_of,
    require_understood,
)
from cluster.state.machine import Machine

KEPT = sorted((Path(__file__).parents[1] / "kept").glob("*.tar.xz"))


@st.composite
def any_levels(draw: st.DrawFn) -> Levels:
    oldest = draw(st.integers(1, 4))
    newest = draw(st.integers(oldest, 5))
    return Levels(oldest, newest, draw(st.integers(oldest, newest)))


@given(any_levels(), any_levels())
def test_two_nodes_are_connected_if_both_understand_what_is_in_force(one: Levels, other: Levels) -> None:
    force = max(one.in_force, other.in_force)
    fits = one.oldest <= force <= one.newest and other.oldest <= force <= other.newest
    assert (quarrel(one, "b", other) is None) == fits
    assert (quarrel(other, "a", one) is None) == fits, "both sides decide alike"


def test_a_quarrel_names_both_levels_and_what_to_do() -> None:
    old, new = Levels(1, 1, 1), Levels(1, 2, 2)
    assert quarrel(new, "n3", old) == (
        "n3 understands command levels up to 1, the cluster is at level 2, which never falls: start n3 with "
        "a build that understands level 2, and without `command_level_limit`"
    )
    assert "this node understands command levels up to 1" in (quarrel(old, "n3", new) or "")
    assert "n9 understands command levels from 3 on, the cluster is at level 1" in (
        quarrel(old, "n9", Levels(3, 4, 1)) or ""
    )


@given(any_levels())
def test_levels_are_read_as_they_were_said(levels: Levels) -> None:
    assert levels_of_fields(levels.as_fields()) == levels
    assert levels_of_fields([*levels.as_fields(), "a later build says more"]) == levels


@pytest.mark.parametrize("said", [None, 1, [], [1, 2], [1, 2, 0], [2, 1, 1], [1, "2", 1], [True, 2, 1], {}])
def test_malformed_levels_are_none(said: Any) -> None:
    assert levels_of_fields(said) is None


def test_the_level_rises_to_what_all_members_understand() -> None:
    said = {"a": Levels(1, 4, 1), "b": Levels(1, 3, 1), "c": Levels(1, 2, 1)}
    assert next_level(1, "abc", said) == 2
    assert next_level(2, "abc", said) is None
    assert next_level(1, "ab", said) == 3
    assert next_level(1, "a", said) == 4
    assert next_level(5, "a", said) is None, "it never falls"


def test_who_is_away_does_not_understand() -> None:
    said = {"a": Levels(1, 2, 1), "b": Levels(1, 2, 1)}
    assert next_level(1, "abc", said) is None
    assert lacking(2, "abc", said) == {"c": "it is away"}
    assert lacking(3, "ab", said) == {"a": "it understands level 2", "b": "it understands level 2"}


def test_nobody_no_level() -> None:
    assert next_level(1, "", {}) is None


def test_a_limit_holds_back_what_is_not_in_force_yet() -> None:
    assert claimed(3, 1, None) == Levels(1, 3, 1)
    assert claimed(3, 1, 2) == Levels(1, 2, 1)
    assert claimed(3, 3, 2) == Levels(1, 3, 3), "the setting comes too late"
    assert claimed(3, 1, 9) == Levels(1, 3, 1), "a build understands no more than it does"
    assert claimed(2, 3, None) == Levels(1, 2, 3)


def test_the_level_of_a_command_is_for_ever() -> None:
    assert [level_of(command) for command in (CreateTenant("t"), Reset(), RaiseLevel(9))] == [1, 1, 1]
    assert level_of(RefuseEntry(1, 0, 0, 500, "E", "m", False)) == 1
    assert level_of(Verify("r", None)) == 2
    assert NEWEST_LEVEL == 2
    # Tags up to 11, and the raise itself, are of the first level: a new one belongs into `_LEVELS`.
    of_level_1 = {tag for kind, tag in commands._TAGS.items() if kind not in commands._LEVELS}
    assert of_level_1 == {*range(1, 12), 13}


def test_what_a_build_does_not_understand_is_refused_as_a_whole() -> None:
    group = decode_group(encode_raise(1, NEWEST_LEVEL))
    require_understood(group)
    newer = decode_group(encode_raise(1, NEWEST_LEVEL + 1))
    with pytest.raises(NotUnderstood, match=f"needs command level {NEWEST_LEVEL + 1} \\(RaiseLevel\\)"):
        require_understood(newer)
    with pytest.raises(NotUnderstood, match="needs command level 2"):
        require_understood(Group(1, (*group.proposals, Proposal("v", b"", Verify("r", None)))), 1)


def raised(machine: Machine, index: int, *levels: int) -> None:
    proposals = tuple(Proposal(f"{index}-{at}", b"", RaiseLevel(level)) for at, level in enumerate(levels))
    while step := machine.next_step([(index, Group(index, proposals))]):
        machine.commit(step)


def test_the_level_in_force_is_state_and_never_falls() -> None:
    machine = Machine.load(())
    assert machine.level == 1
    raised(machine, 1, 3, 2)
    assert machine.level == 3
    raised(machine, 2, 1)
    assert machine.level == 3
    again = Machine.load(machine.dump())
    assert again.level == 3
    assert again.dump() == machine.dump()


def test_a_directory_from_before_levels_is_at_the_first() -> None:
    machine = Machine.load(())
    raised(machine, 1, 1)
    assert machine.level == 1
    assert "level" not in dict(machine.dump())


@pytest.mark.parametrize("kept", KEPT, ids=lambda path: path.name.partition(".")[0])
def test_kept_directories_are_at_the_level_that_their_format_means(kept: Path, tmp_path: Path) -> None:
    with tarfile.open(kept) as archive:
        archive.extractall(tmp_path, filter="data")
    for state in tmp_path.glob("*/state.sqlite"):
        store = Store(state)
        try:
            level = Machine.load(store.items(but=LOCAL_PREFIX)).level
        finally:
            store.close()
        named = re.search(r"level-(\d+)", kept.name)
        assert level == (int(named[1]) if named else 1)


def test_a_raise_that_is_proposed_twice_is_one() -> None:
    machine = Machine.load(())
    for index in (1, 2):
        while step := machine.next_step([(index, decode_group(encode_raise(index, 2)))]):
            machine.commit(step)
    assert machine.level == 2
    assert machine.applied_index == 2
