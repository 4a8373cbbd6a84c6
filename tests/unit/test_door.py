"""A proof opens one request, once, at one process of one node; and who knows the secret always gets in."""

from __future__ import annotations

import itertools
import random

import pytest

from wire.door import MOST_SENDERS, WINDOW, Door
from wire.proof import CHALLENGE, HEADER, Claim, claim_of, digest_of, prove
from wire.prover import Prover

SECRET = b"secret"
PATH = "/api/v2/x?y=1"


def door() -> Door:
    fresh = itertools.count(1)
    return Door(SECRET, lambda: f"{next(fresh):032x}")


def known(at: Door, secret: bytes = SECRET) -> Prover:
    prover = Prover(secret)
    prover.learn("n", 200, {CHALLENGE: at.challenge})
    return prover


def proof(prover: Prover, method: str = "POST", target: str = PATH, body: bytes = b"{}") -> str:
    return prover.headers("n", method, target, digest_of(body))[HEADER]


def test_a_proof_opens_one_request_once() -> None:
    at = door()
    said = proof(known(at))
    assert at.enter("GET", PATH, said) is None
    assert at.enter("POST", PATH + "&z=2", said) is None
    claim = at.enter("POST", PATH, said)
    assert claim is not None
    assert claim.digest == digest_of(b"{}")
    assert at.enter("POST", PATH, said) is None, "seen on the wire, said again"
    assert door_of_another().enter("POST", PATH, said) is None, "at another node"


def door_of_another() -> Door:
    return Door(SECRET, lambda: "a" * 32)


def test_who_does_not_know_the_secret_stays_outside_and_is_not_remembered() -> None:
    at = door()
    mine = proof(known(at))
    sender, number, digest, code = mine.split(".")
    odd = [
        "",
        "x",
        "\udcff",
        proof(known(at, b"another")),
        mine.upper(),
        mine + "\n",
        f"{sender}.{int(number) + 1}.{digest}.{code}",
        f"{sender}.{number}.{'0' * 64}.{code}",
        f"{'0' * 32}.{number}.{digest}.{code}",
        f"{sender}.{'9' * 5000}.{digest}.{code}",
        f"{sender}.\u0661.{digest}.{code}",
    ]
    assert [at.enter("POST", PATH, one) for one in odd] == [None] * len(odd)
    assert not at._seen  # pyright: ignore[reportPrivateUsage]
    assert at.enter("POST", PATH, mine) is not None


@pytest.mark.parametrize("target", ["/", "/\udcff", "/é?%00", "/a b"])
def test_any_target_can_be_proven(target: str) -> None:
    at = door()
    assert at.enter("get", target, proof(known(at), "GET", target)) is not None


def test_parts_of_a_proof_do_not_run_into_each_other() -> None:
    said = Claim("0" * 32, 1, "1" * 64)
    one = prove(SECRET, "f" * 32, said, "GET", "/a")
    assert claim_of(SECRET, "f" * 32, "GET", "/a", one) == said
    assert claim_of(SECRET, "f" * 32, "GET\n/a", "", one) is None


def test_requests_may_overtake_each_other_and_each_comes_in_once() -> None:
    rng = random.Random(7)
    at = door()
    prover = known(at)
    said = [proof(prover) for _ in range(400)]
    order = sorted(range(400), key=lambda number: number + rng.uniform(0, 50))
    for number in order:
        assert at.enter("POST", PATH, said[number]) is not None
        again = said[rng.choice(order[: order.index(number) + 1])]
        assert at.enter("POST", PATH, again) is None


def test_what_is_too_old_to_be_remembered_is_not_let_in() -> None:
    at = door()
    prover = known(at)
    first = proof(prover)
    for _ in range(WINDOW - 1):
        proof(prover)
    assert at.enter("POST", PATH, proof(prover)) is not None
    assert at.enter("POST", PATH, first) is None
    assert at.enter("POST", PATH, proof(prover)) is not None


def test_when_senders_are_forgotten_so_is_what_they_said() -> None:
    at = door()
    first = proof(known(at))
    assert at.enter("POST", PATH, first) is not None
    for _ in range(MOST_SENDERS - 1):
        assert at.enter("POST", PATH, proof(known(at))) is not None
    assert at.enter("POST", PATH, proof(known(at))) is None, "too many; all begin anew"
    assert at.enter("POST", PATH, first) is None
    assert at.enter("POST", PATH, proof(known(at))) is not None


def test_a_prover_signs_no_challenge_but_of_the_form_that_nodes_make() -> None:
    prover = Prover(SECRET)
    for odd in ("", "f" * 31, "f" * 33, "F" * 32, "f" * 31 + "\n"):
        assert not prover.learn("n", 403, {CHALLENGE: odd})
        assert prover.headers("n", "GET", "/") == {}


def test_a_request_is_worth_repeating_if_another_proof_may_open_the_door() -> None:
    prover = Prover(SECRET)
    assert prover.learn("n", 403, {CHALLENGE: "f" * 32})
    assert prover.learn("n", 403, {CHALLENGE: "f" * 32}), "said twice by a library below"
    assert not prover.learn("n", 200, {CHALLENGE: "f" * 32})
    assert prover.learn("n", 200, {CHALLENGE: "0" * 32}), "what a stranger is told is not all"
    assert not prover.learn("n", 403, {}), "refused by Chroma"
