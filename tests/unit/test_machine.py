"""The machine against a naive model: random histories, crashes at every step, any batch boundaries."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cluster.apply.remembering import remember
from cluster.chroma.interface import Get, Records
from cluster.state.catalog import Outcome
from cluster.state.commands import (
    CreateCollection,
    CreateDatabase,
    CreateTenant,
    DeleteCollection,
    DeleteDatabase,
    DeleteRecords,
    Group,
    Proposal,
    Reset,
    UpdateCollection,
    UpdateTenant,
    WriteRecords,
)
from cluster.state.machine import Limits, Machine, Step
from cluster.state.undo import Before
from cluster.state.work import Call, Remember, Resolve

TENANT, DATABASE = "default_tenant", "default_database"
LIMITS = Limits(window_ms=60, max_requests=6, max_records=4)
REFUSED = Outcome(400, {"error": "InvalidArgumentError", "message": "bad metadata"})


class EngineRefusal(Exception):
    pass


@dataclass
class FakeEngine:
    """Chroma's semantics on dictionaries, with ids of its own order; counts its calls."""

    collections: dict[str, dict[str, Any]] = field(default_factory=dict)
    calls: list[Any] = field(default_factory=list)

    def apply(self, call: Call) -> None:
        command = call.command
        self.calls.append(command)
        match command:
            case CreateCollection():
                fresh = {"name": command.name, "metadata": command.metadata, "records": {}}
                self.collections.setdefault(command.collection_id, fresh)
            case UpdateCollection():
                collection = self.collections[command.collection_id]
                if command.new_name is not None:
                    collection["name"] = command.new_name
                if command.new_metadata is not None:
                    collection["metadata"] = command.new_metadata
            case WriteRecords():
                assert len(command.ids) <= LIMITS.max_records
                self.write(command)
            case DeleteRecords():
                assert command.where is None
                assert command.limit is None
                for record_id in command.ids or ():
                    self.collections[command.collection_id]["records"].pop(record_id, None)
            case _:
                pass
        for dropped in call.dropped:
            self.collections.pop(dropped, None)

    def write(self, command: WriteRecords) -> None:
        if any("bad" in (metadata or {}) for metadata in command.metadatas or ()):
            raise EngineRefusal
        records = self.collections[command.collection_id]["records"]
        for n, record_id in enumerate(command.ids):
            record = records.get(record_id)
            if command.kind == "add" and record is not None:
                continue
            if record is None:
                if command.kind == "update":
                    continue
                record = records[record_id] = {"metadata": {}}
            for column, values in (
                ("embedding", command.embeddings),
                ("document", command.documents),
                ("uri", command.uris),
            ):
                if values is not None and values[n] is not None:
                    record[column] = values[n]
            for key, value in ((command.metadatas[n] if command.metadatas else None) or {}).items():
                if value is None:
                    record["metadata"].pop(key, None)
                else:
                    record["metadata"][key] = value

    def get(self, collection_id: str, wanted: Get) -> Records:
        held = self.collections[collection_id]["records"]
        ids = [record_id for record_id in reversed(wanted.ids or ()) if record_id in held]
        records = [held[record_id] for record_id in ids]
        vectors = [unpacked(record.get("embedding")) for record in records]
        documents = [record.get("document") for record in records]
        uris = [record.get("uri") for record in records]
        return Records(ids, vectors, documents, uris, [record["metadata"] for record in records])

    def resolve(self, command: DeleteRecords) -> list[str]:
        where = json.loads(command.where or "{}")
        records = self.collections[command.collection_id]["records"]
        found = [
            record_id
            for record_id, record in records.items()
            if where.items() <= record["metadata"].items()
            and (command.ids is None or record_id in command.ids)
        ]
        return found[: command.limit]


def unpacked(vector: bytes | None) -> Any:
    return None if vector is None else list(memoryview(vector).cast("f"))


