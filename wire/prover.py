"""Whoever asks nodes and knows the cluster's secret: makes the proofs, and learns what they are bound to."""

from __future__ import annotations

import itertools
import os
from typing import TYPE_CHECKING, Final

from wire.proof import CHALLENGE, HEADER, Claim, digest_of, is_challenge, prove

if TYPE_CHECKING:
    from collections.abc import Mapping

EMPTY: Final = digest_of(b"")
_FORBIDDEN: Final = 403


class Prover:
    """One sender. A node is known by its base URL; one that is not known yet refuses the first request and
    says what a proof must be bound to, so that it is to be sent again.
    """

    def __init__(self, secret: bytes) -> None:
        self._secret = secret
        self._sender = os.urandom(16).hex()
        self._numbers = itertools.count(1)
        self._challenges: dict[str, str] = {}

    def headers(self, node: str, method: str, target: str, digest: str = EMPTY) -> dict[str, str]:
        """What proves one attempt at a request to `node`, whose body has this digest; nothing if `node` has
        not said its challenge.
        """
        challenge = self._challenges.get(node)
        if challenge is None:
            return {}
        claim = Claim(self._sender, next(self._numbers), digest)
        return {HEADER: prove(self._secret, challenge, claim, method, target)}

    def learn(self, node: str, status: int, answer: Mapping[str, str]) -> bool:
        """Take note of an answer's headers; whether another proof would have had another answer."""
        challenge = answer.get(CHALLENGE, "")
        if not is_challenge(challenge):
            return False
        is_news = self._challenges.get(node) != challenge
        self._challenges[node] = challenge
        return is_news or status == _FORBIDDEN
