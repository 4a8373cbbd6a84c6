"""This project's own request headers."""

from __future__ import annotations

import pytest

from cluster.api.headers import digest_of, read_ack, read_guarantee, read_key, scoped_key
from cluster.errors import Refusal
from cluster.reads import Level


@pytest.mark.parametrize("key", ["a", "!~", "x" * 255, "7f9c-…".replace("…", "0")])
def test_good_keys(key: str) -> None:
    assert read_key({"Idempotency-Key": key}) == key


@pytest.mark.parametrize("key", ["", "x" * 256, "a b", "é", "a\x7f", "a\tb"])
def test_bad_keys(key: str) -> None:
    with pytest.raises(Refusal, match="visible ASCII") as caught:
        read_key({"Idempotency-Key": key})
    assert caught.value.status == 400


def test_no_key() -> None:
    assert read_key({}) is None


def test_ack() -> None:
    assert read_ack({}) == "applied"
    assert read_ack({"X-Chroma-Ack": " Committed "}) == "committed"
    with pytest.raises(Refusal, match="applied or committed"):
        read_ack({"X-Chroma-Ack": "maybe"})


def test_guarantee_and_token() -> None:
    guarantee, token = read_guarantee({"X-Chroma-Consistency": "linearizable"})
    assert (guarantee.level, token) == (Level.LINEARIZABLE, None)
    guarantee, token = read_guarantee({"X-Chroma-Min-Index": "0"})
    assert (guarantee.level, token) == (Level.SESSION, 0)
    with pytest.raises(Refusal):
        read_guarantee({"X-Chroma-Min-Index": "x"})


def test_digests_tell_requests_apart() -> None:
    digests = {
        digest_of("POST", "/a", b"x"),
        digest_of("PUT", "/a", b"x"),
        digest_of("POST", "/b", b"x"),
        digest_of("POST", "/a", b"y"),
        digest_of("POST", "/a\nx", b""),
    }
    assert len(digests) == 5
    assert digest_of("POST", "/a", b"x") == digest_of("POST", "/a", b"x")
    assert all(len(digest) == 16 for digest in digests)


def test_a_key_is_of_one_tenant_and_database() -> None:
    scopes: list[dict[str, str]] = [
        {},
        {"tenant_name": "a"},
        {"tenant": "a", "database": "b"},
        {"tenant": "a", "database": "c"},
        {"tenant": "b", "database": "b"},
        {"tenant": "ab", "database": ""},
        {"tenant": "", "database": "ab"},
        {"tenant": "a/b", "database": "c"},
        {"tenant": "a", "database": "b/c"},
        {"tenant": "\u00e9 x", "database": "\x00"},
    ]
    keys = [scoped_key("key", scope) for scope in scopes]
    assert len(set(keys)) == len(scopes)
    assert all(key.endswith(" key") for key in keys)
    assert scoped_key("key", {"tenant": "a"}) == scoped_key("key", {"tenant_name": "a"})
    assert scoped_key("x", {"tenant": "a", "collection_id": "c", "database": "b"}) == scoped_key(
        "x", {"tenant": "a", "database": "b"}
    )
