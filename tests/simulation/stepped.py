"""The threads of a node without threads: raft loop, applier and event loop, each taken a step at a time.

`RaftNode`, `Applier` and `Proposer` are the real ones; what is replaced here is only who calls their loops.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cluster.apply.applier import Applier
from cluster.errors import Fault
from cluster.levels import Levels
from cluster.raft.raft import RaftNode
from cluster.state.work import Call, Resolve

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Sequence

    from cluster.raft.journal import Journal
    from cluster.raft.node import CorrectedNode
    from cluster.raft.settings import RaftSettings
    from cluster.state.catalog import Change
    from cluster.state.machine import LogEntry, Step
    from tests.simulation.network import Wire

CLUSTER_ID = "simulated"


class SteppedRaft(RaftNode):
    """`turn` is one pass of the raft thread's loop."""

    def __init__(
        self,
        node_id: str,
        members: list[str],
        settings: RaftSettings,
        *,
        clock: Callable[[], float],
        rng: random.Random,
        on_fault: Callable[[str], None],
        levels: Callable[[], Levels] = Levels,
    ) -> None:
        addresses = {member: (member, 1) for member in members}
        super().__init__(
            node_id,
            addresses,
            ("", 0),
            Path("unused"),
            CLUSTER_ID,
            b"secret",
            settings,
            None,
            on_fault,
            levels=levels,
        )
        self._clock = clock
        self._rng = rng

    def begin(self, node_type: type[CorrectedNode], journal: Journal, wire: Wire) -> CorrectedNode:
        """What `start` does, with a journal and a transport from outside and without a thread."""
        self._note_applied(journal)
        node = node_type(
            self.node_id,
            journal,
            wire,
            self.settings,
            clock=self._clock,
            rng=self._rng,
            on_commit=self._on_commit,
        )
        self._journal = journal
        self._transport = wire  # type: ignore[assignment]
        self._node = node
        self._commit_index = journal.commit_index
        self._publish(node, wire)  # type: ignore[arg-type]
        self._accepting = True
        return node

    def turn(self) -> bool:
        """One pass of the loop; False when the node has stopped, as it was told to."""
        node, wire = self._node, self._transport
        assert node is not None
        assert wire is not None
        if self._is_done(node):
            self._shut_down(node, wire)
            return False
        self._woken = False
        self._take_requests(node)
        node.doTick(0)
        self._settle(node)
        self._publish(node, wire)
        return True

    def ask_to_stop(self) -> None:
        self._stopping.set()

    @property
    def has_more(self) -> bool:
        return self._has_more

    @property
    def commit_index(self) -> int:
        return self._commit_index


class SteppedApplier(Applier):
    """`begin` makes the next step's engine call, `complete` makes it durable and tells of it."""

    _raft: SteppedRaft
    on_call: Callable[[Step], None]
    _batch: Sequence[LogEntry] = ()

    def start(self) -> None:
        self._recovering_until = self._raft.status().last_index

    def begin(self) -> tuple[Step, Sequence[Change]] | None:
        """The step under way, or None: nothing to do now, or to plan again, or broken (`fault`)."""
        try:
            if not self.is_behind or not self._may_go_on():
                return None
            step = self._machine.next_step(self._batch)
            if step is None:
                self._batch = self._next_batch(self._raft.commit_index)
                step = self._machine.next_step(self._batch)
            return None if step is None else self._do(step)
        except Fault as fault:
            self._break(fault)
        except OSError as error:
            self._break(Fault(str(error)))
        return None

    def _do(self, step: Step) -> tuple[Step, Sequence[Change]] | None:
        self.on_call(step)
        return super()._do(step)

    def complete(self, step: Step, local: Sequence[Change]) -> None:
        try:
            self._finish(step, local)
        except Fault as fault:
            self._break(fault)

    @property
    def is_behind(self) -> bool:
        return self._fault is None and self._raft.commit_index > self._applied


def touched(step: Step) -> tuple[str, ...]:
    """The collections that a step's engine call changes."""
    work = step.work
    if not isinstance(work, Call) or isinstance(work, Resolve):
        return ()
    named = () if work.target is None else (work.target.collection_id,)
    return (*work.dropped, *(name for name in named if name not in work.dropped))


class SteppedLoop:
    """As much of an event loop as `Proposer` and its futures use; callbacks are the process's work."""

    def __init__(self, enqueue: Callable[[Callable[[], None]], None]) -> None:
        self._enqueue = enqueue
        self.is_over = False

    def create_future(self) -> asyncio.Future[Any]:
        return asyncio.Future(loop=self)  # type: ignore[arg-type]

    def call_soon(self, call: Callable[..., Any], *arguments: Any, context: Any = None) -> None:
        self._enqueue(lambda: call(*arguments))

    def call_soon_threadsafe(self, call: Callable[..., Any], *arguments: Any, context: Any = None) -> None:
        self._enqueue(lambda: call(*arguments))

    def is_closed(self) -> bool:
        return self.is_over

    def get_debug(self) -> bool:
        return False

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """A future whose error nobody asked for: the write was given up before."""
