"""Headers of one connection: who passes a message on leaves them behind."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from multidict import CIMultiDict

#: How a byte that is no UTF-8 stands in text, or a surrogate that was sent as such.
_LONE: Final = re.compile("[\ud800-\udfff]")

#: Lower-cased (RFC 9110, 7.6.1, and one that proxies of old made up).
HOP_BY_HOP: Final = (
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
)


def strip_hop_by_hop(headers: CIMultiDict[str]) -> None:
    """Remove what was meant for one connection only, in place; also what `Connection` names."""
    connection = headers.get("Connection")
    if connection is not None and connection.lower() not in ("keep-alive", "close"):
        for name in connection.split(","):
            headers.popall(name.strip(), None)
    for name in HOP_BY_HOP:
        if name in headers:
            headers.popall(name)


def legible(value: str) -> str:
    """`value` of a header, with U+FFFD for bytes that are no UTF-8.

    Who sends such a value on with aiohttp leaves those bytes out: another, valid one might arrive, such as a
    key that another client uses.
    """
    return value if value.isascii() else _LONE.sub("\N{REPLACEMENT CHARACTER}", value)
