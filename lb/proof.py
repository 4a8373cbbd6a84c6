"""Proof towards nodes that the balancer knows the cluster's secret, as `cluster.proof` checks it; pure."""

from __future__ import annotations

import hmac
from typing import Final

HEADER: Final = "X-Chroma-Cluster-Proof"

#: The path, so to speak, of a status stream; its body is empty.
WATCH: Final = "/cluster/status?watch=1"


def prove(secret: bytes, path: str, body: bytes) -> str:
    """The proof of `body` sent to `path`, in hexadecimal."""
    return hmac.digest(secret, b"chroma-cluster\n" + path.encode() + b"\n" + body, "sha256").hex()
