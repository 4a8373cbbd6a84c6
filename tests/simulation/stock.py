"""Unmodified pysyncobj on the same clock, network and disks: the simulation must find what is known of it.

Only seams are used that the library offers or that its module has: a transport object, `doTick`, and in the
module the clock, the randomness, the journal and the poller. Its journal here loses nothing in a crash,
so that what is found is the protocol's fault, not the missing fsync's.
"""

from __future__ import annotations

import random
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from pysyncobj import syncobj
from pysyncobj.config import FAIL_REASON, SyncObjConf
from pysyncobj.journal import MemoryJournal
from pysyncobj.node import Node
from pysyncobj.syncobj import SyncObj, replicated

from tests.simulation.clock import NodeClock, Scheduler
from tests.simulation.invariants import Violation
from tests.simulation.network import Network, Weather, Wire
from tests.simulation.trace import Trace

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

TICK_S = 0.05
DEAD_AFTER_S = 3.5


class StockPeer(Node):
    """Its hash does not depend on the process, so that the order of the library's sets does not either."""

    def __init__(self, node_id: str, **named: Any) -> None:
        super().__init__(node_id, **named)

    def __hash__(self) -> int:
        return int(self.id[1:])


class StockJournal(MemoryJournal):
    """In memory, but it outlives its node; like the library's file journal it keeps the commit index."""

    kept_commit = 1

    def setRaftCommitIndex(self, raftCommitIndex: int) -> None:
        self.kept_commit = raftCommitIndex

    def getRaftCommitIndex(self) -> int:
        return self.kept_commit


class Counter(SyncObj):
    """The replicated object: it remembers every payload in the order of the log."""

    def __init__(self, node: Node, others: list[Node], conf: SyncObjConf, transport: Wire) -> None:
        self.applied: list[bytes] = []
        super().__init__(node, others, conf=conf, transport=transport)

    @replicated
    def put(self, payload: bytes) -> None:
        self.applied.append(payload)


class StockProcess:
    """One stock node from start to crash."""

    def __init__(self, cluster: StockCluster, node_id: str) -> None:
        self.cluster = cluster
        self.node_id = node_id
        self.is_running = True
        self.is_paused = False
        self.stall_s = 0.0
        self.wire: Wire | None = Wire(cluster.network, self)
        self.peers = {other: StockPeer(other) for other in cluster.ids}
        self.commit_seen = 0
        self.led_term = 0
        conf = SyncObjConf(
            autoTick=False,
            raftMinTimeout=0.4,
            raftMaxTimeout=1.4,
            appendEntriesPeriod=0.1,
            appendEntriesUseBatch=cluster.use_batch,
            appendEntriesBatchSizeBytes=cluster.batch_bytes,
            dynamicMembershipChange=False,
            commandsWaitLeader=False,
            logCompactionMinEntries=1 << 30,
            logCompactionMinTime=1 << 30,
            useFork=False,
        )
        with self.inside():
            others = [self.peers[other] for other in cluster.ids if other != node_id]
            self.node = Counter(self.peers[node_id], others, conf, self.wire)
        cluster.network.join(self)
        self._tick_again()

    @contextmanager
    def inside(self) -> Iterator[None]:
        """The library's module-level clock and randomness are this node's."""
        held = (syncobj.monotonicTime, syncobj.random, syncobj.createJournal, syncobj.createPoller)
        pipe = syncobj.PIPE_NOTIFIER_ENABLED
        cluster = self.cluster
        syncobj.monotonicTime = cluster.clocks[self.node_id]
        syncobj.random = cluster.random_of_nodes
        syncobj.createJournal = lambda _file: cluster.journals[self.node_id]
        syncobj.createPoller = lambda _kind: _NoPoller()
        syncobj.PIPE_NOTIFIER_ENABLED = False
        try:
            yield
        finally:
            syncobj.monotonicTime, syncobj.random, syncobj.createJournal, syncobj.createPoller = held
            syncobj.PIPE_NOTIFIER_ENABLED = pipe

    def enqueue(self, action: Callable[[], None]) -> None:
        if self.is_running:
            with self.inside():
                action()
                if self.is_running:
                    self.node.doTick(0)
            self.cluster.check(self)

    def _tick_again(self) -> None:
        def tick() -> None:
            if self.is_running:
                self.enqueue(lambda: None)
                self._tick_again()

        self.cluster.scheduler.after(TICK_S, tick)

    def on_send(self, peer: str, message: Any) -> None:
        """The library promises nothing that could be checked here."""

    def node_for(self, peer: str) -> Node:
        return self.peers[peer]

    @property
    def term(self) -> int:
        return self.node.raftCurrentTerm

    @property
    def log(self) -> MemoryJournal:
        return self.cluster.journals[self.node_id]


