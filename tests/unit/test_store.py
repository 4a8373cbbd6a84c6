"""Pairs and marker move together, survive reopening, and failures say what to do."""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING

import pytest

from cluster.apply.store import Marker, Store
from cluster.errors import Fault
from cluster.state.catalog import Change

if TYPE_CHECKING:
    from pathlib import Path


def test_a_new_store_is_empty_and_stands_at_zero(tmp_path: Path) -> None:
    store = Store(tmp_path / "sub" / "state.sqlite")
    assert (store.marker(), store.items()) == (Marker(0, 0), [])
    store.close()
    store.close()


def test_pairs_and_marker_survive_reopening(tmp_path: Path) -> None:
    store = Store(tmp_path / "state.sqlite")
    store.write([Change("t/a", b"1"), Change("l/x", b"2"), Change("t/b", b"3")], 5, 2)
    store.write([Change("t/a", b"4"), Change("t/b", None), Change("t/none", None)], 6)
    store.close()
    store = Store(tmp_path / "state.sqlite")
    assert store.marker() == Marker(6, 0)
    assert store.items() == [("l/x", b"2"), ("t/a", b"4")]
    assert store.items("l/") == [("l/x", b"2")]
    assert store.items(but="l/") == [("t/a", b"4")]
    store.close()


def test_every_transaction_is_synced(tmp_path: Path) -> None:
    store = Store(tmp_path / "state.sqlite")
    assert store._db.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert store._db.execute("PRAGMA synchronous").fetchone() == (2,)
    store.close()


def test_a_full_disk_is_a_fault_and_leaves_pairs_and_marker_together(tmp_path: Path) -> None:
    store = Store(tmp_path / "state.sqlite")
    store.write([Change("a", b"1")], 1)
    [(pages,)] = store._db.execute("PRAGMA page_count").fetchall()
    store._db.execute(f"PRAGMA max_page_count={pages + 1}")  # SQLite's own "disk is full"
    with pytest.raises(Fault, match=r"is full\. Free space") as fault:
        store.write([Change("a", b"2"), Change("b", b"x" * 100_000)], 2)
    assert "no log entry was skipped" in fault.value.message
    assert (store.marker(), store.items()) == (Marker(1, 0), [("a", b"1")])
    store._db.execute("PRAGMA max_page_count=1000000")
    store.write([Change("a", b"2")], 2)
    assert store.marker() == Marker(2, 0)
    store.close()


def test_a_read_only_file_is_a_fault(tmp_path: Path) -> None:
    store = Store(tmp_path / "state.sqlite")
    store._db.execute("PRAGMA query_only=1")
    with pytest.raises(Fault, match="readonly"):
        store.write([], 1)
    store.close()


def test_a_path_that_cannot_be_opened_is_a_fault(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(Fault, match="cannot open its state file"):
        Store(tmp_path / "file" / "state.sqlite")
    (tmp_path / "directory").mkdir()
    with pytest.raises(Fault, match="unable to open"):
        Store(tmp_path / "directory")


def test_a_damaged_file_is_a_fault(tmp_path: Path) -> None:
    path = tmp_path / "state.sqlite"
    store = Store(path)
    store.write([Change(f"k{n}", b"x" * 900) for n in range(200)], 1)
    store.close()
    whole = bytearray(path.read_bytes())
    whole[4096 * 3 : 4096 * 20] = b"\xff" * (4096 * 17)
    path.write_bytes(bytes(whole))
    with pytest.raises(Fault, match="start it again: they fill it"):
        Store(path)


def test_a_file_of_another_version_is_a_fault(tmp_path: Path) -> None:
    path = tmp_path / "state.sqlite"
    Store(path).close()
    db = sqlite3.connect(path)
    db.execute("PRAGMA user_version=99")
    db.close()
    with pytest.raises(Fault, match="layout 99 is unknown"):
        Store(path)
