"""Who may ask a node what: members and balancers of its cluster, who prove that they know its secret."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from cluster.errors import Refusal
from wire.calls import digest_in_time
from wire.proof import HEADER

if TYPE_CHECKING:
    from aiohttp import web

    from wire.door import Door
    from wire.proof import Claim

_MEMBERS_ONLY: Final = (
    f"Only members and balancers of this cluster may ask this: {HEADER} does not prove its secret. "
    "Nothing was changed. A balancer is given the secret by `secret` or `secret_file`."
)
_CLIENTS_ELSEWHERE: Final = (
    "This is one node's own port, which serves only the members and balancers of its cluster. Nothing was "
    "read or changed. Use the balancer's address (`chroma-cluster status` shows it), or start the nodes with "
    "`allow_direct_clients` if everybody who reaches this port may read and change everything."
)


class NotProven(Refusal):
    """Whoever asks does not prove the cluster's secret; `challenge` is what a proof must be bound to."""

    def __init__(self, challenge: str, *, of_chroma: bool = False) -> None:
        if of_chroma:
            super().__init__(403, "AuthError", _CLIENTS_ELSEWHERE)
        else:
            super().__init__(403, "ForbiddenError", _MEMBERS_ONLY)
        self.challenge = challenge


def require(door: Door, request: web.Request, *, of_chroma: bool = False) -> Claim:
    """What a request proves, before its body is read.

    Raises:
        NotProven: 403, a stranger asks.
    """
    claim = door.enter(request.method, request.raw_path, request.headers.get(HEADER, ""))
    if claim is None:
        raise NotProven(door.challenge, of_chroma=of_chroma)
    return claim


async def require_body(door: Door, claim: Claim, body: bytes) -> None:
    """Raises:
    NotProven: 403, the body is not the one of the proof.
    """
    if await digest_in_time(body) != claim.digest:
        raise NotProven(door.challenge)
