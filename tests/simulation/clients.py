"""Clients behind one balancer: they write, read, retry with the same key, remember what they were told."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cluster.errors import ClusterError, NotLeader, OutcomeUnknown
from cluster.reads import Guarantee, Level
from cluster.state.commands import CreateCollection, DeleteCollection, DeleteRecords, WriteRecords

if TYPE_CHECKING:
    import random

    from cluster.state.commands import Command
    from tests.simulation.cluster import Simulation

TENANT, DATABASE = "default_tenant", "default_database"
CATALOGUE = ""


@dataclass(slots=True)
class Write:
    """One write until its fate is known, or given up."""

    key: str
    command: Command
    collection_id: str
    begun_s: float
    may_have_happened: bool = False
    attempts: int = 0
    is_done: bool = False


class Balancer:
    """What all clients of one balancer share: who leads, and how far each collection was seen."""

    def __init__(self) -> None:
        self.leader: str | None = None
        self.tokens: dict[str, int] = {}
        self.shown: dict[str, int] = {}
        self.collections: dict[str, str] = {}

    def token(self, collection_id: str) -> int:
        return max(self.tokens.get(collection_id, 0), self.tokens.get(CATALOGUE, 0))

    def saw(self, collection_id: str, token: int) -> None:
        self.tokens[collection_id] = max(self.tokens.get(collection_id, 0), token)


class Client:
    """One request at a time, with pauses; a new one only while the simulation wants traffic."""

    def __init__(self, simulation: Simulation, number: int, rng: random.Random) -> None:
        self._simulation = simulation
        self._scheduler = simulation.scheduler
        self._balancer = simulation.balancer
        self._rng = rng
        self.number = number
        self._count = 0
        self.is_busy = False
        self.is_helper = False
        """It does only what it is told to."""

    def start(self) -> None:
        self._scheduler.after(self._rng.uniform(0.0, 0.5), self._next)

    def _next(self) -> None:
        if not self._simulation.wants_traffic:
            self.is_busy = False
            return
        self.is_busy = True
        names = list(self._balancer.collections)
        dice = self._rng.random()
        if not names or dice < 0.03:
            self._begin(*self._create())
        elif dice < 0.04:
            name = self._rng.choice(names)
            self._begin(DeleteCollection(TENANT, DATABASE, name), self._balancer.collections[name])
        elif dice < 0.6:
            self._begin(*self._records(self._balancer.collections[self._rng.choice(names)]))
        else:
            self._read(self._balancer.collections[self._rng.choice(names)])

    def _rest(self) -> None:
        if self.is_helper:
            return
        self._scheduler.after(self._rng.expovariate(1 / self._simulation.plan.think_s), self._next)

    # ------------------------------------------------------------------ writes

    def write_once(self) -> None:
        """One write, again until it is answered."""
        self._begin(*self._create())

    def read_soon(self, leader: str) -> None:
        """Reads that waited for a leader reach it as soon as it leads."""
        if self._simulation.wants_traffic and self._rng.random() < 0.5:
            names = sorted(self._balancer.collections.values())
            for name in names:
                self._scheduler.after(
                    self._rng.uniform(0, 0.004),
                    lambda name=name: self._read(name, Level.LINEARIZABLE, leader),
                )

    def _create(self) -> tuple[Command, str]:
        name = f"c{self._rng.randrange(3)}"
        collection_id = f"{name}-{self.number}-{self._count}"
        get = self._rng.random() < 0.8
        return CreateCollection(TENANT, DATABASE, name, collection_id, get, None, None, None), collection_id

    def _records(self, collection_id: str) -> tuple[Command, str]:
        rng = self._rng
        kind = rng.choice(("add", "upsert", "upsert", "update", "delete", "delete-where"))
        if kind == "delete-where":
            where = f'{{"parity": {rng.randrange(2)}}}'
            limit = rng.choice((None, 1, 3))
            return DeleteRecords(collection_id, None, where, None, limit), collection_id
        ids = tuple(f"r{at}" for at in rng.sample(range(12), rng.choice((1, 1, 2, 5))))
        if kind == "delete":
            return DeleteRecords(collection_id, ids, None, None, None), collection_id
        dimension = 3 if rng.random() < 0.03 else 2
        vectors: tuple[bytes, ...] | None = tuple(
            struct.pack(f"<{dimension}f", *(rng.random() for _ in range(dimension))) for _ in ids
        )
        if kind == "update" and rng.random() < 0.5:
            vectors = None
        if self._simulation.poison.wants() and kind != "update":
            return self._poisoned(kind, collection_id, ids, vectors), collection_id
        padding = "x" * rng.choice((0, 0, 100, 900))
        documents = tuple(f"{self.number}.{self._count}.{at}{padding}" for at in range(len(ids)))
        metadatas = tuple({"n": rng.randrange(10)} for _ in ids)
        return (
            WriteRecords(
                kind,  # type: ignore[arg-type]
                collection_id,
                ids,
                None if vectors is None else dimension,
                vectors,
                None if kind == "update" and rng.random() < 0.3 else metadatas,
                documents,
                None,
            ),
            collection_id,
        )

    def _poisoned(
        self, kind: str, collection_id: str, ids: tuple[str, ...], vectors: tuple[bytes, ...] | None
    ) -> Command:
        """One on whose last record engines fail."""
        name = f"{self.number}.{self._count}"
        documents = [f"{name}.{at}" for at in range(len(ids))]
        documents[-1] = self._simulation.poison.brew(name, self._scheduler.now)
        dimension = None if vectors is None else len(vectors[0]) // 4
        metadatas = tuple({"n": 1} for _ in ids)
        return WriteRecords(kind, collection_id, ids, dimension, vectors, metadatas, tuple(documents), None)  # type: ignore[arg-type]

    def _begin(self, command: Command, collection_id: str) -> None:
        self._count += 1
        write = Write(f"{self.number}-{self._count}", command, collection_id, self._scheduler.now)
        self._attempt(write)
        if self._rng.random() < 0.03:
            self._attempt(write)  # the same key twice at once

    def _attempt(self, write: Write) -> None:
        write.attempts += 1
        target = self._balancer.leader
        if target is None or self._rng.random() < 0.05:
            target = self._rng.choice(self._simulation.ids)
        is_answered = False
        at_commit = isinstance(write.command, WriteRecords) and self._rng.random() < 0.2

        def answered(value: Any, error: ClusterError | None) -> None:
            nonlocal is_answered
            if not is_answered:
                is_answered = True
                self._on_answer(write, target, value, error)

        timeout_s = self._simulation.plan.write_timeout_s + 1
        self._scheduler.after(
            timeout_s, lambda: answered(None, OutcomeUnknown("the client's patience is over"))
        )
        self._simulation.request(
            target,
            lambda process, reply: process.write(
                write.command, write.key, write.key.encode(), reply, at_commit=at_commit
            ),
            answered,
        )

    def _on_answer(self, write: Write, target: str, value: Any, error: ClusterError | None) -> None:
        write.attempts -= 1
        if error is None:
            outcome, index = value
            judge = self._simulation.judge
            if outcome is None:
                judge.on_commit_answer(f"k:{write.key}", write.collection_id, index)
            else:
                judge.on_write_answer(f"k:{write.key}", write.collection_id, outcome, index)
            self._balancer.leader = target
            self._learn(write, outcome, index)
            self._finish(write)
            return
        if isinstance(error, NotLeader):
            self._balancer.leader = error.leader
        elif self._balancer.leader == target:
            self._balancer.leader = None
        if isinstance(error, OutcomeUnknown):
            write.may_have_happened = True
        if write.is_done or write.attempts:
            return
        patience_s = 4.0 if write.may_have_happened else 1.5
        is_over = self._scheduler.now - write.begun_s > patience_s and self._simulation.wants_traffic
        gives_up = write.may_have_happened and self._rng.random() < 0.1 and self._simulation.wants_traffic
        if is_over or gives_up:
            if not write.may_have_happened:
                self._simulation.judge.on_write_refused(f"k:{write.key}")
                self._simulation.refused.append(f"k:{write.key}")
            self._finish(write)
        else:
            self._scheduler.after(self._rng.uniform(0.01, 0.1), lambda: self._attempt(write))

    def _finish(self, write: Write) -> None:
        if not write.is_done:
            write.is_done = True
            self._rest()

    def _learn(self, write: Write, outcome: Any, index: int) -> None:
        balancer = self._balancer
        balancer.saw(write.collection_id, index)
        self._show(write.collection_id, index)
        if outcome is None:
            return
        match write.command:
            case CreateCollection(name=name) if outcome.status == 200:
                made = outcome.body["$collection"]
                balancer.collections[name] = made
                balancer.saw(CATALOGUE, index)
                self._show(made, index)
            case DeleteCollection(name=name):
                balancer.saw(CATALOGUE, index)
                if self._rng.random() < 0.5:  # else reads and writes of a collection that is gone
                    balancer.collections.pop(name, None)
            case _:
                if outcome.status == 404 and self._rng.random() < 0.3:
                    for name, held in list(balancer.collections.items()):
                        if held == write.collection_id:
                            del balancer.collections[name]

    def _show(self, collection_id: str, index: int) -> None:
        shown = self._balancer.shown
        shown[collection_id] = max(shown.get(collection_id, 0), index)

    # ------------------------------------------------------------------ reads

    def read_once(self, target: str) -> None:
        """One linearizable read of a collection that can be read at `target`, again until it is answered."""
        broken = self._simulation.processes[target].applier.broken_collections()
        names = [name for name in self._simulation.judge.acked if name not in broken]
        name = max(names, default="none")
        self._read(name, Level.LINEARIZABLE, target)

    def _read(self, collection_id: str, level: Level | None = None, target: str | None = None) -> None:
        level = level or self._rng.choice((Level.LINEARIZABLE, Level.SESSION, Level.EVENTUAL))
        balancer = self._balancer
        required = 0
        min_index = 0
        if level is Level.LINEARIZABLE:
            required = self._simulation.judge.acked.get(collection_id, 0)
        elif level is Level.SESSION:
            min_index = balancer.token(collection_id)
            required = balancer.shown.get(collection_id, 0)
        insists = target is not None
        target = target or self._rng.choice(self._simulation.ids)
        guarantee = Guarantee(level, min_index)
        is_answered = False

        def answered(value: Any, error: ClusterError | None) -> None:
            nonlocal is_answered
            if is_answered:
                return
            is_answered = True
            if error is None:
                (digest, position), token, applied_index = value
                self._simulation.judge.on_read_answer(
                    f"{level} read at {target}",
                    collection_id,
                    required,
                    digest,
                    position,
                    applied_index,
                    token,
                )
                balancer.saw(collection_id, token)
                if position is not None:
                    self._show(collection_id, self._simulation.judge.shown_index(collection_id, position))
            elif insists and not self._simulation.wants_traffic:
                self._scheduler.after(0.05, lambda: self._read(collection_id, level, target))
                return
            self._rest()

        self._scheduler.after(
            self._simulation.plan.read_timeout_s + 1,
            lambda: answered(None, OutcomeUnknown("the client's patience is over")),
        )
        self._simulation.request(
            target, lambda process, reply: process.read(guarantee, collection_id, reply), answered
        )
