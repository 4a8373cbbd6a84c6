"""The door of a node: lets in each request that proves the cluster's secret, once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from wire.proof import claim_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from wire.proof import Claim

#: Requests of one sender may overtake each other by so many.
WINDOW: Final = 8192
#: So many senders are remembered; with one more, all begin anew under another challenge.
MOST_SENDERS: Final = 1024


class Door:
    """Belongs to one event loop. `new_challenge` gives 32 random hexadecimal digits."""

    def __init__(self, secret: bytes, new_challenge: Callable[[], str]) -> None:
        self._secret = secret
        self._new_challenge = new_challenge
        self.challenge = new_challenge()
        """What proofs must be bound to at the moment."""
        #: For each sender its highest number, and which of those below it came too (bit n: n below it).
        self._seen: dict[str, tuple[int, int]] = {}

    def enter(self, method: str, target: str, proof: str) -> Claim | None:
        """What the proof of a request claims, if it is good and was never used; the body is to be held
        against it. None: the sender does not know the secret or the challenge, or says it again.
        """
        claim = claim_of(self._secret, self.challenge, method, target, proof)
        return claim if claim is not None and self._is_new(claim) else None

    def _is_new(self, claim: Claim) -> bool:
        if claim.sender not in self._seen and len(self._seen) >= MOST_SENDERS:
            # Whom one forgot might say everything again.
            self._seen.clear()
            self.challenge = self._new_challenge()
            return False
        highest, came = self._seen.get(claim.sender, (0, 0))
        ahead = claim.number - highest
        if ahead > 0:
            kept = came << ahead if ahead < WINDOW else 0
            self._seen[claim.sender] = (claim.number, (kept | 1) & ((1 << WINDOW) - 1))
            return True
        if -ahead >= WINDOW or came >> -ahead & 1:
            return False
        self._seen[claim.sender] = (highest, came | 1 << -ahead)
        return True