class NaiveModel:
    """What the answers should be, one proposal after the other, without crashes, steps or merging."""

    def __init__(self) -> None:
        self.engine = FakeEngine()
        self.answered: list[tuple[str, bytes, Outcome, int]] = []
        self.applied: list[str] = []
        self.time_ms = 0
        self._forget_all()

    def _forget_all(self) -> None:
        self.tenants = {TENANT}
        self.databases = {(TENANT, DATABASE)}
        self.collections: dict[str, dict[str, Any]] = {}

    def apply(self, group: Group) -> list[tuple[str, Outcome]]:
        self.time_ms = max(self.time_ms, group.time_ms)
        return [(proposal.request_id, self._answer(proposal)) for proposal in group.proposals]

    def _answer(self, proposal: Proposal) -> Outcome:
        for request_id, digest, outcome, time_ms in self.answered:
            if request_id == proposal.request_id and self.time_ms - time_ms <= LIMITS.window_ms:
                if digest == proposal.digest:
                    return outcome
                return Outcome(422, "reused")
        outcome = self._decide(proposal.command)
        self.applied.append(proposal.request_id)
        self.answered.append((proposal.request_id, proposal.digest, outcome, self.time_ms))
        self.answered = [a for a in self.answered if self.time_ms - a[3] <= LIMITS.window_ms]
        self.answered = self.answered[-LIMITS.max_requests :]
        return outcome

    def _decide(self, command: Any) -> Outcome:
        match command:
            case CreateTenant(name):
                if name in self.tenants:
                    return Outcome(409, name)
                self.tenants.add(name)
            case UpdateTenant():
                pass
            case CreateDatabase(tenant, name):
                if (tenant, name) in self.databases:
                    return Outcome(409, name)
                self.databases.add((tenant, name))
            case DeleteDatabase(tenant, name):
                if (tenant, name) not in self.databases:
                    return Outcome(404, name)
                self.databases.remove((tenant, name))
                for key, collection in list(self.collections.items()):
                    if collection["place"] == (tenant, name):
                        self._drop(key)
            case CreateCollection():
                place = (command.tenant, command.database)
                existing = self._named(place, command.name)
                if existing is not None:
                    if command.get_or_create:
                        return Outcome(200, {"$collection": existing})
                    return Outcome(409, command.name)
                if place not in self.databases:
                    return Outcome(400, command.database)
                self.collections[command.collection_id] = {"place": place, "name": command.name}
                self.engine.apply(Call(command, None, 0))
                return Outcome(200, {"$collection": command.collection_id})
            case DeleteCollection(tenant, database, name):
                found = self._named((tenant, database), name)
                if found is None:
                    return Outcome(404, name)
                self._drop(found)
            case UpdateCollection():
                collection = self.collections.get(command.collection_id)
                if collection is None:
                    return Outcome(404, command.collection_id)
                name = command.new_name
                if name is not None:
                    if self._named(collection["place"], name) not in (None, command.collection_id):
                        return Outcome(500, name)
                    collection["name"] = name
                self.engine.apply(Call(command, None, 0))
            case Reset():
                self._forget_all()
                self.engine.collections.clear()
                return Outcome(200, True)
            case WriteRecords():
                return self._write(command)
            case DeleteRecords():
                if command.collection_id not in self.collections:
                    return Outcome(404, command.collection_id)
                ids = command.ids or ()
                if command.where is not None:
                    ids = tuple(self.engine.resolve(command))
                self.engine.apply(Call(DeleteRecords(command.collection_id, ids, None, None, None), None, 0))
                return Outcome(200, {"deleted": len(ids)})
        return Outcome(200, {})

    def _write(self, command: WriteRecords) -> Outcome:
        collection = self.collections.get(command.collection_id)
        if collection is None:
            return Outcome(404, command.collection_id)
        if not command.ids:
            return Outcome(201 if command.kind == "add" else 200, {})
        for key, value in (("model", command.model), ("dimension", command.dimension)):
            if value is not None and collection.get(key, value) != value:
                return Outcome(400, key)
        if "" in command.ids:
            return Outcome(400, "empty")
        values = [v for metadata in command.metadatas or () for v in (metadata or {}).values()]
        if any(isinstance(value, dict) for value in values):
            return Outcome(501, "sparse")
        try:
            self.engine.write(command)
        except EngineRefusal:
            bad = next(n for n, one in enumerate(command.metadatas or ()) if "bad" in (one or {}))
            if bad >= LIMITS.max_records:  # parts were written, and undone: Chroma keeps the dimension
                self._fix(collection, command)
            return Outcome(400, "engine")
        self._fix(collection, command)
        return Outcome(201 if command.kind == "add" else 200, {})

    def _fix(self, collection: dict[str, Any], command: WriteRecords) -> None:
        for key, value in (("model", command.model), ("dimension", command.dimension)):
            if value is not None:
                collection[key] = value

    def _named(self, place: tuple[str, str], name: str) -> str | None:
        for key, collection in self.collections.items():
            if (collection["place"], collection["name"]) == (place, name):
                return key
        return None

    def _drop(self, key: str) -> None:
        del self.collections[key]
        self.engine.collections.pop(key)


