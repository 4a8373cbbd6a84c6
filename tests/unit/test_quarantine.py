"""Which requests are refused after they were in an engine that died."""

from __future__ import annotations

import pytest

from cluster.errors import Quarantined
from cluster.quarantine import Quarantine, digest_of_request

A, B = b"a", b"b"


def is_refused(quarantine: Quarantine, digest: bytes, now: float) -> bool:
    try:
        quarantine.admit(digest, now)
    except Quarantined:
        return True
    return False


def test_what_surely_took_an_engine_down_is_refused_for_a_minute_with_cause_and_time() -> None:
    quarantine = Quarantine()
    assert not quarantine
    quarantine.died(A, "crashed with SIGSEGV", 100.0, proven=True)
    assert quarantine
    with pytest.raises(Quarantined, match=r"SIGSEGV.* 50\.0 more seconds"):
        quarantine.admit(A, 110.0)
    assert not is_refused(quarantine, B, 110.0)
    assert is_refused(quarantine, A, 159.0)
    assert not is_refused(quarantine, A, 161.0)


def test_a_suspect_is_refused_shortly_and_cleared_by_an_answer() -> None:
    quarantine = Quarantine()
    quarantine.died(A, "x", 100.0, proven=False)
    assert is_refused(quarantine, A, 101.0)
    assert not is_refused(quarantine, A, 102.1)
    quarantine.answered(A)
    assert not quarantine
    quarantine.died(A, "x", 103.0, proven=False)
    assert not is_refused(quarantine, A, 105.1), "that was the first strike again"


def test_the_second_death_is_proof_also_when_the_first_was_at_another_node() -> None:
    quarantine = Quarantine()
    quarantine.heard(A, "node-2", 2.0, 100.0)
    assert is_refused(quarantine, A, 101.0)
    assert not is_refused(quarantine, A, 102.1)
    assert quarantine.died(A, "x", 102.2, proven=False) == 60.0
    assert is_refused(quarantine, A, 160.0)


def test_suspects_of_one_death_are_tried_one_at_a_time() -> None:
    quarantine = Quarantine()
    for digest in (A, B):
        quarantine.died(digest, "x", 100.0, proven=False)
    assert not is_refused(quarantine, A, 103.0)
    assert is_refused(quarantine, B, 103.1)
    quarantine.answered(A)
    assert not is_refused(quarantine, B, 103.2)


def test_a_trial_that_never_ends_holds_nobody_up_for_ever() -> None:
    quarantine = Quarantine()
    for digest in (A, B):
        quarantine.died(digest, "x", 100.0, proven=False)
    assert not is_refused(quarantine, A, 103.0)
    assert not is_refused(quarantine, B, 108.1)


def test_strikes_are_forgotten_after_two_minutes() -> None:
    quarantine = Quarantine()
    quarantine.died(A, "x", 100.0, proven=False)
    assert quarantine.died(A, "x", 221.0, proven=False) == 2.0


def test_the_table_is_bounded() -> None:
    quarantine = Quarantine(capacity=3)
    for number in range(10):
        quarantine.died(bytes([number]), "x", 100.0, proven=True)
    assert [number for number in range(10) if is_refused(quarantine, bytes([number]), 101.0)] == [7, 8, 9]


def test_a_peer_cannot_refuse_for_longer_than_this_node_would() -> None:
    quarantine = Quarantine()
    quarantine.heard(A, "x", 1e9, 100.0)
    assert not is_refused(quarantine, A, 161.0)


def test_a_request_is_known_by_method_decoded_path_and_body() -> None:
    known = digest_of_request("POST", "/a/b%20c", b"{}")
    assert digest_of_request("POST", "/a/%62%20c", b"{}") == known
    assert digest_of_request("GET", "/a/b%20c", b"{}") != known
    assert digest_of_request("POST", "/a/b%20c", b"{ }") != known
    assert digest_of_request("POST", "/a/b", b"%20c{}") != digest_of_request("POST", "/a/b%20c", b"{}")
