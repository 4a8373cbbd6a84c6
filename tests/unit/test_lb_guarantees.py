"""The indices that session reads must not go behind."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lb.guarantees import Guarantees, read_index
from lb.routes import CATALOGUE_READ, CATALOGUE_WRITE, LOCAL_READ, ROWS_READ, Route, Scope


def reads(key: int) -> Route:
    return Route("read", Scope.COLLECTION, key)


def writes(key: int) -> Route:
    return Route("write", Scope.COLLECTION, key)


def test_nothing_seen_wants_nothing() -> None:
    guarantees = Guarantees()
    assert [guarantees.wanted(route) for route in (reads(1), CATALOGUE_READ, ROWS_READ, LOCAL_READ)] == [
        0
    ] * 4


def test_a_write_binds_reads_of_its_collection_and_lookups_of_rows_but_no_other_collection() -> None:
    guarantees = Guarantees()
    guarantees.observe(writes(1), 7)
    assert guarantees.wanted(reads(1)) == 7
    assert guarantees.wanted(reads(2)) == 0
    assert guarantees.wanted(CATALOGUE_READ) == 0
    # The row shows the dimension, which that write may have set.
    assert guarantees.wanted(ROWS_READ) == 7


def test_a_catalogue_change_binds_every_collection() -> None:
    guarantees = Guarantees()
    guarantees.observe(writes(1), 3)
    guarantees.observe(CATALOGUE_WRITE, 5)
    assert [guarantees.wanted(reads(key)) for key in (1, 2)] == [5, 5]
    assert guarantees.wanted(CATALOGUE_READ) == 5


def test_a_lookup_by_name_binds_what_follows_by_id() -> None:
    guarantees = Guarantees()
    guarantees.observe(ROWS_READ, 9)
    assert guarantees.wanted(reads(1)) == 9


def test_a_read_binds_as_a_write_does_and_an_older_answer_changes_nothing() -> None:
    guarantees = Guarantees()
    guarantees.observe(reads(1), 9)
    guarantees.observe(reads(1), 4)
    assert guarantees.wanted(reads(1)) == 9


def test_answers_outside_replicated_state_bind_nothing() -> None:
    guarantees = Guarantees()
    guarantees.observe(LOCAL_READ, 50)
    assert guarantees.highest == 0


def test_the_floor_binds_everything_replicated() -> None:
    guarantees = Guarantees()
    guarantees.observe(writes(1), 3)
    guarantees.raise_floor(10)
    assert [guarantees.wanted(route) for route in (reads(1), reads(2), CATALOGUE_READ, ROWS_READ)] == [10] * 4
    assert guarantees.wanted(LOCAL_READ) == 0
    assert len(guarantees) == 0


def test_the_least_recently_seen_collection_is_evicted_into_the_floor() -> None:
    guarantees = Guarantees(capacity=2)
    guarantees.observe(writes(1), 10)
    guarantees.observe(writes(2), 20)
    guarantees.observe(reads(1), 10)  # seen again: 2 is now the older one
    guarantees.observe(writes(3), 30)
    assert len(guarantees) == 2
    assert guarantees.floor == 20
    assert [guarantees.wanted(reads(key)) for key in (1, 2, 3, 4)] == [10, 20, 30, 20]


def test_another_cluster_starts_from_nothing() -> None:
    guarantees = Guarantees()
    guarantees.observe(writes(1), 100)
    guarantees.observe(CATALOGUE_WRITE, 101)
    guarantees.forget()
    assert [guarantees.wanted(route) for route in (reads(1), CATALOGUE_READ, ROWS_READ)] == [0, 0, 0]


ROUTES = st.one_of(
    st.builds(reads, st.integers(0, 6)),
    st.builds(writes, st.integers(0, 6)),
    st.sampled_from([CATALOGUE_READ, CATALOGUE_WRITE, ROWS_READ]),
)


@given(st.lists(st.tuples(ROUTES, st.integers(0, 50))), st.integers(1, 4))
def test_never_behind_an_unbounded_memory_and_never_decreasing(
    observations: list[tuple[Route, int]], capacity: int
) -> None:
    guarantees = Guarantees(capacity)
    catalogue = highest = 0
    collections: dict[int, int] = {}
    before = {key: 0 for key in range(7)}
    for route, index in observations:
        guarantees.observe(route, index)
        highest = max(highest, index)
        if route.collection is None:
            catalogue = max(catalogue, index)
        else:
            collections[route.collection] = max(collections.get(route.collection, 0), index)
        for key in range(7):
            wanted = guarantees.wanted(reads(key))
            assert wanted >= max(catalogue, collections.get(key, 0))
            assert wanted >= before[key]
            assert wanted <= highest
            before[key] = wanted
        assert guarantees.wanted(ROWS_READ) == highest
        assert guarantees.wanted(CATALOGUE_READ) == catalogue
        assert len(guarantees) <= capacity


@pytest.mark.parametrize(
    ("values", "index"),
    [
        ([], 0),
        (["7"], 7),
        ([" 8 "], 8),
        (["1", "3", "2"], 3),
        (["9" * 19], 10**19 - 1),
        (["9" * 20], None),
        (["9" * 5_000], None),
        (["1", "x"], None),
        ([""], None),
        (["-1"], None),
        (["\u0663"], None),
        (["1, 2"], None),
    ],
)
def test_an_index_in_a_header(values: list[str], index: int | None) -> None:
    assert read_index(values) == index
