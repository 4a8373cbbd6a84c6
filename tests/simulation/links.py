"""Runs of the real transport alone, over sockets in memory: what its node is told of links and messages.

Every process numbers its connections to a peer, and on each its messages; so the other side can tell what it
is given: `Hello` opens a connection, then heartbeats and appends are counted, each in their own lane.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

from cluster.raft.handshake import Identity
from cluster.raft.journal import checksum
from cluster.raft.messages import Append, Heartbeat, WireEntry
from cluster.raft.settings import RaftSettings
from cluster.raft.transport import TcpTransport
from tests.simulation.clock import NodeClock, Scheduler
from tests.simulation.invariants import Violation
from tests.simulation.tcp import World

if TYPE_CHECKING:
    from collections.abc import Callable

    from pysyncobj.node import Node

    from cluster.raft.messages import Message

SETTINGS = RaftSettings(
    election_timeout_ms=(150, 300),
    heartbeat_ms=50,
    append_bytes=4096,
    inflight_bytes=20_000,
    fragment_bytes=1024,
)
_ACTIVE_S = 6.0
_PATIENCE_S = 4.0
_TURN_S = 0.01


class Link:
    """What a process was told of its link to one peer."""

    def __init__(self) -> None:
        self.is_up = False
        self.number = 0
        """Of the connection, counted here; carried by what is sent."""
        self.sent = [0, 0]
        self.got: tuple[int, int] | None = None
        """(process, connection) of the peer's messages on the present connection; None: none came yet."""
        self.heard = [0, 0]
        self.newest = (0, 0)
        self.received = 0
        self.silent_since = 0.0


class Program:
    """One process with the real transport, from its start to its end; `life` counts those of its host."""

    def __init__(self, run: LinkRun, host: str, life: int, kind: type[TcpTransport]) -> None:
        self.run = run
        self.host = host
        self.life = life
        self.links = {other: Link() for other in run.hosts if other != host}
        self.is_over = False
        self.paused_until = 0.0
        clock = NodeClock(run.scheduler, run.rng.uniform(0, 100), 1 + run.rng.uniform(-0.01, 0.01))
        self.wire = run.here(
            host,
            lambda: kind(
                Identity("links", host, b"secret"),
                {name: (name, 1) for name in run.hosts},
                (host, 1),
                SETTINGS,
                clock=clock,
                rng=random.Random(run.rng.random()),
            ),
        )
        self.wire.setOnNodeConnectedCallback(self._on_connected)
        self.wire.setOnNodeDisconnectedCallback(self._on_disconnected)
        self.wire.setOnMessageReceivedCallback(self._on_message)
        run.here(host, self.wire.open)

    def turn(self) -> None:
        """What a pass of the raft thread is: the network's news, then messages of its own."""
        self.run.here(self.host, lambda: self.wire.poll(0.0))
        told = tuple(sorted(peer for peer, link in self.links.items() if link.is_up))
        if tuple(sorted(self.wire.connected)) != told:
            raise Violation("links are told of", f"{self.host} has {self.wire.connected}, its node {told}")
        rng = self.run.rng
        for peer in told:
            if self.run.is_talking and rng.random() < 0.4:
                self.say(peer, is_bulk=rng.random() < 0.3)
        self._check_silence()

    def say(self, peer: str, *, is_bulk: bool) -> None:
        link = self.links[peer]
        number = link.sent[is_bulk]
        message: Message = Heartbeat(self.life, link.number, 0, number)
        if is_bulk:
            payload = bytes(self.run.rng.choice((10, 500, 5000)))
            entry = WireEntry(1, checksum(number + 1, 1, payload), payload)
            message = Append(self.life, number, 0, link.number, 0, (entry,))
        if self.run.here(self.host, lambda: self.wire.send(self.wire._peers[peer].node, message)):
            link.sent[is_bulk] += 1

    # ------------------------------------------------------------------ what the node is told

    def _on_connected(self, node: Node) -> None:
        link = self.links[node.id]
        if link.is_up:
            raise Violation("links are told of", f"{self.host}: {node.id} connects, and was not lost before")
        link.is_up = True
        link.number += 1
        link.sent, link.heard, link.got = [0, 0], [0, 0], None

    def _on_disconnected(self, node: Node) -> None:
        link = self.links[node.id]
        if not link.is_up:
            raise Violation("links are told of", f"{self.host}: {node.id} is lost, and was not connected")
        link.is_up = False

    def _on_message(self, node: Node, message: Any) -> None:
        link = self.links[node.id]
        is_bulk = isinstance(message, Append)
        origin = (message.term, message.commit)
        number = message.prev_index if is_bulk else message.round
        what = f"{self.host} is given message {number} of connection {origin} of {node.id}"
        if not link.is_up:
            raise Violation("messages belong to a link", f"{what}, to which it has none")
        if link.got is None:
            link.got = origin
        if link.got != origin or origin < link.newest:
            raise Violation(
                "messages belong to a link", f"{what}, after some of {max(link.got, link.newest)}"
            )
        if number != link.heard[is_bulk]:
            raise Violation("messages in order", f"{what}, after {link.heard[is_bulk]} before it")
        link.newest = origin
        link.heard[is_bulk] += 1
        link.received += 1

    def _check_silence(self) -> None:
        """A black hole ends a link, and is known in time."""
        for peer, link in self.links.items():
            since = self.run.silent_since(self, peer)
            bound_s = SETTINGS.dead_after_s + 0.5
            if link.is_up and since is not None and self.run.scheduler.now - since > bound_s:
                raise Violation("links are told of", f"{self.host} has a link to {peer} that says nothing")


