"""Headers of one connection: who passes a message on leaves them behind."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from multidict import CIMultiDict

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