class Replica:
    """The applier's loop around a machine, with a store, an engine and planned crashes."""

    def __init__(self, limits: Limits = LIMITS) -> None:
        self.limits = limits
        self.store: dict[str, bytes] = {}
        self.machine = Machine.load((), limits)
        self.engine = FakeEngine()
        self.outcomes: list[tuple[str, Outcome, int]] = []
        self.steps: list[Step] = []

    def apply(self, entries: list[Any], crash: str | None = None) -> bool:
        """One step, crashing as asked ("called": after the engine call, "stored": after the store)."""
        step = self.machine.next_step(entries)
        if step is None:
            return False
        if isinstance(step.work, Resolve):
            step = self.machine.resolved(step, self.engine.resolve(step.work.command))
        elif isinstance(step.work, Remember):
            step = self.machine.remembered(step, remember(self.engine, step.work))  # type: ignore[arg-type]
        elif step.work is not None:
            try:
                self.engine.apply(step.work)
            except EngineRefusal:
                replacement = self.machine.refused(step, REFUSED)
                if replacement is None:
                    return True
                step = replacement
        if crash == "called":
            self.restart()
            return True
        for change in step.changes:
            if change.value is None:
                self.store.pop(change.key, None)
            else:
                self.store[change.key] = change.value
        self.steps.append(step)
        self.outcomes.extend(step.outcomes)
        if crash == "stored":
            self.restart()
        else:
            self.machine.commit(step)
        return True

    def run(self, entries: list[Any]) -> Replica:
        for _ in range(10_000):
            if not self.apply(entries):
                return self
        raise AssertionError("the machine never finishes these entries")

    def restart(self) -> None:
        # A store gives its pairs in the order of keys, not of the log.
        self.machine = Machine.load(sorted(self.store.items()), self.limits)


def plain(outcome: Outcome) -> Any:
    """What the naive model knows of an outcome: refusals by status only."""
    return outcome.status if outcome.status >= 400 else (outcome.status, outcome.body)


names = st.sampled_from(["one", "two", "three"])
places = st.sampled_from([(TENANT, DATABASE)] * 4 + [(TENANT, "other"), ("ten", "other")])
collection_ids = st.sampled_from(["c0", "c0", "c0", "c1", "c2"])
record_ids = st.sampled_from("abcdefgh")
metadata = st.none() | st.dictionaries(st.sampled_from("kl"), st.integers(1, 2), max_size=2)


@st.composite
def writes(draw: st.DrawFn) -> WriteRecords:
    kind = draw(st.sampled_from(["add", "upsert", "update"]))
    ids = tuple(draw(st.lists(record_ids, max_size=10, unique=draw(st.booleans()))))
    n = len(ids)

    def column(values: st.SearchStrategy[Any]) -> Any:
        if draw(st.booleans()):
            return None
        return tuple(draw(st.lists(st.none() | values, min_size=n, max_size=n)))

    dimension = draw(st.sampled_from([2, 2, 2, 2, 3]))
    vectors: Any = tuple(bytes([draw(st.integers(0, 3))]) * 4 * dimension for _ in ids)
    if kind == "update" and draw(st.booleans()):
        vectors, dimension = None, None
    metadatas = column(metadata)
    if metadatas and draw(st.integers(0, 5)) == 0:
        at = draw(st.integers(0, n - 1))
        wrong = draw(st.sampled_from([{"bad": 1}, {"s": {"#type": "sparse_vector"}}]))
        metadatas = (*metadatas[:at], wrong, *metadatas[at + 1 :])
    if ids and draw(st.integers(0, 15)) == 0:
        ids = ("", *ids[1:])
    texts = st.sampled_from(["x", "y"])
    model = draw(st.sampled_from([None, None, None, "m1", "m2"])) if vectors else None
    return WriteRecords(
        kind,
        draw(collection_ids),
        ids,
        dimension if ids else None,
        vectors,
        metadatas,
        column(texts),
        column(texts),
        model,
    )


deletes = st.one_of(
    st.builds(
        lambda c, ids: DeleteRecords(c, tuple(ids), None, None, None),
        collection_ids,
        st.lists(record_ids, max_size=5),
    ),
    st.builds(
        lambda c, ids, where, limit: DeleteRecords(
            c, None if ids is None else tuple(ids), json.dumps(where), None, limit
        ),
        collection_ids,
        st.none() | st.lists(record_ids, min_size=1, max_size=3),
        st.dictionaries(st.sampled_from("kl"), st.integers(1, 2), max_size=1),
        st.none() | st.integers(0, 2),
    ),
)
catalogue_commands = st.one_of(
    st.builds(CreateTenant, st.sampled_from(["ten", "ten2", TENANT])),
    st.builds(UpdateTenant, st.just("nope"), st.just("resource")),
    st.builds(lambda p: CreateDatabase(*p, "/".join(p)), places),
    st.builds(lambda p: DeleteDatabase(*p), places),
    st.builds(
        lambda p, name, get: CreateCollection(*p, name, "?", get, None, None, None),
        places,
        names,
        st.booleans(),
    ),
    st.builds(lambda p, name: DeleteCollection(*p, name), places, names),
    st.builds(
        lambda c, name, m: UpdateCollection(c, name, m, None), collection_ids, st.none() | names, metadata
    ),
    st.just(Reset()),
)
commands = st.one_of(writes(), writes(), writes(), writes(), deletes, deletes, catalogue_commands)


