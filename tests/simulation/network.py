"""The network between nodes: one connection a pair, each a pair of ends that learn of its death on their own.

As TCP and `cluster.raft.transport` behave: within a lane (heartbeats and the like; entries) bytes arrive in
order or not at all; a connection that breaks takes what is under way with it; a black hole holds bytes back
and delivers the old ones when it ends, if the receiving end still has the connection; an end that hears
nothing for `dead_after_s` gives it up; of a pair the greater id dials, again and again.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from pysyncobj.transport import Transport

from cluster.levels import Levels

if TYPE_CHECKING:
    import random
    from collections.abc import Callable

    from pysyncobj.node import Node

    from tests.simulation.clock import Scheduler
    from tests.simulation.trace import Trace

_FIN = object()


class Host(Protocol):
    """What the network knows of a process."""

    node_id: str
    wire: Wire | None

    @property
    def is_running(self) -> bool: ...

    @property
    def is_paused(self) -> bool: ...

    @property
    def stall_s(self) -> float: ...

    def enqueue(self, action: Callable[[], None]) -> None:
        """Run `action` in the process, now or when it is free again, then let it do its turn."""
        ...

    def on_send(self, peer: str, message: Any) -> None:
        """Before a message leaves: the place to check promises, and to die."""
        ...

    def node_for(self, peer: str) -> Node: ...


@dataclass(slots=True)
class Weather:
    """How long messages take: mostly between the first two, with `spike_chance` up to `spike_s`."""

    low_s: float = 0.0003
    high_s: float = 0.002
    spike_chance: float = 0.0
    spike_s: float = 0.0
    loss_chance: float = 0.0
    """Of a request or answer outside the log's own connections: clients, read index."""

    def delay_s(self, rng: random.Random) -> float:
        delay = rng.uniform(self.low_s, self.high_s)
        if self.spike_chance and rng.random() < self.spike_chance:
            delay += rng.uniform(0, self.spike_s)
        return delay


class _Lane:
    """One direction of one lane: what was sent and has not arrived, in order."""

    __slots__ = ("due_s", "owed", "waiting")

    def __init__(self) -> None:
        self.waiting: deque[Any] = deque()
        self.due_s = 0.0
        self.owed = 0


class Connection:
    """Two ends; each is open until its own process or the network says otherwise."""

    def __init__(self, number: int, one: str, other: str) -> None:
        self.number = number
        self.lanes = {source: (_Lane(), _Lane()) for source in (one, other)}  # (urgent, bulk) by sender


class Wire(Transport):
    """One process's end of the network: what `TcpTransport` is to a real node."""

    def __init__(self, network: Network, host: Host) -> None:
        super().__init__(None, None, ())
        self.network = network
        self.host = host
        self.ends: dict[str, Connection] = {}
        self.said: dict[str, Levels] = {}
        self.refused: dict[str, str] = {}
        self.is_destroyed = False

    @property
    def connected(self) -> tuple[str, ...]:
        return tuple(sorted(self.ends))

    @property
    def levels(self) -> dict[str, Levels]:
        return {peer: levels for peer, levels in self.said.items() if peer in self.ends}

    def send(self, node: Node, message: Any) -> bool:
        if self.is_destroyed or node.id not in self.ends:
            return False
        self.host.on_send(node.id, message)
        return self.network.send(self, node.id, message)

    def wake(self) -> None:
        """The queue of other threads' requests is not empty: a turn is due."""
        self.network.scheduler.after(0.0, lambda: self.host.enqueue(_nothing))

    def destroy(self) -> None:
        self.is_destroyed = True

    def receive(self, peer: str, message: Any) -> None:
        self._onMessageReceived(self.host.node_for(peer), message)

    def open_end(self, peer: str, connection: Connection) -> None:
        if peer in self.ends:
            self.close_end(peer, self.ends[peer])
        self.ends[peer] = connection
        self.said[peer] = self.network.levels_of(peer)
        self._onNodeConnected(self.host.node_for(peer))

    def close_end(self, peer: str, connection: Connection) -> None:
        if self.ends.get(peer) is not connection:
            return
        del self.ends[peer]
        self.network.trace.add(self.network.scheduler.now, self.host.node_id, "lost", peer, connection.number)
        self._onNodeDisconnected(self.host.node_for(peer))
        self.network.end_closed(self.host.node_id, peer, connection)


