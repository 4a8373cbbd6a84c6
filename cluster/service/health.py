"""Whether this node serves: not after a fault, nothing new while it is stopping, and with Chroma only."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cluster.apply.deliberation import describe
from cluster.errors import Fault, Unavailable

if TYPE_CHECKING:
    from cluster.apply.impasse import Impasse
    from cluster.chroma.interface import Tending
    from cluster.raft.interface import Raft


class Health:
    """The first fault of a node, and whether it was told to stop."""

    def __init__(self, node_id: str, raft: Raft, tending: Tending, impasse: Impasse) -> None:
        self._tending = tending
        self._node_id = node_id
        self._raft = raft
        self._impasse = impasse
        self._fault: Fault | None = None
        self._stopping = False

    def fail(self, fault: Fault) -> None:
        """A local fault: stop serving, say why, hand leadership over. May be called from any thread."""
        if self._fault is None:
            self._fault = fault
            self._raft.fail(fault.message)

    def stop_serving(self) -> None:
        """New requests are answered 503 from here on; those under way finish."""
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
        Unavailable: it is stopping.
        """
        self.require_no_fault()
        if self._impasse.is_local:
            raise Unavailable(
                f"Node {self._node_id} does not serve: {self.reason} Nothing was read or changed; "
                "ask another node."
            )
        if self._stopping:
            raise Unavailable(
                f"Node {self._node_id} is stopping. Nothing was read or changed; ask another node."
            )