@st.composite
def histories(draw: st.DrawFn) -> list[tuple[int, Group | None]]:
    """Entries with retried requests, reused keys, jumps of log time, and Raft's own entries."""
    first = CreateCollection(TENANT, DATABASE, "one", "c0", False, None, None, None)
    entries: list[tuple[int, Group | None]] = [(1, Group(0, (Proposal("first", b"0", first),)))]
    made: list[Proposal] = []
    database_n = collection_n = 0
    time_ms = 0
    for index in range(2, draw(st.integers(3, 10))):
        if draw(st.integers(0, 7)) == 0:
            entries.append((index, None))
            continue
        time_ms += draw(st.sampled_from([0, 0, 1, 5, 30, -3, 200]))
        proposals: list[Proposal] = []
        for _ in range(draw(st.integers(0, 6))):
            if made and draw(st.integers(0, 5)) == 0:
                proposal = draw(st.sampled_from(made))
                if draw(st.integers(0, 3)) == 0:
                    proposal = replace(proposal, digest=b"other")
            else:
                command = draw(commands)
                if isinstance(command, CreateCollection):
                    collection_n += 1
                    command = replace(command, collection_id=f"c{collection_n}")
                if isinstance(command, CreateDatabase):
                    database_n += 1
                    command = replace(command, database_id=f"d{database_n}")
                proposal = Proposal(f"p{len(made)}", b"digest", command)
            made.append(proposal)
            proposals.append(proposal)
        entries.append((index, Group(max(time_ms, 0), tuple(proposals))))
    return entries


def run_model(entries: list[tuple[int, Group | None]]) -> tuple[NaiveModel, list[tuple[str, Any]]]:
    model = NaiveModel()
    outcomes: list[tuple[str, Any]] = []
    for _, group in entries:
        if group is not None:
            outcomes += [(request_id, plain(outcome)) for request_id, outcome in model.apply(group)]
    return model, outcomes


def check_against_model(replica: Replica, model: NaiveModel, outcomes: list[tuple[str, Any]]) -> None:
    assert [(request_id, plain(outcome)) for request_id, outcome, _ in replica.outcomes] == outcomes
    assert replica.engine.collections == model.engine.collections
    catalog = replica.machine.catalog
    for tenant, database in model.databases:
        assert catalog.database(tenant, database) is not None
    assert all(catalog.has_tenant(tenant) for tenant in model.tenants)
    for key, expected in model.collections.items():
        found = catalog.require(key)
        assert ((found.tenant, found.database), found.name) == (expected["place"], expected["name"])
        assert (found.dimension, found.model) == (expected.get("dimension"), expected.get("model"))
    kinds = [key.partition("/")[0] for key, _ in catalog.items()]
    assert kinds.count("t") == len(model.tenants)
    assert kinds.count("d") == len(model.databases)
    assert kinds.count("c") == len(model.collections)
    assert sum(key.startswith("r/") for key, _ in replica.machine.dump()) == len(model.answered)


relaxed = settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)


@relaxed
@given(histories(), st.data())
def test_any_crashes_and_batches_give_what_a_naive_model_gives(entries: Any, data: st.DataObject) -> None:
    model, outcomes = run_model(entries)
    crashing = Replica()
    for turn in range(10_000):
        if crashing.machine.applied_index == len(entries):
            break
        # After a restart a node may know of more or of fewer committed entries than before.
        start = max(0, crashing.machine.applied_index - data.draw(st.integers(0, 1)))
        stop = crashing.machine.applied_index + data.draw(st.integers(1, 4))
        crash = data.draw(st.sampled_from([None, "called", "stored"])) if turn < 60 else None
        crashing.apply(entries[start:stop], crash)
    check_against_model(crashing, model, outcomes)

    whole = Replica().run(entries)
    check_against_model(whole, model, outcomes)
    assert whole.machine.dump() == crashing.machine.dump()
    assert whole.machine.catalog.items() == crashing.machine.catalog.items()
    assert sorted(whole.store.items()) == whole.machine.dump()
    assert [(r, o, i) for r, o, i in whole.outcomes] == crashing.outcomes


