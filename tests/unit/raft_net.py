"""Real nodes on a simulated clock, network and disk, in one process: what the unit tests of the log drive.

Links are FIFO per lane and die with their connection, as TCP does. A crash keeps what was flushed.
"""

from __future__ import annotations

import heapq
import random
from typing import TYPE_CHECKING, Any

from pysyncobj.transport import Transport

from cluster.raft import messages
from cluster.raft.journal import Journal
from cluster.raft.meta import Standing
from cluster.raft.node import CorrectedNode
from cluster.raft.settings import RaftSettings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pysyncobj.node import Node

    from cluster.raft.storage import Batch, Row


class Disk:
    """Storage in memory. What `write` was given survives a crash; nothing else exists."""

    def __init__(self, name: str = "disk") -> None:
        self.name = name
        self.meta: bytes | None = None
        self.rows: dict[int, Row] = {}
        self.fail: Exception | None = None
        self.writes = 0
        self.on_write: Callable[[Batch], None] | None = None

    def load_meta(self) -> bytes | None:
        return self.meta

    def load_rows(self) -> Iterator[Row]:
        yield from (self.rows[index] for index in sorted(self.rows))

    def write(self, batch: Batch) -> None:
        if self.fail is not None:
            raise self.fail
        if batch.delete_from is not None:
            self.rows = {index: row for index, row in self.rows.items() if index < batch.delete_from}
        if batch.delete_to is not None:
            self.rows = {index: row for index, row in self.rows.items() if index > batch.delete_to}
        for row in batch.rows:
            assert row.index not in self.rows
            self.rows[row.index] = row
        self.meta = batch.meta
        self.writes += 1
        if self.on_write is not None:
            self.on_write(batch)

    def read(self, start: int, last: int, max_bytes: int) -> list[Row]:
        found: list[Row] = []
        held = 0
        for index in range(start, last + 1):
            if index not in self.rows or (found and held >= max_bytes):
                break
            found.append(self.rows[index])
            held += len(self.rows[index].payload)
        return found

    def sizes(self, start: int, count: int) -> list[tuple[int, int]]:
        indices = sorted(index for index in self.rows if index >= start)[:count]
        return [(index, len(self.rows[index].payload)) for index in indices]

    def close(self) -> None:
        return None


class Wire(Transport):
    """One node's end of the simulated network."""

    def __init__(self, net: Net, node_id: str) -> None:
        super().__init__(None, None, ())
        self.net = net
        self.node_id = node_id
        self.is_closed = False

    def send(self, node: Node, message: Any) -> bool:
        return not self.is_closed and self.net.send(self.node_id, node.id, message)

    def destroy(self) -> None:
        self.is_closed = True

    def receive(self, peer: Node, message: Any) -> None:
        self._onMessageReceived(peer, message)

    def connected(self, peer: Node) -> None:
        self._onNodeConnected(peer)

    def disconnected(self, peer: Node) -> None:
        self._onNodeDisconnected(peer)


