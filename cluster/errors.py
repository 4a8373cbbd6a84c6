"""What can go wrong, as types: an answer to a client, or a fault of this node.

    ClusterError
    ├── Refusal          deterministic: the same on every node, replicated, an answer (4xx)
    ├── NotLeader        nothing was appended; the leader, where known, is named
    ├── NotHandedOver    409: leadership stays where it is, and why
    ├── Overloaded       429: surely not applied, a bounded queue is full; try again later
    ├── NoRoom           507: surely not applied, a member's disk is nearly full; make room
    ├── Unavailable      503: surely nothing changed (a read not served, a write not started)
    │   ├── Hidden              a write to the collection is half done here; it may take a while
    │   └── EngineUnavailable   this node's Chroma is being restarted; try elsewhere, or again
    ├── EngineDied       500: Chroma's process died or was killed over this request; never tried elsewhere
    ├── Quarantined      500: this very request took an engine down a moment ago; refused for a while
    ├── OutcomeUnknown   503/504: the write may or may not take effect; retry with the same key
    └── Fault            local to this node: it stops serving, says why, and hands leadership over

Each error knows the HTTP status and the stable name that it has in a response body
`{"error": name, "message": text}` (the shape of Chroma's own errors, `chromadb/errors.py`).
"""

from __future__ import annotations

from typing import Final, Literal

#: What mends a node whose files are damaged or not what the log says; see docs/membership.md, "A lost disk".
FILLED_BY_OTHERS: Final = (
    "With the others up and healthy, move this node's whole data directory away and start it again: they "
    "fill it."
)


class ClusterError(Exception):
    """Base of all errors of this project. `status` is an HTTP status, `error` the stable name.

    `outcome` is what goes out as `X-Chroma-Outcome`: "unchanged" if surely nothing was changed, "unknown" if
    a write may or may not take effect, None if that is not said.
    """

    status: int = 500
    error: str = "InternalError"
    outcome: Literal["unchanged", "unknown"] | None = None
    #: The log index that a refused read may have seen: a "not found" is an answer like another.
    log_index: int | None = None

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class Refusal(ClusterError):
    """A deterministic no, in Chroma's own words: nothing was changed on any node."""

    outcome = "unchanged"

    def __init__(self, status: int, error: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.error = error


class NotLeader(ClusterError):
    """This node cannot take the write; nothing was appended. `leader` is a node id or None."""

    status = 503
    error = "NotLeaderError"
    outcome = "unchanged"

    def __init__(self, leader: str | None) -> None:
        where = f"the leader is {leader}" if leader else "no leader is known at the moment"
        super().__init__(f"This node is not the leader; {where}. Nothing was changed; send it again.")
        self.leader = leader


class NotHandedOver(ClusterError):
    """Leadership was to go to another node and stays where it is; nothing else was changed."""

    status = 409
    error = "NotHandedOverError"
    outcome = "unchanged"

    def __init__(self, why: str) -> None:
        super().__init__(f"Leadership was not handed over: {why} Nothing was changed.")


class Overloaded(ClusterError):
    """A bounded queue is full: surely not applied, try again later."""

    status = 429
    error = "OverloadedError"
    outcome = "unchanged"


class NoRoom(ClusterError):
    """A member's disk is nearly full: surely not applied; room has to be made first."""

    status = 507
    error = "InsufficientStorageError"
    outcome = "unchanged"


class Unavailable(ClusterError):
    """Surely nothing changed: no leader or quorum in reach, or this node is behind or not serving."""

    status = 503
    error = "UnavailableError"
    outcome = "unchanged"


class Hidden(Unavailable):
    """A write to the collection is half done here, for as long as it takes: surely nothing was read."""


class EngineUnavailable(Unavailable):
    """This node's Chroma is being restarted: surely nothing was read or changed; try elsewhere, or again."""


class EngineDied(ClusterError):
    """Chroma's process died, or was killed by the watchdog, while it worked on this request.

    `proven` says that it was this request, by what is known: nothing else was under way when the process
    crashed. What is not proven may be an innocent bystander, or a process that was killed from outside.
    """

    status = 500
    error = "EngineDiedError"

    def __init__(self, message: str, *, proven: bool) -> None:
        super().__init__(message)
        self.proven = proven


class Quarantined(ClusterError):
    """This very request was in an engine when it died; it is refused for some seconds."""

    status = 500
    error = "QuarantinedError"
    outcome = "unchanged"


class OutcomeUnknown(ClusterError):
    """The write was handed to the log, but its fate is not known here: it may still take effect."""

    status = 504
    error = "OutcomeUnknownError"
    outcome = "unknown"


class Fault(ClusterError):
    """This node is broken (disk full, engine or journal failed): it must stop serving."""

    status = 503
    error = "NodeFaultError"
