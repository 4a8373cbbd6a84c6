"""A scan digests what was there at its place of the log, whatever is written while it reads."""

from __future__ import annotations

import random
import threading
from typing import TYPE_CHECKING, Any

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.chroma.digesting import digest_records
from cluster.chroma.interface import RecordDigest, Records
from cluster.errors import ClusterError, EngineUnavailable, Refusal
from cluster.state.catalog import Catalog, Change
from cluster.state.commands import (
    DeleteCollection,
    DeleteRecords,
    Reset,
    UpdateCollection,
    Verify,
    WriteRecords,
)
from cluster.state.machine import Verification
from cluster.state.work import Call, Target
from cluster.verify import scan as scanning
from cluster.verify.digest import DELETED, SET_ASIDE
from cluster.verify.scan import Scan
from cluster.verify.scanner import Scanner

if TYPE_CHECKING:
    from collections.abc import Sequence


class FakeChroma:
    """Records in memory; `on_read` is called before each page is read, `unreadable` fails."""

    def __init__(self, collections: dict[str, dict[str, float]]) -> None:
        self.collections = {name: dict(records) for name, records in collections.items()}
        self.metadata: dict[str, int] = dict.fromkeys(collections, 0)
        self.on_read: Any = lambda: None
        self.unreadable: set[str] = set()
        self.away = 0
        self.lock = threading.Lock()

    def collection(self, collection_id: str) -> dict[str, Any]:
        return {"name": collection_id, "metadata": {"n": self.metadata[collection_id]}, "dimension": 1}

    def ids(self, collection_id: str) -> list[str]:
        self._be_there()
        with self.lock:
            if collection_id not in self.collections:
                raise Refusal(404, "NotFoundError", "gone")
            return list(self.collections[collection_id])

    def digests(self, collection_id: str, ids: Sequence[str]) -> list[RecordDigest]:
        self.on_read()
        self._be_there()
        with self.lock:
            if self.unreadable & set(ids):
                raise ClusterError("Error finding id")
            records = self.collections.get(collection_id, {})
            there = [one for one in ids if one in records]
            vectors = [[records[one]] for one in there]
            return digest_records(Records(there, vectors, None, None, None))

    def found_by_vector(self, collection_id: str, ids: Sequence[str], n_results: int) -> tuple[int, int]:
        return len(ids), len(ids)

    def strangers(self, databases: Sequence[tuple[str, str]]) -> list[str]:
        return []

    def _be_there(self) -> None:
        if self.away:
            self.away -= 1
            raise EngineUnavailable("Chroma is being started again.")

    def apply(self, call: Call) -> None:
        command = call.command
        with self.lock:
            match command:
                case WriteRecords():
                    records = self.collections[command.collection_id]
                    for record_id, vector in zip(command.ids, command.embeddings or (), strict=True):
                        records[record_id] = float(vector or b"0")
                case DeleteRecords():
                    for record_id in command.ids or ():
                        self.collections[command.collection_id].pop(record_id, None)
                case UpdateCollection():
                    self.metadata[command.collection_id] += 1
                case DeleteCollection():
                    del self.collections[command.name]
                case _:
                    self.collections.clear()


def target(name: str) -> Target:
    return Target("t", "d", name, name)


def upsert(name: str, ids: list[str], value: float) -> Call:
    vectors = tuple(str(value).encode() for _ in ids)
    return Call(WriteRecords("upsert", name, tuple(ids), 1, vectors, None, None, None), target(name), 9)


def delete(name: str, ids: list[str]) -> Call:
    return Call(DeleteRecords(name, tuple(ids), None, None, None), target(name), 9)


def state_of(names: Any) -> list[tuple[str, bytes]]:
    catalog = Catalog()
    for name in names:
        catalog.put(Change(f"c/{name}", msgpack.packb(["t", "d", name, None, None])))
    return catalog.items()


def scan_of(chroma: FakeChroma, *, narrow: Any = None, broken: Any = (), rate: float = 1e9) -> Scan:
    verification = Verification(Verify("r", narrow), 7)
    return Scan(chroma, verification, state_of(chroma.collections), broken, rate)


def digest_of(collections: dict[str, dict[str, float]], metadata: dict[str, int] | None = None) -> Any:
    chroma = FakeChroma(collections)
    chroma.metadata |= metadata or {}
    scan = scan_of(chroma)
    scan.start()
    assert scan.join(10)
    return {name: (one.root, one.count) for name, one in scan.told().items()}


RECORDS = {"a": {f"a{i}": float(i) for i in range(200)}, "b": {f"b{i}": float(-i) for i in range(150)}}