class _NoPoller:
    def poll(self, timeout: float) -> None:
        return None

    def subscribe(self, *arguments: Any) -> None:
        return None

    def unsubscribe(self, *arguments: Any) -> None:
        return None


class StockCluster:
    """Stock nodes, and the truth about what they have committed."""

    def __init__(
        self,
        seed: int,
        *,
        size: int = 3,
        batch_bytes: int = 1 << 16,
        weather: Weather | None = None,
        use_batch: bool = False,
    ) -> None:
        self.seed = seed
        self.batch_bytes = batch_bytes
        self.use_batch = use_batch
        self.rng = random.Random(f"stock {seed}")
        self.random_of_nodes = random.Random(f"stock nodes {seed}")
        self.scheduler = Scheduler()
        self.trace = Trace()
        self.ids = [f"n{number}" for number in range(1, size + 1)]
        self.clocks = {
            name: NodeClock(self.scheduler, self.rng.uniform(0, 50), 1 + self.rng.uniform(-1e-4, 1e-4))
            for name in self.ids
        }
        self.journals = {name: StockJournal() for name in self.ids}
        # One lane, as the library has it: everything in order.
        self.network = Network(
            self.scheduler, random.Random(f"stock network {seed}"), self.trace, DEAD_AFTER_S, lambda _: False
        )
        self.network.weather = weather or Weather(0.001, 0.01)
        self.processes: dict[str, StockProcess] = {}
        self.committed: dict[int, tuple[int, bytes]] = {}
        self.acked: list[bytes] = []
        for name in self.ids:
            self.start(name)

    def start(self, name: str) -> None:
        self.trace.add(self.scheduler.now, name, "starts")
        self.processes[name] = StockProcess(self, name)

    def crash(self, name: str) -> None:
        self.trace.add(self.scheduler.now, name, "crash")
        process = self.processes[name]
        process.is_running = False
        self.network.leave(process, silent=False)
        process.wire = None

    def run(self, seconds: float, until: Callable[[], bool] | None = None) -> bool:
        end_s = self.scheduler.now + seconds
        while self.scheduler.now < end_s:
            if until is not None and until():
                return True
            self.scheduler.run_until(min(end_s, self.scheduler.now + 0.01))
        return until is not None and until()

    def leader(self) -> StockProcess | None:
        leading = [process for process in self._running() if process.node._isLeader()]
        return max(leading, key=lambda process: process.term, default=None)

    def put(self, process: StockProcess, payload: bytes) -> None:
        """Hand a command to a node; it counts as acknowledged when its callback says success."""

        def done(_result: Any, reason: int) -> None:
            if reason == FAIL_REASON.SUCCESS:
                self.acked.append(payload)

        process.enqueue(lambda: process.node.put(payload, callback=done))

    def converged(self) -> bool:
        running = self._running()
        last = {process.log[-1][1] for process in running}
        return len(last) == 1 and all(process.node.raftLastApplied in last for process in running)

    def check(self, process: StockProcess) -> None:
        """What is committed stays; a new leader has all of it."""
        node, log = process.node, process.log
        if process.is_running and node._isLeader() and process.led_term != process.term:
            process.led_term = process.term
            self.trace.add(self.scheduler.now, process.node_id, "leads", process.term)
            for index, (term, _) in self.committed.items():
                held = self._entry(log, index)
                if held is None or held[2] != term:
                    raise Violation("leader completeness", f"{process.node_id} leads without entry {index}")
        for index in range(max(2, process.commit_seen + 1), node.raftCommitIndex + 1):
            entry = self._entry(log, index)
            if entry is None:
                raise Violation("committed is durable here", f"{process.node_id} has no entry {index}")
            known = self.committed.setdefault(index, (entry[2], entry[0]))
            if known != (entry[2], entry[0]):
                raise Violation("committed never changes", f"entry {index} at {process.node_id}")
        process.commit_seen = max(process.commit_seen, node.raftCommitIndex)

    def _entry(self, log: MemoryJournal, index: int) -> tuple[bytes, int, int] | None:
        position = index - log[0][1]
        return log[position] if 0 <= position < len(log) else None

    def _running(self) -> list[StockProcess]:
        return [self.processes[name] for name in self.ids if self.processes[name].is_running]


