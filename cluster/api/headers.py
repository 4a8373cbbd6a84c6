"""The request headers of this project, read and refused like Chroma's own input; pure.

Idempotency-Key: <1..255 visible ASCII characters>    a retry of a write is recognised by it
X-Chroma-Ack: applied | committed                     when a write is answered
X-Chroma-Consistency, X-Chroma-Min-Index, X-Max-Staleness-Ms: see `cluster.reads`
X-Chroma-Forwarded: 1                                 the sender is a node: do not forward again
"""

from __future__ import annotations

from hashlib import blake2b
from typing import TYPE_CHECKING, Final

from cluster.api.names import invalid
from cluster.reads import (
    CONSISTENCY_HEADER,
    MAX_STALENESS_HEADER,
    MIN_INDEX_HEADER,
    Guarantee,
    parse_guarantee,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cluster.acks import Ack

KEY: Final = "Idempotency-Key"
ACK: Final = "X-Chroma-Ack"
FORWARDED: Final = "X-Chroma-Forwarded"
LOG_INDEX: Final = "X-Chroma-Log-Index"
NODE: Final = "X-Chroma-Node"
LEADER: Final = "X-Chroma-Leader"
OUTCOME: Final = "X-Chroma-Outcome"

_LONGEST_KEY: Final = 255


def read_key(headers: Mapping[str, str]) -> str | None:
    """The Idempotency-Key, or None.

    Raises:
        Refusal: 400, not 1 to 255 visible ASCII characters.
    """
    key = headers.get(KEY)
    if key is None:
        return None
    if not 1 <= len(key) <= _LONGEST_KEY or any(not "!" <= character <= "~" for character in key):
        raise invalid(
            f"Header {KEY} must be 1 to {_LONGEST_KEY} visible ASCII characters without spaces. Nothing was "
            "changed."
        )
    return key


def scoped_key(key: str, parameters: Mapping[str, str]) -> str:
    """The key as the log knows it: of one tenant and database, which the path's `parameters` name.

    Whoever uses a key elsewhere does not meet it. Creating a tenant and resetting have a scope of their own;
    creating a database has its tenant's. No key from a client has a space in it.
    """
    tenant = parameters.get("tenant", parameters.get("tenant_name", ""))
    scope = f"{len(tenant)}:{tenant}{parameters.get('database', '')}"
    return f"{blake2b(scope.encode(), digest_size=16).hexdigest()} {key}"


def read_ack(headers: Mapping[str, str]) -> Ack:
    """When the write is to be answered.

    Raises:
        Refusal: 400, neither `applied` nor `committed`.
    """
    match headers.get(ACK, "applied").strip().lower():
        case "applied":
            return "applied"
        case "committed":
            return "committed"
        case other:
            raise invalid(
                f"Header {ACK} is {other[:64]!r}, expected applied or committed. Nothing was changed."
            )


def read_guarantee(headers: Mapping[str, str]) -> tuple[Guarantee, int | None]:
    """The guarantee of a read, and its session token if it brought one.

    Raises:
        Refusal: 400, a value is not one of those allowed.
    """
    token = headers.get(MIN_INDEX_HEADER)
    guarantee = parse_guarantee(headers.get(CONSISTENCY_HEADER), token, headers.get(MAX_STALENESS_HEADER))
    return guarantee, None if token is None else guarantee.min_index


def digest_of(method: str, target: str, body: bytes) -> bytes:
    """A hash of a write by which its retry is told from another write under the same key."""
    hasher = blake2b(digest_size=16)
    hasher.update(f"{method} {target}\n".encode("utf-8", "surrogateescape"))
    hasher.update(body)
    return hasher.digest()