@relaxed
@given(histories())
def test_one_entry_at_a_time_gives_the_same_as_all_at_once(entries: Any) -> None:
    single = Replica()
    for entry in entries:
        single.run([entry])
    whole = Replica().run(entries)
    assert single.machine.dump() == whole.machine.dump()
    assert single.outcomes == whole.outcomes
    assert single.engine.collections == whole.engine.collections
    assert Machine.load(whole.machine.dump(), LIMITS).dump() == whole.machine.dump()


CREATE = CreateCollection(TENANT, DATABASE, "one", "c0", False, None, None, None)


def write(
    ids: str, kind: Any = "add", value: int = 1, dimension: int = 2, collection: str = "c0", **columns: Any
) -> WriteRecords:
    vectors = tuple(bytes([value]) * 4 * dimension for _ in ids)
    base = WriteRecords(kind, collection, tuple(ids), dimension, vectors, None, None, None)
    return replace(base, **columns)


def write_text(ids: str) -> WriteRecords:
    return WriteRecords("update", "c0", tuple(ids), None, None, None, tuple("x" for _ in ids), None)


def history(*groups: list[Any], keys: dict[int, str] | None = None) -> list[tuple[int, Group | None]]:
    """Entries of commands with request ids p0, p1 ... unless `keys` names another."""
    entries: list[tuple[int, Group | None]] = [(1, Group(0, (Proposal("create", b"", CREATE),)))]
    n = 0
    for index, group in enumerate(groups, 2):
        proposals: list[Proposal] = []
        for command in group:
            proposals.append(Proposal((keys or {}).get(n, f"p{n}"), b"", command))
            n += 1
        entries.append((index, Group(index, tuple(proposals))))
    return entries


def record_calls(replica: Replica) -> list[Any]:
    return [call for call in replica.engine.calls if isinstance(call, WriteRecords | DeleteRecords)]


def statuses(replica: Replica) -> list[int]:
    return [outcome.status for _, outcome, _ in replica.outcomes[1:]]


def test_neighbouring_adds_share_one_call_across_entries() -> None:
    replica = Replica().run(history([write("a"), write("b", value=2)], [write("c")]))
    (call,) = record_calls(replica)
    assert call.ids == ("a", "b", "c")
    assert call.embeddings == (b"\1" * 8, b"\2" * 8, b"\1" * 8)
    assert statuses(replica) == [201, 201, 201]
    assert [index for _, _, index in replica.outcomes[1:]] == [2, 2, 3]
    work = replica.steps[-1].work
    assert isinstance(work, Call)
    assert work.index == 3


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (write("a"), write("a", value=2)),
        (write("a"), write("b", "upsert")),
        (write("a"), write("bb")),
        (write("aa"), write("b")),
        (write("ab"), write("cde")),
        (write("a"), DeleteRecords("c0", ("a",), None, None, None)),
        (write("a", "update"), write_text("b")),
        (write("a"), DeleteRecords("c0", None, '{"k": 1}', None, None)),
        (write("a"), UpdateCollection("c0", "renamed", None, None)),
    ],
)
def test_what_two_calls_could_not_mean_together_stays_apart(first: Any, second: Any) -> None:
    replica = Replica().run(history([first, second]))
    kinds = [type(call) for call in replica.engine.calls[1:3]]
    assert len(replica.steps) >= 3
    assert kinds[0] is type(first)
    assert record_calls(replica)[0].ids == first.ids


def test_writes_to_different_collections_stay_apart() -> None:
    other = CreateCollection(TENANT, DATABASE, "two", "c1", False, None, None, None)
    replica = Replica().run(history([other, write("a"), write("b", collection="c1"), write("c")]))
    assert [call.ids for call in record_calls(replica)] == [("a",), ("b",), ("c",)]


def test_missing_columns_are_padded_with_nulls() -> None:
    replica = Replica().run(
        history(
            [write("a", documents=("x",)), write("bc", metadatas=({"k": 1}, None)), write("d", uris=("u",))]
        )
    )
    (call,) = record_calls(replica)
    assert call.documents == ("x", None, None, None)
    assert call.metadatas == (None, {"k": 1}, None, None)
    assert call.uris == (None, None, None, "u")


def test_a_refused_write_between_two_does_not_part_them() -> None:
    replica = Replica().run(history([write("a"), write("b", dimension=3), write("c")]))
    (call,) = record_calls(replica)
    assert call.ids == ("a", "c")
    assert statuses(replica) == [201, 400, 201]
    message = "Collection expecting embedding with dimension of 2, got 3"
    assert replica.outcomes[2][1].body == {"error": "InvalidArgumentError", "message": message}