class LinkRun:
    """One seed: three hosts, links in trouble, then healed."""

    def __init__(self, seed: int, kind: type[TcpTransport] = TcpTransport) -> None:
        self.seed = seed
        self.rng = random.Random(f"links {seed}")
        self.scheduler = Scheduler()
        self.world = World(self.scheduler, random.Random(f"tcp {seed}"))
        self.hosts = ["10.0.0.1", "10.0.0.2", "10.0.0.3"]
        self.is_talking = True
        self.counts = {"messages": 0, "connections": 0}
        self._kind = kind
        self._is_over = False
        self._lives = dict.fromkeys(self.hosts, 0)
        self._silent: dict[tuple[str, str], float] = {}
        self.programs: dict[str, Program] = {}

    def here(self, host: str, call: Callable[[], Any]) -> Any:
        """Code that runs on this host: sockets it makes are the host's."""
        self.world.here = host
        return call()

    def run(self) -> None:
        """Raises Violation."""
        with self.world.patched():
            for host in self.hosts:
                self._start(host)
            self._strike()
            self.scheduler.run_until(_ACTIVE_S)
            self._heal()
            if not self.scheduler.run_until(self.scheduler.now + _PATIENCE_S, self._is_whole):
                told = {
                    host: [peer for peer, link in program.links.items() if link.is_up]
                    for host, program in self.programs.items()
                }
                raise Violation("liveness", f"not all talk {_PATIENCE_S} s after the heal: {told}")
            self._check_rest()

    # ------------------------------------------------------------------ processes

    def _start(self, host: str) -> None:
        self.world.dark.discard(host)
        self._lives[host] += 1
        program = self.programs[host] = Program(self, host, self._lives[host], self._kind)

        def turn() -> None:
            if program.is_over:
                return
            if self.scheduler.now >= program.paused_until:
                program.turn()
            self.scheduler.after(self.rng.uniform(0.2, 1) * _TURN_S, turn)

        turn()

    def _end(self, host: str, *, power: bool) -> None:
        program = self.programs[host]
        if program.is_over:
            return
        program.is_over = True
        if power:
            self.world.lose_power(host)
        else:
            self.here(host, program.wire.destroy)
        self.scheduler.after(self.rng.uniform(0.05, 0.6), lambda: self._start(host))

    # ------------------------------------------------------------------ faults

    def _strike(self) -> None:
        if self._is_over:
            return
        rng = self.rng
        one, other = rng.sample(self.hosts, 2)
        kind = rng.choice(
            ("reset", "hole", "hole", "hole", "one-way", "one-way", "kill", "power", "pause", "slow")
        )
        seconds = rng.choice((0.1, 0.4, 1.0)) * rng.uniform(0.3, 1.5)
        if kind == "reset":
            self.world.reset(one, other)
        elif kind in {"hole", "one-way"}:
            self._block(one, other, seconds)
            if kind == "hole":
                self._block(other, one, seconds + rng.choice((0.0, 0.0, 0.2)))
        elif kind == "pause":
            program = self.programs[one]
            program.paused_until = self.scheduler.now + seconds
        elif kind == "slow":
            self.world.most_s = rng.choice((0.002, 0.02, 0.1))
        else:
            self._end(one, power=kind == "power")
        self.scheduler.after(rng.expovariate(4), self._strike)

    def _block(self, source: str, target: str, seconds: float) -> None:
        if (source, target) in self._silent:
            return
        self._silent[source, target] = self.scheduler.now
        self.world.block(source, target)
        self.scheduler.after(seconds, lambda: self._unblock(source, target))

    def _unblock(self, source: str, target: str) -> None:
        if self._silent.pop((source, target), None) is not None:
            self.world.unblock(source, target, self.rng.choice((0.0, 0.3, 1.0)))

    def _heal(self) -> None:
        self._is_over = True
        for source, target in list(self._silent):
            self._unblock(source, target)
        self.world.most_s = 0.002
        for program in self.programs.values():
            program.paused_until = 0.0
            for link in program.links.values():
                link.received = 0

    # ------------------------------------------------------------------ what is known

    def silent_since(self, program: Program, peer: str) -> float | None:
        """Since when nothing can have come from the peer; None: something can."""
        since = self._silent.get((peer, program.host))
        if since is None:
            return None
        # What a pause of its own kept it from reading counts as read when it goes on.
        return max(since, program.paused_until)

    def _is_whole(self) -> bool:
        return all(
            link.is_up and link.received > 3
            for program in self.programs.values()
            for link in program.links.values()
        ) and not any(program.is_over for program in self.programs.values())

    def _check_rest(self) -> None:
        """Links that are well stay, though nobody speaks; all other sockets are given up, also handshakes
        that hang."""
        before = self._numbers()
        self.is_talking = False
        self.scheduler.run_until(self.scheduler.now + 4.5)
        if self._numbers() != before:
            raise Violation("a healthy link stays", f"{before} have become {self._numbers()}")
        for host in self.hosts:
            held = len(self.programs[host].wire._sockets.connections)
            if held != len(self.hosts) - 1:
                raise Violation("no link is left over", f"{host} holds {held} connections")

    def _numbers(self) -> list[int]:
        return [link.number for program in self.programs.values() for link in program.links.values()]


def run_links(seed: int, kind: type[TcpTransport] = TcpTransport) -> Violation | None:
    """What a seed breaks, if anything; every exception of the transport is a violation too."""
    return judged(LinkRun(seed, kind))


def judged(run: LinkRun) -> Violation | None:
    """What a run breaks."""
    try:
        run.run()
    except Violation as violation:
        return violation
    except Exception as error:
        return Violation(f"exception {type(error).__name__}", str(error))
    return None