class Net:
    """A cluster: `run` moves time on; `crash`, `restart`, `cut`, `heal` are the faults."""

    def __init__(
        self,
        size: int = 3,
        seed: int = 1,
        settings: RaftSettings | None = None,
        delay_s: Callable[[random.Random], float] | None = None,
        node_type: type[CorrectedNode] = CorrectedNode,
        standing: Standing = Standing.VOTER,
    ) -> None:
        self.standing = standing
        self.rng = random.Random(seed)
        self.settings = settings or RaftSettings()
        self.now = 0.0
        self.ids = [f"n{number}" for number in range(1, size + 1)]
        self.disks = {node_id: Disk(node_id) for node_id in self.ids}
        self.nodes: dict[str, CorrectedNode] = {}
        self.wires: dict[str, Wire] = {}
        self.cuts: set[frozenset[str]] = set()
        self.epochs: dict[frozenset[str], int] = {}
        self.delay_s = delay_s or (lambda rng: rng.uniform(0.0005, 0.002))
        self.node_type = node_type
        self.sent: list[tuple[str, str, Any]] = []
        self.intercept: Callable[[str, str, Any], bool] | None = None
        self.committed: dict[int, tuple[int, bytes]] = {}
        self.committed_in: dict[int, int] = {}
        self.leaders: dict[int, str] = {}
        self._lanes: dict[tuple[str, str, int, bool], float] = {}
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._counter = 0
        for node_id in self.ids:
            self.start(node_id)

    # ------------------------------------------------------------------ faults

    def start(self, node_id: str) -> CorrectedNode:
        wire = Wire(self, node_id)
        journal = Journal(
            self.disks[node_id],
            "cluster",
            node_id,
            members=self.ids,
            incarnation=f"{node_id} {self.rng.random()}",
            standing=self.standing,
            cache_bytes=64 * 1024,
        )
        node = self.node_type(
            node_id,
            journal,
            wire,
            self.settings,
            clock=lambda: self.now,
            rng=random.Random(self.rng.random()),
        )
        self.nodes[node_id] = node
        self.wires[node_id] = wire
        for other in self.ids:
            if other != node_id:
                self._reconnect(node_id, other)
        return node

    def crash(self, node_id: str) -> None:
        node = self.nodes.pop(node_id)
        node.halted = True
        self.wires.pop(node_id).destroy()
        for other in self.ids:
            if other != node_id:
                self._disconnect(node_id, other)

    def restart(self, node_id: str) -> CorrectedNode:
        if node_id in self.nodes:
            self.crash(node_id)
        return self.start(node_id)

    def cut(self, one: str, other: str, *, notice: bool = True) -> None:
        """Nothing passes; with `notice` both ends see the connection break at once (else a black hole)."""
        self.cuts.add(frozenset((one, other)))
        if notice:
            self._disconnect(one, other)

    def isolate(self, node_id: str, *, notice: bool = True) -> None:
        for other in self.ids:
            if other != node_id:
                self.cut(node_id, other, notice=notice)

    def heal(self) -> None:
        cuts, self.cuts = self.cuts, set()
        for pair in sorted(cuts, key=sorted):
            one, other = sorted(pair)
            self._disconnect(one, other)
            self._reconnect(one, other)

    def _disconnect(self, one: str, other: str) -> None:
        pair = frozenset((one, other))
        self.epochs[pair] = self.epochs.get(pair, 0) + 1
        for here, there in ((one, other), (other, one)):
            if here in self.nodes:
                self.wires[here].disconnected(self.nodes[here].node_for(there))

    def _reconnect(self, one: str, other: str) -> None:
        pair = frozenset((one, other))
        epoch = self.epochs.get(pair, 0)

        def connect() -> None:
            if self.epochs.get(pair, 0) != epoch or pair in self.cuts:
                return
            if one in self.nodes and other in self.nodes:
                for here, there in ((one, other), (other, one)):
                    self.wires[here].connected(self.nodes[here].node_for(there))
                    self.tick(here)

        self.at(self.rng.uniform(0.01, 0.2), connect)

    # ------------------------------------------------------------------ time and messages

    def at(self, delay_s: float, call: Callable[[], None]) -> None:
        self._counter += 1
        heapq.heappush(self._events, (self.now + delay_s, self._counter, call))

    def send(self, source: str, target: str, message: Any) -> bool:
        pair = frozenset((source, target))
        if target == source or not self.nodes[source].is_connected(target):
            return False
        self.sent.append((source, target, message))
        if self.intercept is not None and not self.intercept(source, target, message):
            return True
        data = messages.encode(message)
        epoch = self.epochs.get(pair, 0)
        lane = (source, target, epoch, isinstance(message, messages.Append) and bool(message.entries))
        due = max(self.now + self.delay_s(self.rng), self._lanes.get(lane, 0.0))
        self._lanes[lane] = due

        def deliver() -> None:
            if self.epochs.get(pair, 0) != epoch or pair in self.cuts or target not in self.nodes:
                return
            self.wires[target].receive(self.nodes[target].node_for(source), messages.decode(data))
            self.tick(target)

        self.at(due - self.now, deliver)
        return True

    def tick(self, node_id: str) -> None:
        node = self.nodes.get(node_id)
        if node is not None:
            node.doTick(0)
            self.check(node)

    def run(self, seconds: float, until: Callable[[], bool] | None = None) -> bool:
        """Move on by `seconds`, or to the moment `until` holds: whether it does."""
        end = self.now + seconds
        while until is None or not until():
            due = {node_id: node.next_deadline_s() for node_id, node in self.nodes.items()}
            first = min(due, key=lambda node_id: (due[node_id], node_id), default=None)
            timer = due[first] if first is not None else float("inf")
            if self._events and self._events[0][0] <= timer:
                if self._events[0][0] > end:
                    break
                at, _, call = heapq.heappop(self._events)
                self.now = max(self.now, at)
                call()
            elif first is not None and timer <= end:
                self.now = max(self.now, timer) + 1e-6
                self.tick(first)
            else:
                break
        else:
            return True
        self.now = end
        return until is not None and until()

    # ------------------------------------------------------------------ looking

    def leader(self, within_s: float = 10.0) -> CorrectedNode:
        """The leader of the highest term that a majority follows, waiting for it."""
        found: list[CorrectedNode] = []

        def led() -> bool:
            found[:] = [
                node
                for node in self.nodes.values()
                if node.is_leader
                and 2 * sum(o.term == node.term and o.leader_id == node.node_id for o in self.nodes.values())
                > len(self.ids)
            ]
            return bool(found)

        assert self.run(within_s, led), "no leader"
        return found[0]

    def propose(self, payload: bytes) -> tuple[int, int]:
        leader = self.leader()
        position = leader.propose(payload)
        self.tick(leader.node_id)
        return position

    def commit(self, payload: bytes, within_s: float = 10.0) -> int:
        index, term = self.propose(payload)
        assert self.run(within_s, lambda: self.committed.get(index, (0, b""))[0] == term), "not committed"
        return index

    def check(self, node: CorrectedNode) -> None:
        """Raft's invariants, after every step of a node."""
        if node.is_leader:
            assert self.leaders.setdefault(node.term, node.node_id) == node.node_id, "two leaders in a term"
            for index, (term, _) in self.committed.items():
                if index > node.journal.base_index and self.committed_in[index] < node.term:
                    assert index <= node.journal.last_index, "a leader misses a committed entry"
                    assert node.journal.term_at(index) == term, "a leader has another committed entry"
        assert node.commit_index <= node.journal.durable_index, "committed, but not durable here"
        start = max(getattr(node, "checked", 0), node.journal.base_index)
        if node.commit_index > start:
            for row in node.journal.read(start + 1, node.commit_index, 1 << 40):
                self.committed_in.setdefault(row.index, node.term)
                held = self.committed.setdefault(row.index, (row.term, row.payload))
                assert held == (row.term, row.payload), f"committed entry {row.index} changed"
            node.checked = node.commit_index  # pyright: ignore[reportAttributeAccessIssue]

    def converged(self) -> bool:
        last = max(node.journal.last_index for node in self.nodes.values())
        return all(
            node.commit_index == last and node.journal.last_index == last for node in self.nodes.values()
        )