def lose_committed_entries(seed: int, seconds: float = 30.0) -> Violation | None:
    """Hazard 2: jitter, broken connections and small batches; what the judge found, if anything."""
    cluster = StockCluster(
        seed, batch_bytes=512, weather=Weather(0.001, 0.03, spike_chance=0.05, spike_s=0.5), use_batch=False
    )
    rng = cluster.rng

    def write() -> None:
        leader = cluster.leader()
        if leader is not None:
            for _ in range(rng.randrange(1, 6)):
                cluster.put(leader, rng.randbytes(200))
        cluster.scheduler.after(rng.uniform(0.005, 0.05), write)

    def trouble() -> None:
        leader = cluster.leader()
        one, other = rng.sample(cluster.ids, 2)
        kind = rng.randrange(3)
        if kind == 0:
            cluster.network.reset(one, other)
        elif leader is not None and kind == 1:
            for name in cluster.ids:
                if name != leader.node_id:
                    _hole(cluster, leader.node_id, name, rng.uniform(0.2, 2.5))
        else:
            _hole(cluster, one, other, rng.uniform(0.2, 2.5))
        cluster.scheduler.after(rng.uniform(0.3, 2.0), trouble)

    try:
        cluster.run(3.0, lambda: cluster.leader() is not None)
        write()
        trouble()
        cluster.run(seconds)
    except Violation as violation:
        return violation
    return None


def _hole(cluster: StockCluster, one: str, other: str, seconds: float) -> None:
    for source, target in ((one, other), (other, one)):
        cluster.network.block(source, target)
        cluster.scheduler.after(
            seconds, lambda source=source, target=target: cluster.network.unblock(source, target)
        )


def rejoin(seed: int, patience_s: float = 60.0, batch_bytes: int = 1 << 16) -> bool:
    """Hazard 2b, the recipe: nothing but restarts. Whether the old leader ever catches up."""
    cluster = StockCluster(seed, batch_bytes=batch_bytes)
    led = lambda: cluster.leader() is not None  # noqa: E731
    assert cluster.run(10, led)
    old = cluster.leader()
    assert old is not None
    others = [name for name in cluster.ids if name != old.node_id]
    for name in others:
        cluster.crash(name)
    for number in range(3):
        cluster.put(old, b"never committed %d" % number)
    cluster.run(0.1)
    cluster.crash(old.node_id)
    for name in others:
        cluster.start(name)
    assert cluster.run(20, led)
    for number in range(20):
        leader = cluster.leader()
        assert leader is not None
        cluster.put(leader, b"%02d" % number + bytes(6000))
        cluster.run(0.1)
    assert cluster.run(10, cluster.converged)
    leader = cluster.leader()
    assert leader is not None
    cluster.crash(leader.node_id)
    cluster.start(leader.node_id)
    assert cluster.run(20, led)
    assert cluster.run(10, cluster.converged)
    cluster.start(old.node_id)
    return cluster.run(patience_s, cluster.converged)