@given(st.integers(0, 2**32))
@settings(max_examples=25, deadline=None)
def test_writes_at_any_moment_change_nothing_of_what_is_digested(seed: int) -> None:
    draw = random.Random(seed)
    chroma = FakeChroma(RECORDS)
    scan = scan_of(chroma)

    def write() -> None:
        """One write as the applier makes it: `before` first. Between two pages, or right before one."""
        name = draw.choice(["a", "b"])
        ids = list(dict.fromkeys(f"{name}{draw.randrange(260)}" for _ in range(draw.randrange(1, 90))))
        call = upsert(name, ids, draw.random()) if draw.random() < 0.6 else delete(name, ids)
        if draw.random() < 0.1:
            call = Call(UpdateCollection(name, None, {"n": 1}, None), target(name), 9)
        scan.before(call)
        if draw.random() < 0.3:
            scan.before(call)  # it is repeated after a crash half-way
        chroma.apply(call)

    for _ in range(draw.randrange(4)):
        write()
    reader = threading.Thread(target=scan.start)
    ended = threading.Event()

    def keep_writing() -> None:
        for _ in range(draw.randrange(1, 25)):
            write()
        ended.set()

    writer = threading.Thread(target=keep_writing)
    writer.start()
    reader.start()
    writer.join(10)
    reader.join(10)
    assert scan.join(10)
    assert ended.is_set()
    told = {name: (one.root, one.count) for name, one in scan.told().items()}
    assert told == digest_of(RECORDS)


def test_a_record_that_is_changed_is_another_digest() -> None:
    changed = {name: dict(records) for name, records in RECORDS.items()}
    changed["a"]["a7"] += 2**-20
    before, after = digest_of(RECORDS), digest_of(changed)
    assert before["a"] != after["a"]
    assert before["b"] == after["b"]
    assert digest_of(RECORDS, {"a": 5})["a"] != before["a"]


@pytest.mark.parametrize(
    "command", [DeleteCollection("t", "d", "a"), Reset()], ids=["collection deleted", "reset"]
)
def test_what_is_deleted_meanwhile_is_not_compared(command: Any) -> None:
    chroma = FakeChroma(RECORDS)
    scan = scan_of(chroma)
    call = Call(command, None, 9, ("a", "b") if isinstance(command, Reset) else ("a",))
    scan.before(call)
    chroma.apply(call)
    scan.start()
    assert scan.join(10)
    assert scan.told()["a"].skipped == DELETED
    assert (scan.told()["b"].skipped == DELETED) == isinstance(command, Reset)


def test_records_that_cannot_be_read_are_told_one_by_one() -> None:
    chroma = FakeChroma(RECORDS)
    chroma.unreadable = {"a3", "a150"}
    scan = scan_of(chroma, narrow={"a": list(range(256))})
    scan.start()
    assert scan.join(10)
    parts = scan.parts()["a"]
    assert {name for name, digest in parts.items() if not digest} == {"a3", "a150"}
    assert len(parts) == 200
    assert scan.told()["a"].trouble is None


def test_a_collection_of_which_nothing_can_be_read_is_given_up() -> None:
    chroma = FakeChroma(RECORDS)
    chroma.unreadable = set(RECORDS["a"])
    scan = scan_of(chroma)
    scan.start()
    assert scan.join(10)
    assert scan.told()["a"].trouble == "Error finding id"
    assert scan.told()["b"].trouble is None


def test_an_engine_that_is_away_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scanning, "_PAUSE_S", 0.001)
    chroma = FakeChroma(RECORDS)
    chroma.away = 5
    scan = scan_of(chroma)
    scan.start()
    assert scan.join(10)
    assert {name: (one.root, one.count) for name, one in scan.told().items()} == digest_of(RECORDS)


def test_an_engine_that_is_away_before_a_write_leaves_the_collection_out() -> None:
    """The applier does not wait, and a difference that is no difference is not told."""
    chroma = FakeChroma(RECORDS)
    scan = scan_of(chroma)
    chroma.away = 1
    scan.before(upsert("a", ["a1"], 5.0))
    scan.start()
    assert scan.join(10)
    assert scan.told()["a"].skipped is not None
    assert scan.told()["b"].skipped is None


def test_what_the_cluster_set_aside_is_not_touched() -> None:
    chroma = FakeChroma(RECORDS)
    chroma.unreadable = set(RECORDS["a"])
    scan = scan_of(chroma, broken=("a",))
    scan.start()
    assert scan.join(10)
    assert scan.told()["a"].skipped == SET_ASIDE


def test_the_rate_is_kept() -> None:
    """At so low a rate a scan does not come to its end while it is looked at."""
    scan = scan_of(FakeChroma(RECORDS), rate=1.0)
    scan.start()
    assert not scan.join(0.3)
    scan.stop()
    assert scan.join(10)
    assert not scan.done


def test_a_scanner_answers_of_its_last_rounds_only() -> None:
    chroma = FakeChroma(RECORDS)
    scanner = Scanner(chroma, 1e9)
    for number in range(3):
        scanner.begin(Verification(Verify(f"r{number}", None), number), state_of(RECORDS), ())
        while scanner.answer({"round": f"r{number}"})["state"] == "scanning":
            threading.Event().wait(0.001)
    assert scanner.answer({"round": "r0"}) == {"state": "unknown"}
    told = [scanner.answer({"round": f"r{number}"}) for number in (1, 2)]
    assert told[0]["digests"] == told[1]["digests"]
    assert [one["index"] for one in told] == [1, 2]
    with pytest.raises(ValueError, match="nobody knows"):
        scanner.answer({"round": "r2", "wants": "everything"})
    scanner.close()
