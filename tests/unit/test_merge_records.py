"""How a write changes a document, and what a request's columns say of it."""

from __future__ import annotations

import base64
import struct

from evaluation.systems.naive.records import Change, Stamp, change_of, metadata_of


def test_an_upsert_keeps_what_it_does_not_name_and_takes_away_what_it_sets_to_none() -> None:
    before = {"document": "d", "embedding": [1.0], "m:a": 1, "m:b": 2}

    after = Change({"embedding": [2.0], "m:a": None, "m:c": 3}).on(before)

    assert after == {"document": "d", "embedding": [2.0], "m:b": 2, "m:c": 3}
    assert metadata_of(after) == {"b": 2, "c": 3}


def test_each_record_of_a_request_is_a_change_of_its_own() -> None:
    packed = base64.b64encode(struct.pack("<2f", 0.5, 2.0)).decode()
    payload = {
        "ids": ["x", "y"],
        "embeddings": [[1, 2], packed],
        "documents": None,
        "uris": ["u", None],
        "metadatas": [None, {"k": None, "l": True}],
    }

    assert change_of(payload, 0) == Change({"embedding": [1, 2], "uri": "u"})
    assert change_of(payload, 1) == Change({"embedding": [0.5, 2.0], "m:k": None, "m:l": True})


def test_stamps_are_ordered_by_time_then_count_then_node() -> None:
    assert Stamp(1, 9, "z") < Stamp(2, 0, "a") < Stamp(2, 1, "a") < Stamp(2, 1, "b")
