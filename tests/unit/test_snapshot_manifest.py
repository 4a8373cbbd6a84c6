"""What a manifest is, and that nothing in one from elsewhere is taken on trust."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.snapshot.choosing import donors, why_none
from cluster.snapshot.manifest import File, Manifest, checksum, is_name
from cluster.snapshot.pace import Limit, Progress, Speed

SUM = "0123456789abcdef" * 4
FILES = (File("chroma/chroma.sqlite3", 7, SUM), File("chroma/a/b.bin", 0, SUM), File("state.sqlite", 5, SUM))
WHOLE = Manifest("12-ab", "c", "node-1", 12, 3, b"\x00who", 14, FILES)


def body(**changes: Any) -> bytes:
    fields = {**json.loads(WHOLE.encode().partition(b"\n")[2]), **changes}
    text = json.dumps(fields).encode()
    return checksum(text).encode() + b"\n" + text


def test_what_is_encoded_comes_back() -> None:
    assert Manifest.decode(WHOLE.encode()) == WHOLE
    assert Manifest.decode(body()) == WHOLE
    assert WHOLE.size == 12
    assert WHOLE.encode() == WHOLE.encode()


def with_path(path: object) -> list[list[object]]:
    return [["state.sqlite", 5, SUM], [path, 1, SUM]]


@pytest.mark.parametrize(
    "changes",
    [
        *(
            {"files": with_path(path)}
            for path in (
                "/etc/passwd", "../x", "chroma/../../x", "chroma", "chroma/", "chroma//x", "chroma/./x",
                "raft.sqlite", "state.sqlite-wal", "install.json", "", "chroma/a\x00b", "chroma/..", "..",
                "chroma/a\\..\\b", "chroma/" + "a" * 600, "state.sqlite/x", "state.sqlite", 7, None,
                "chromatic/x", "chroma/line\nbreak",
            )
        ),
        {"files": []},
        {"files": {}},
        {"files": [["chroma/x", 1, SUM]]},  # no state
        {"files": [*with_path("chroma/x"), ["chroma/x/y", 1, SUM]]},  # a file and a directory
        {"files": [["state.sqlite", -1, SUM]]},
        {"files": [["state.sqlite", True, SUM]]},
        {"files": [["state.sqlite", 1 << 63, SUM]]},
        {"files": [["state.sqlite", 1.5, SUM]]},
        {"files": [["state.sqlite", 1, SUM.upper()]]},
        {"files": [["state.sqlite", 1, "ab"]]},
        {"files": [["state.sqlite", 1]]},
        {"format": 2},
        {"format": None},
        {"index": -1},
        {"index": "1"},
        {"term": None},
        {"ahead": -1},
        {"id": "../x"},
        {"id": ".hidden"},
        {"id": ""},
        {"id": 5},
        {"cluster": ""},
        {"node": None},
        {"configuration": "zz"},
    ],
)  # fmt: skip
def test_what_asks_for_more_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        Manifest.decode(body(**changes))


@given(st.binary(max_size=200), st.integers(0, 400), st.integers(1, 255))
def test_damage_is_found(data: bytes, at: int, change: int) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        Manifest.decode(data)
    whole = bytearray(WHOLE.encode())
    whole[at % len(whole)] ^= change
    if bytes(whole[:64]).lower() != WHOLE.encode()[:64] or whole[64:] != WHOLE.encode()[64:]:
        with pytest.raises(ValueError, match=r"\w"):
            Manifest.decode(bytes(whole))


@pytest.mark.parametrize("nested", [b"[" * 100_000, b'{"a":' * 50_000])
def test_depth_is_no_crash(nested: bytes) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        Manifest.decode(checksum(nested).encode() + b"\n" + nested)


def test_names_are_names() -> None:
    assert all(map(is_name, ("1-ab", "a", "9" * 128)))
    assert not any(map(is_name, ("", ".", "..", "a/b", "a b", "-a", "é", "9" * 129, None, 3, "a\n")))


# ---------------------------------------------------------------------- who is asked


def status(role: str = "follower", applied: int = 9, version: str = "1", **more: Any) -> dict[str, Any]:
    return {
        "role": role,
        "applied_index": applied,
        "healthy": True,
        "versions": {"chromadb": version},
        "stuck": None,
        **more,
    }


def test_followers_before_the_leader_and_strangers_last() -> None:
    said = {
        "leader": status("leader", 12),
        "ahead": status(applied=11),
        "behind": status(applied=10),
        "newer": status(applied=20, version="2"),
        "sick": status(healthy=False),
        "stuck": status(stuck={"index": 1}),
        "old": status(applied=5),
        "silent": None,
        "odd": {"healthy": True},
        "worse": {"healthy": True, "applied_index": 10, "versions": 5},
    }
    assert donors(said, 9, "1") == ["ahead", "behind", "leader", "newer", "worse"]
    assert donors({}, 0, None) == []
    text = why_none({"a": None, "b": status(healthy=False), "c": status(applied=1)}, 5)
    assert "a does not answer, b is not healthy, c has applied 1 only" in text
    assert why_none({}, 5).endswith("there is none")


# ---------------------------------------------------------------------- how fast


def test_a_limit_is_kept_over_time() -> None:
    limit = Limit(1000)
    now, sent = 100.0, 0
    while sent < 20_000:
        now += limit.wait_s(400, now)
        sent += 400
    assert 19 <= now - 100 <= 20
    assert limit.wait_s(400, now + 60) == 0.0, "a pause is no credit"
    assert limit.wait_s(400, now + 60) == pytest.approx(0.15)
    assert Limit(0).wait_s(1 << 40, 0.0) == 0.0


def test_speed_is_that_of_the_last_seconds() -> None:
    speed = Speed()
    assert speed.rate() is None
    speed.note(0.0, 0)
    assert speed.rate() is None
    speed.note(0.0, 0)
    assert speed.rate() is None
    for second in range(1, 11):
        speed.note(float(second), 100 * second)
    for second in range(11, 20):
        speed.note(float(second), 1000 + 10 * (second - 10))
    assert speed.rate() == pytest.approx(10.0)


def test_progress_in_words_and_numbers() -> None:
    shown = Progress("fetching", "why", "b", "9-x", 9, 500, 2000, 250.0)
    assert shown.remaining_s == 6.0
    assert "500 of 2,000 bytes from b" in str(shown)
    assert "about 6 s to go" in str(shown)
    assert shown.as_json()["remaining_s"] == 6.0
    assert "the last try failed: no room)" in str(Progress("asking", "why", trouble="no room."))
    assert Progress("asking", "why").remaining_s is None
