"""Proof of a request between members: who sends it knows the cluster's secret; pure.

A proof is bound to what one process of a node has told of itself (its challenge, made at its start), to the
sender and a number that he uses once, and to method, target and body of the request. So whoever reads it on
the wire can open nothing with it: neither another request, nor the same once more, nor at another node, nor
after a restart. No clock is in it: nobody is locked out by a wrong one.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from typing import Final, NamedTuple

HEADER: Final = "X-Chroma-Cluster-Proof"
#: What a proof must be bound to; goes out with the refusal of a proof that is not, and with a status.
CHALLENGE: Final = "X-Chroma-Cluster-Challenge"

#: The target of a status stream.
WATCH: Final = "/cluster/status?watch=1"

_PROOF: Final = re.compile(r"([0-9a-f]{32})\.([0-9]{1,18})\.([0-9a-f]{64})\.([0-9a-f]{64})")
_CHALLENGE: Final = re.compile(r"[0-9a-f]{32}")


class Claim(NamedTuple):
    """What a proof says besides the secret: the `number`-th request of `sender`, and the body's digest."""

    sender: str
    number: int
    digest: str


def digest_of(body: bytes) -> str:
    """Of a request's body, in hexadecimal."""
    return hashlib.sha256(body).hexdigest()


def prove(secret: bytes, challenge: str, claim: Claim, method: str, target: str) -> str:
    """The proof of a request for `target` (path and query as on the request line), for the header."""
    said = f"{claim.sender}.{claim.number}.{claim.digest}"
    return f"{said}.{_code(secret, challenge, said, method, target)}"


def claim_of(secret: bytes, challenge: str, method: str, target: str, proof: str) -> Claim | None:
    """What a proof says, or None if who made it does not know the secret, or made it for something else."""
    found = _PROOF.fullmatch(proof)
    if found is None:
        return None
    sender, number, digest, code = found.groups()
    expected = _code(secret, challenge, f"{sender}.{number}.{digest}", method, target)
    return Claim(sender, int(number), digest) if hmac.compare_digest(expected, code) else None


def is_challenge(text: str) -> bool:
    """Whether this is a challenge as nodes make them; others are not to be signed."""
    return _CHALLENGE.fullmatch(text) is not None


def _code(secret: bytes, challenge: str, said: str, method: str, target: str) -> str:
    # No part before the last one can have a line feed in it.
    words = f"chroma-cluster request\n{challenge}\n{said}\n{method.upper()}\n{target}"
    return hmac.digest(secret, words.encode("utf-8", "surrogateescape"), "sha256").hex()