def test_a_model_fixed_earlier_in_the_same_call_refuses_another() -> None:
    replica = Replica().run(history([write("a", model="m1"), write("b"), write("c", model="m2")]))
    (call,) = record_calls(replica)
    assert (call.ids, call.model) == (("a", "b"), "m1")
    assert statuses(replica) == [201, 201, 400]


def test_requests_are_forgotten_in_log_order_after_a_restart() -> None:
    replica = Replica()
    entries = history(*[[write("a", "upsert")] for _ in range(12)])
    for entry in entries:
        replica.run([entry])
        replica.restart()
    assert sorted(key for key in replica.store if key.startswith("r/")) == sorted(
        f"r/p{n}" for n in range(12 - LIMITS.max_requests, 12)
    )


def test_ids_only_deletes_share_one_call_and_count_the_ids_given() -> None:
    one, two = (DeleteRecords("c0", ids, None, None, None) for ids in (("a", "zz"), ("b",)))
    replica = Replica().run(history([write("abc")], [one, two]))
    assert record_calls(replica)[1].ids == ("a", "zz", "b")
    assert [outcome.body for _, outcome, _ in replica.outcomes[2:]] == [{"deleted": 2}, {"deleted": 1}]


def test_a_delete_with_nothing_to_delete_needs_no_engine() -> None:
    replica = Replica().run(history([DeleteRecords("c0", None, None, None, None)]))
    assert replica.outcomes[1][1] == Outcome(200, {"deleted": 0})
    assert record_calls(replica) == []


def test_a_large_write_goes_in_parts_and_answers_with_the_last() -> None:
    replica = Replica()
    entries = history([write("abcdefghij", documents=tuple("ABCDEFGHIJ"))])
    for crash in ("called", "stored", "called", "called", None, "stored", None, None):
        replica.apply(entries, crash)
    ids = [call.ids for call in record_calls(replica)]
    assert list(dict.fromkeys(ids)) == [tuple("abcd"), tuple("efgh"), tuple("ij")]
    assert [step.outcomes != () for step in replica.steps] == [True, False, False, False, True]
    assert len(replica.engine.collections["c0"]["records"]) == 10


def test_a_collection_is_half_written_from_before_the_first_part_to_the_end_of_the_last() -> None:
    replica = Replica()
    entries = history([write("abcdefghij")], [write("k")])
    seen: list[tuple[str | None, int, bool]] = []
    while replica.machine.next_step(entries) is not None:
        replica.apply(entries)
        records = len(replica.engine.collections.get("c0", {"records": ()})["records"])
        seen.append((replica.machine.half_written, records, "half" in replica.store))
        assert Machine.load(replica.store.items()).half_written == replica.machine.half_written
    assert seen == [
        (None, 0, False),
        ("c0", 0, True),
        ("c0", 4, True),
        ("c0", 8, True),
        (None, 10, False),
        (None, 11, False),
    ]


def test_a_large_write_that_the_engine_refuses_leaves_its_collection_readable() -> None:
    replica = Replica()
    metadatas = ({"bad": 1}, *[None] * 9)
    replica.run(history([write("abcdefghij", metadatas=metadatas)]))
    assert replica.outcomes[-1][1] == REFUSED
    assert replica.machine.half_written is None
    assert "half" not in replica.store


OLD = {"d": {"embedding": b"\x05" * 8, "document": "old", "uri": "there", "metadata": {"k": 1, "l": 2}}}


@pytest.mark.parametrize("kind", ["add", "upsert", "update"])
@pytest.mark.parametrize("bad", [3, 5, 9])
@pytest.mark.parametrize("crash", [None, "called", "stored"])
def test_a_large_write_that_is_refused_later_leaves_no_trace(kind: Any, bad: int, crash: str | None) -> None:
    """A part of it is refused by the engine: the parts before it are undone, through any crash."""
    metadatas = tuple({"bad": 1} if n == bad else {"k": 7} for n in range(10))
    old = replace(
        write("d", value=5), metadatas=({"k": 1, "l": 2},), documents=("old",), uris=("there",), model="m"
    )
    large = write("abcdefghij", kind, value=6, metadatas=metadatas, documents=tuple("ABCDEFGHIJ"), model="m")
    entries = history([old], [large], [write("z", value=9)])
    replica = Replica()
    z = {"embedding": b"\x09" * 8, "metadata": {}}
    allowed = ({}, OLD, {**OLD, "z": z})
    for turn in range(100):
        if not replica.apply(entries, crash if turn % 2 else None):
            break
        if replica.machine.half_written is None and replica.machine.applied_index < 4:
            assert replica.engine.collections.get("c0", {"records": {}})["records"] in allowed
    assert replica.machine.applied_index == 4
    assert replica.engine.collections["c0"]["records"] == {**OLD, "z": z}
    status = [outcome for name, outcome, _ in replica.outcomes if name == "p1"][-1]
    assert status.status == 400
    assert ("undone: nothing was changed" in status.body["message"]) is (bad > 3)
    assert not {"half", "before", "undoing"} & replica.store.keys()
    assert Machine.load(sorted(replica.store.items()), LIMITS).dump() == replica.machine.dump()


