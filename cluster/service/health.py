"""Whether this node serves: not after a fault, nothing new while it is stopping, and with Chroma only."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from cluster.apply.deliberation import describe
from cluster.disk import DiskFull
from cluster.errors import Fault, Unavailable
from cluster.service.diagnosis import Trouble, lack_reason

if TYPE_CHECKING:
    from collections.abc import Callable

    from cluster.apply.impasse import Impasse
    from cluster.chroma.interface import Tending
    from cluster.raft.interface import Raft

_FREE: Final = "Free space there; the node then goes on by itself within seconds."
_MEND: Final = "Mend what the reason names, then restart the node (`chroma-cluster up` does that)."
_MIXED: Final = (
    ", and may answer otherwise: it does not serve until they are the same (or `allow_mixed_versions` is "
    "set, for the time of an upgrade)."
)


class Health:
    """The first fault of a node, and whether it was told to stop."""

    def __init__(
        self,
        node_id: str,
        raft: Raft,
        tending: Tending,
        impasse: Impasse,
        filling: Callable[[], object] = lambda: None,
    ) -> None:
        self._filling = filling
        self._tending = tending
        self._node_id = node_id
        self._raft = raft
        self._impasse = impasse
        self._fault: Fault | None = None
        self._stopping = False
        self.outdated: str | None = None
        """In which way this node's versions differ from the leader's, if it is not to serve for that."""

    def fail(self, fault: Fault) -> None:
        """A local fault: stop serving, say why, hand leadership over. May be called from any thread."""
        if self._fault is None:
            self._fault = fault
            self._raft.fail(fault.message)

    def stop_serving(self) -> None:
        """Say that this node is stopping, so that nobody sends it anything new. What has begun is served: who
        stops the node ends what takes too long.
        """
        self._stopping = True

    @property
    def broken(self) -> bool:
        """Whether there was a fault."""
        return self._fault is not None

    @property
    def reason(self) -> str | None:
        """Why this node does not serve, or None."""
        if self._fault is not None:
            return self._fault.message
        if self._stopping:
            return "The node is stopping."
        if self.outdated is not None:
            return f"{self.outdated}{_MIXED}"
        stuck = self._impasse.at
        if stuck is not None:
            whose = (
                "Another node has it, so the fault is this node's own; it tries again."
                if self._impasse.is_local
                else "The nodes find out whether it is this node's own fault, or the write is to be refused."
            )
            return f"Stuck at {describe(stuck.point)}: {stuck.cause} {whose}"
        engine = self._tending.condition()
        match engine.state:
            case "serving":
                return None
            case "hung":
                return f"This node's Chroma (process {engine.pid}) does nothing, with requests under way."
            case "restarting":
                return f"This node's Chroma is being started again: process {engine.last_death}."

    @property
    def trouble(self) -> Trouble | None:
        """The same, with its kind and what is to be done."""
        reason = self.reason
        if reason is None:
            return None
        if self._fault is not None:
            return Trouble("failed", reason, _FREE if isinstance(self._fault, DiskFull) else _MEND)
        if self._stopping:
            return Trouble("stopping", reason, "Nothing, or start it again when it has ended.")
        return Trouble("not serving", reason, "Wait: the node tries again by itself.")

    @property
    def lack(self) -> str | None:
        """Why this node cannot catch up with the others, or None."""
        lacks = self._raft.status().lacks
        return None if lacks is None else lack_reason(lacks, self.filling)

    @property
    def filling(self) -> str | None:
        """How far this node is with fetching a snapshot, in words; None: it fetches none."""
        progress = self._filling()
        return None if progress is None else str(progress)

    def require_no_fault(self) -> None:
        """Raises:
        Fault: this node is broken.
        """
        if self._fault is not None:
            raise Fault(
                f"Node {self._node_id} has stopped serving: {self._fault.message} "
                "Nothing was read or changed; ask another node."
            )

    def require_serving(self) -> None:
        """Raises:
        Fault: this node is broken.
        Unavailable: it lacks entries that no other node has any more, or its chromadb is another one.
        """
        self.require_no_fault()
        lack = None if self._stopping else self.lack
        if lack is not None:
            raise Unavailable(
                f"Node {self._node_id} does not serve: {lack} Nothing was read or changed; ask another node."
            )
        if self._impasse.is_local:
            raise Unavailable(
                f"Node {self._node_id} does not serve: {self.reason} Nothing was read or changed; "
                "ask another node."
            )
        if self.outdated is not None:
            raise Unavailable(f"{self.outdated}{_MIXED} Nothing was read or changed; ask another node.")
