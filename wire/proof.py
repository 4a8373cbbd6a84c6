"""Proof of a message between members: who sends it knows the cluster's secret; pure."""

from __future__ import annotations

import hmac
from typing import Final

HEADER: Final = "X-Chroma-Cluster-Proof"

#: The path, so to speak, of a status stream; its body is empty.
WATCH: Final = "/cluster/status?watch=1"


def prove(secret: bytes, path: str, body: bytes) -> str:
    """The proof of `body` sent to `path`, in hexadecimal."""
    return hmac.digest(secret, b"chroma-cluster\n" + path.encode() + b"\n" + body, "sha256").hex()


def is_proof(secret: bytes, path: str, body: bytes, proof: str) -> bool:
    """Whether `proof` is that of `body` sent to `path`; in constant time."""
    return hmac.compare_digest(prove(secret, path, body).encode(), proof.encode("utf-8", "replace"))