def test_what_is_too_large_to_be_kept_is_not_undone_and_the_answer_says_so() -> None:
    entries = history(
        [write("abcdefghij", "upsert", metadatas=tuple({"bad": 1} if n == 9 else None for n in range(10)))]
    )
    replica = Replica()
    while (step := replica.machine.next_step(entries)) is not None:
        if not isinstance(step.work, Remember):
            replica.apply(entries)
            continue
        remembered = replica.machine.remembered(step, Before((), is_whole=False))
        replica.store.update({change.key: change.value or b"" for change in remembered.changes})
        replica.machine.commit(remembered)
    assert "Its first 8 records (to id 'h') were written before" in replica.outcomes[-1][1].body["message"]
    assert len(replica.engine.collections["c0"]["records"]) == 8
    assert replica.machine.half_written is None


def test_what_is_merged_is_bounded_in_bytes() -> None:
    limits = Limits(merged_bytes=3000)
    machine = Machine.load([], limits)
    entries = history([write("ab"), write("cd"), write("ef"), write("gh")])
    sizes: list[int] = []
    while (step := machine.next_step(entries)) is not None:
        if step.work is not None and isinstance(step.work.command, WriteRecords):
            sizes.append(len(step.work.command.ids))
        machine.commit(step)
    assert sizes == [4, 4]


def test_a_delete_by_filter_is_resolved_durably_before_it_deletes() -> None:
    replica = Replica()
    entries = history([write("abc", metadatas=({"k": 1}, {"k": 1}, {"k": 2}))], [])
    replica.run(entries)
    by_filter = DeleteRecords("c0", None, '{"k": 1}', None, None)
    entries.append((4, Group(9, (Proposal("delete", b"", by_filter),))))
    replica.apply(entries)
    assert "intent" in replica.store
    replica.apply(entries, "called")
    assert "delete" not in dict(pair[:2] for pair in replica.outcomes)
    replica.run(entries)
    assert replica.outcomes[-1] == ("delete", Outcome(200, {"deleted": 2}), 4)
    assert "intent" not in replica.store
    assert set(replica.engine.collections["c0"]["records"]) == {"c"}


def test_two_filters_that_find_nothing_do_not_share_their_ids() -> None:
    by_filter = DeleteRecords("c0", None, '{"k": 1}', None, None)
    other = DeleteRecords("c0", None, "{}", None, None)
    replica = Replica().run(history([write("ab")], [by_filter, other]))
    assert [outcome.body for _, outcome, _ in replica.outcomes[2:]] == [{"deleted": 0}, {"deleted": 2}]


def test_a_repeated_request_gets_the_first_outcome_and_index_without_work() -> None:
    entries = history([write("a"), write("a")], [write("a")], keys={0: "k", 1: "k", 2: "k"})
    replica = Replica().run(entries)
    assert len(record_calls(replica)) == 1
    assert replica.outcomes[1:] == [("k", Outcome(201, {}), 2)] * 3


def test_a_reused_key_with_another_request_is_refused_and_not_remembered() -> None:
    entries = history([write("a")])
    other = Proposal("p0", b"other", write("b"))
    entries.append((3, Group(5, (other, Proposal("p0", b"", write("a"))))))
    replica = Replica().run(entries)
    assert statuses(replica) == [201, 422, 201]
    assert replica.outcomes[2][1].body["error"] == "IdempotencyKeyReusedError"
    assert set(replica.engine.collections["c0"]["records"]) == {"a"}


def test_a_refusal_is_remembered_too() -> None:
    entries = history([write("a", collection="c1")])
    create = replace(CREATE, name="two", collection_id="c1")
    retry = Proposal("p0", b"", write("a", collection="c1"))
    entries.append((3, Group(5, (Proposal("late", b"", create), retry))))
    assert statuses(Replica().run(entries)) == [404, 200, 404]


def test_requests_are_forgotten_after_the_window_of_log_time() -> None:
    def late(time_ms: int) -> list[Any]:
        proposal = Proposal("k", b"", write("a", "upsert"))
        return [(1, Group(0, (Proposal("c", b"", CREATE), proposal))), (2, Group(time_ms, (proposal,)))]

    assert len(record_calls(Replica().run(late(LIMITS.window_ms)))) == 1
    assert len(record_calls(Replica().run(late(LIMITS.window_ms + 1)))) == 2