class Network:
    """All links of a cluster. `block` and `unblock` are directed; `reset` breaks a connection."""

    def __init__(
        self,
        scheduler: Scheduler,
        rng: random.Random,
        trace: Trace,
        dead_after_s: float,
        is_bulk: Callable[[Any], bool],
        bulk_limit: int = 64,
    ) -> None:
        self.scheduler = scheduler
        self.rng = rng
        self.trace = trace
        self.dead_after_s = dead_after_s
        self.weather = Weather()
        self.hosts: dict[str, Host] = {}
        self.levels_of: Callable[[str], Levels] = lambda name: Levels()
        self.are_fitting: Callable[[str, str], bool] = lambda one, other: True
        """Whether the builds of two nodes agree to be connected."""
        self.messages = 0
        self._is_bulk = is_bulk
        self._bulk_limit = bulk_limit
        self._blocked: dict[tuple[str, str], int] = {}
        self._blocked_at: dict[tuple[str, str], float] = {}
        self._refused: dict[frozenset[str], int] = {}
        self._numbers = 0
        self._lags: dict[tuple[str, str], tuple[float, float]] = {}

    # ------------------------------------------------------------------ processes come and go

    def join(self, host: Host) -> None:
        """A process has started: it dials and is dialled; connections of its predecessor are reset."""
        self.hosts[host.node_id] = host
        for peer in sorted(self.hosts):
            if peer == host.node_id:
                continue
            self._dial_in(host.node_id, peer, self.rng.uniform(0.0, 0.05))
            stale = self._end(peer, host.node_id)
            if stale is not None:
                # The first keep-alive on the old connection is answered with a reset.
                self.scheduler.after(
                    self.rng.uniform(0.01, 0.1),
                    lambda peer=peer, stale=stale: self._close(peer, host.node_id, stale),
                )

    def leave(self, host: Host, *, silent: bool) -> None:
        """The process is gone: its kernel says so to the others, or with `silent` (power) nobody does."""
        wire = host.wire
        if wire is None:
            return
        ends = sorted(wire.ends.items())
        wire.ends = {}
        wire.destroy()
        for peer, connection in ends:
            if silent:
                for lane in connection.lanes[host.node_id]:
                    if self.rng.random() < 0.5:  # what is still in the machine never leaves it
                        lane.waiting.clear()
                        lane.owed = 0
                self._expect_silence(host.node_id, peer, connection)
            else:
                self._send_fin(host.node_id, peer, connection)
        known = {connection.number for _, connection in ends}
        for peer in sorted(self.hosts):
            connection = self._end(peer, host.node_id) if peer != host.node_id else None
            if connection is None or connection.number in known:
                continue
            # Made, but the process has not looked at it yet.
            if silent:
                self._expect_silence(host.node_id, peer, connection)
            else:
                self._send_fin(host.node_id, peer, connection)

    def paused(self, host: Host) -> None:
        """It sends nothing any more, keep-alives neither."""
        wire = host.wire
        for peer, connection in sorted(wire.ends.items()) if wire is not None else ():
            self._expect_silence(host.node_id, peer, connection)

    # ------------------------------------------------------------------ faults

    def block(self, source: str, target: str) -> None:
        """A black hole from source to target; bytes wait in it. Counted: as many `unblock` end it."""
        key = (source, target)
        self._blocked[key] = self._blocked.get(key, 0) + 1
        if self._blocked[key] == 1:
            self._blocked_at[key] = self.scheduler.now
            connection = self._end(target, source)
            if connection is not None:
                self._expect_silence(source, target, connection)

    def unblock(self, source: str, target: str) -> None:
        key = (source, target)
        self._blocked[key] -= 1
        if self._blocked[key]:
            return
        del self._blocked[key]
        connection = self._end(target, source)
        if connection is None:
            return
        pause_s = self.rng.uniform(0.0, 0.3)  # TCP tries again by and by
        for lane in connection.lanes[source]:
            owed, lane.owed = lane.owed, 0
            for _ in range(owed):
                self._plan(connection, source, target, lane, pause_s + self.weather.delay_s(self.rng))

    def refuse(self, one: str, other: str) -> None:
        """Connections break and cannot be made, and both ends are told so (counted like `block`)."""
        pair = frozenset((one, other))
        self._refused[pair] = self._refused.get(pair, 0) + 1
        self.reset(one, other)

    def allow(self, one: str, other: str) -> None:
        pair = frozenset((one, other))
        self._refused[pair] -= 1
        if not self._refused[pair]:
            del self._refused[pair]

    def reset(self, one: str, other: str) -> None:
        """The connection breaks; what is under way is lost; each end learns it in its own time."""
        for here, there in ((one, other), (other, one)):
            connection = self._end(here, there)
            if connection is None:
                continue
            for lane in connection.lanes[there]:
                lane.waiting.clear()
                lane.owed = 0
            delay_s = self.rng.uniform(0.0, 0.05)
            self.scheduler.after(
                delay_s, lambda here=here, there=there, c=connection: self._close(here, there, c)
            )

    def lag(self, source: str, target: str, most_s: float) -> None:
        """A queue on the way grows: bytes come later and later, but never stop coming."""
        self._lags[source, target] = (self.scheduler.now, most_s)

    def end_lag(self, source: str, target: str) -> None:
        self._lags.pop((source, target), None)

    def _lag_s(self, source: str, target: str) -> float:
        if (source, target) not in self._lags:
            return 0.0
        began, most_s = self._lags[source, target]
        return min(most_s, 2 * (self.scheduler.now - began))

    def passes(self, source: str, target: str) -> bool:
        """Whether bytes from source reach target at present (requests outside the log ask this)."""
        return (source, target) not in self._blocked and frozenset((source, target)) not in self._refused

    # ------------------------------------------------------------------ messages

    def send(self, wire: Wire, target: str, message: Any) -> bool:
        connection = wire.ends[target]
        source = wire.host.node_id
        bulk = self._is_bulk(message)
        lane = connection.lanes[source][bulk]
        if bulk and len(lane.waiting) >= self._bulk_limit:
            return False
        self.messages += 1
        lane.waiting.append(message)
        delay_s = wire.host.stall_s + self.weather.delay_s(self.rng) + self._lag_s(source, target)
        self._plan(connection, source, target, lane, delay_s)
        return True

    def _send_fin(self, source: str, target: str, connection: Connection) -> None:
        lane = connection.lanes[source][0]
        lane.waiting.append(_FIN)
        # After everything else that is under way in this direction.
        rest_s = max(0.0, connection.lanes[source][1].due_s - self.scheduler.now)
        self._plan(connection, source, target, lane, rest_s + self.weather.delay_s(self.rng))

    def _plan(self, connection: Connection, source: str, target: str, lane: _Lane, delay_s: float) -> None:
        lane.due_s = max(lane.due_s, self.scheduler.now + delay_s)
        self.scheduler.at(lane.due_s, lambda: self._arrive(connection, source, target, lane))

    def _arrive(self, connection: Connection, source: str, target: str, lane: _Lane) -> None:
        if not lane.waiting:
            return
        if (source, target) in self._blocked:
            lane.owed += 1
            return
        message = lane.waiting.popleft()
        if message is _FIN:
            self._close(target, source, connection)
            return
        host = self.hosts[target]
        if self._end(target, source) is connection:
            host.enqueue(lambda: self._hand_over(host, source, connection, message))

    def _hand_over(self, host: Host, source: str, connection: Connection, message: Any) -> None:
        wire = host.wire
        if wire is not None and wire.ends.get(source) is connection:
            self.trace.add(self.scheduler.now, f"{source}->{host.node_id}", "message", message)
            wire.receive(source, message)

    # ------------------------------------------------------------------ connections

    def end_closed(self, here: str, there: str, connection: Connection) -> None:
        """The process at `here` has let go of the connection."""
        self._send_fin(here, there, connection)
        if here > there:
            self._dial_in(here, there, self.rng.uniform(0.05, 0.3))

    def _end(self, here: str, there: str) -> Connection | None:
        host = self.hosts.get(here)
        if host is None or host.wire is None:
            return None
        return host.wire.ends.get(there)

    def _close(self, here: str, there: str, connection: Connection) -> None:
        if self._end(here, there) is connection:
            host = self.hosts[here]
            wire = host.wire

            def close() -> None:
                if host.wire is wire and wire is not None:
                    wire.close_end(there, connection)

            host.enqueue(close)

    def _expect_silence(self, source: str, target: str, connection: Connection) -> None:
        """Nothing comes from source any more; unless that ends, target gives the connection up."""
        began = self.scheduler.now
        self.scheduler.after(
            self.dead_after_s + self.rng.uniform(0.0, 0.1),
            lambda: self._give_up(source, target, connection, began),
        )

    def _give_up(self, source: str, target: str, connection: Connection, began: float) -> None:
        key = (source, target)
        host = self.hosts[source]
        silent = key in self._blocked and self._blocked_at[key] <= began
        gone = not host.is_running or host.is_paused or self._end(source, target) is not connection
        if silent or gone:
            self._close(target, source, connection)

    def _dial_in(self, one: str, other: str, delay_s: float) -> None:
        dialer, target = max(one, other), min(one, other)
        host = self.hosts.get(dialer)
        if host is None:
            return
        wire = host.wire
        self.scheduler.after(delay_s, lambda: self._dial(dialer, target, wire))

    def _dial(self, dialer: str, target: str, wire: Wire | None) -> None:
        host = self.hosts[dialer]
        if wire is None or host.wire is not wire or not host.is_running or target in wire.ends:
            return
        peer = self.hosts.get(target)
        answers = peer is not None and peer.is_running and not peer.is_paused and not host.is_paused
        if (
            not answers
            or not self.passes(dialer, target)
            or not self.passes(target, dialer)
            or not self.are_fitting(dialer, target)
        ):
            self._dial_in(dialer, target, 0.3)
            return
        assert peer is not None
        self._numbers += 1
        connection = Connection(self._numbers, dialer, target)
        self.trace.add(self.scheduler.now, dialer, "dials", target, connection.number)
        accepting = peer.wire
        first_s = 2 * self.weather.delay_s(self.rng)

        def establish() -> None:
            if host.wire is wire and target not in wire.ends:
                wire.open_end(target, connection)
                # The proof travels before everything that the dialer sends from here on.
                for lane in connection.lanes[dialer]:
                    lane.due_s = self.scheduler.now + last_s
                self.scheduler.after(last_s, arrive)

        def arrive() -> None:
            if peer.is_running:
                peer.enqueue(accept)
            else:
                self._close(dialer, target, connection)

        def accept() -> None:
            if peer.wire is accepting and accepting is not None and peer.is_running:
                if self._end(dialer, target) is connection:
                    accepting.open_end(dialer, connection)
                else:
                    self._dial_in(dialer, target, 0.3)
            else:
                self._close(dialer, target, connection)

        last_s = self.weather.delay_s(self.rng)
        self.scheduler.after(first_s, lambda: host.enqueue(establish))


def _nothing() -> None:
    return None
