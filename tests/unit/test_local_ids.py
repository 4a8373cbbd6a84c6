"""The map from the cluster's collection ids to Chroma's own: memory and durable form say the same."""

from __future__ import annotations

from cluster.chroma.local_ids import LOCAL_PREFIX, LocalIds, Place

PLACE = Place("local", "tenant", "database")


def test_what_was_put_is_found_both_ways_and_after_a_restart() -> None:
    ids = LocalIds()
    [change] = ids.put("c1", PLACE)
    assert change.key == LOCAL_PREFIX + "c1"
    assert change.value is not None
    for each in (ids, LocalIds([(change.key, change.value)])):
        assert each.place("c1") == PLACE
        assert each.cluster_id("local") == "c1"
        assert each.cluster_ids() == ["c1"]


def test_what_was_dropped_is_gone_both_ways_and_dropping_it_again_says_the_same() -> None:
    ids = LocalIds()
    ids.put("c2", PLACE)
    ids.put("c1", Place("other", "tenant", "database"))
    assert ids.cluster_ids() == ["c1", "c2"]
    first = ids.drop(["c2", "unknown"])
    assert [(change.key, change.value) for change in first] == [("l/c2", None), ("l/unknown", None)]
    assert (ids.place("c2"), ids.cluster_id("local"), ids.cluster_ids()) == (None, None, ["c1"])
    assert ids.drop(["c2", "unknown"]) == first