def test_requests_are_forgotten_beyond_the_count() -> None:
    groups = [[write("a", "upsert")] for _ in range(LIMITS.max_requests + 3)]
    replica = Replica().run(history(*groups))
    kept = sorted(key for key in replica.store if key.startswith("r/"))
    assert kept == [f"r/p{n}" for n in range(3, LIMITS.max_requests + 3)]


def test_log_time_never_goes_back() -> None:
    replica = Replica().run([(1, Group(50, ())), (2, Group(10, (Proposal("c", b"", CREATE),))), (3, None)])
    assert replica.machine.time_ms == 50
    assert replica.machine.applied_index == 3


def test_a_neighbour_is_not_refused_for_what_the_engine_refuses_in_another() -> None:
    bad = write("b", metadatas=({"bad": 1},))
    replica = Replica().run(history([write("a"), bad], [write("c")]))
    assert statuses(replica) == [201, 400, 201]
    assert replica.outcomes[2][1] == REFUSED
    assert set(replica.engine.collections["c0"]["records"]) == {"a", "c"}


def test_a_write_that_the_engine_refused_sets_no_dimension() -> None:
    bad = write("b", dimension=3, metadatas=({"bad": 1},))
    replica = Replica().run(history([bad]))
    assert replica.machine.catalog.require("c0").dimension is None


def test_a_filter_that_the_engine_refuses_is_an_answer() -> None:
    replica = Replica()
    entries = history([DeleteRecords("c0", None, '{"$x": 1}', None, None)])
    replica.apply(entries)
    step = replica.machine.next_step(entries)
    assert step is not None
    assert isinstance(step.work, Resolve)
    refused = replica.machine.refused(step, REFUSED)
    assert refused is not None
    replica.machine.commit(refused)
    assert refused.outcomes == (("p0", REFUSED, 2),)
    assert (refused.index, replica.machine.next_step(entries)) == (2, None)


def test_the_step_changes_little_of_a_large_state() -> None:
    limits = Limits(max_records=4)
    replica = Replica(limits).run(history(*[[write("a", "upsert")] for _ in range(200)]))
    step = replica.machine.next_step([(202, Group(500, (Proposal("one", b"", write("b")),)))])
    assert step is not None
    assert {change.key for change in step.changes} == {"r/one", "meta"}


def test_a_missing_entry_is_never_skipped() -> None:
    machine = Machine.load((), LIMITS)
    with pytest.raises(ValueError, match="log entry 1 is next"):
        machine.next_step([(2, None)])
    with pytest.raises(ValueError, match="log entry 2 is next"):
        machine.next_step([(1, None), (3, None)])


def test_a_state_of_a_newer_program_is_not_read() -> None:
    items = dict(Replica().run(history()).machine.dump())
    items["meta"] = b"\x95\x02\x00\x00\x00\x00"
    with pytest.raises(ValueError, match="state has version 2"):
        Machine.load(items.items(), LIMITS)


def test_only_the_right_steps_can_be_resolved_or_refused() -> None:
    machine = Machine.load((), LIMITS)
    step = machine.next_step([(1, None)])
    assert step is not None
    with pytest.raises(ValueError, match="Resolve"):
        machine.resolved(step, ())
    with pytest.raises(ValueError, match="without work"):
        machine.refused(step, REFUSED)


def test_nothing_to_do_is_no_step() -> None:
    machine = Machine.load((), LIMITS)
    assert machine.next_step([]) is None
    step = machine.next_step([(1, None)])
    assert step is not None
    machine.commit(step)
    assert machine.next_step([(1, None)]) is None
    assert step.work is None
    assert Machine.load(machine.dump()).catalog.database(TENANT, DATABASE) is not None


def test_a_key_that_was_remembered_without_its_scope_is_still_known() -> None:
    """An earlier program wrote it; what has the same digest has the same path, and so the same scope."""
    old = Proposal("k:key", b"same", write("a"))
    retry = Proposal("k:0123abcd key", b"same", write("a"))
    elsewhere = Proposal("k:4567abcd key", b"other", write("b"))
    entries: list[tuple[int, Group | None]] = [
        (1, Group(0, (Proposal("create", b"", CREATE), old))),
        (2, Group(5, (retry, elsewhere))),
        (3, Group(5, (elsewhere, Proposal("k:4567abcd key", b"third", write("c"))))),
    ]
    replica = Replica().run(entries)
    assert statuses(replica) == [201, 201, 201, 201, 422]
    assert replica.outcomes[2][2] == 1
    assert set(replica.engine.collections["c0"]["records"]) == {"a", "b"}
