"""The journal: what it gives back, what it refuses to open, what a power loss leaves."""

from __future__ import annotations

import contextlib
import random
import shutil
import sqlite3
from typing import TYPE_CHECKING

import pytest

from cluster.errors import Fault
from cluster.raft.journal import Journal, checksum
from tests.unit.raft_net import Disk

if TYPE_CHECKING:
    from pathlib import Path


def fill(journal: Journal, count: int, term: int = 1, size: int = 100) -> None:
    for _ in range(count):
        index = journal.last_index + 1
        journal.append(term, b"%d:" % index + bytes(size))
    journal.flush()


def contents(journal: Journal) -> list[tuple[int, int, bytes]]:
    rows = journal.read(journal.first_index, journal.last_index, 1 << 40)
    return [(row.index, row.term, row.payload) for row in rows]


def test_everything_flushed_is_there_after_reopening(tmp_path: Path) -> None:
    journal = Journal.open(tmp_path / "raft.sqlite", "c", "n1")
    journal.set_term(3, "n2")
    fill(journal, 5, term=2)
    fill(journal, 3, term=3)
    journal.set_commit(4)
    fill(journal, 1, term=3)
    before = contents(journal)
    journal.close()
    again = Journal.open(tmp_path / "raft.sqlite", "c", "n1")
    assert contents(again) == before
    assert (again.term, again.vote, again.commit_index, again.last_index, again.last_term) == (
        3,
        "n2",
        4,
        9,
        3,
    )
    assert [again.term_at(index) for index in (0, 1, 5, 6, 9)] == [0, 2, 2, 3, 3]
    assert (again.first_of_term_at(5), again.first_of_term_at(8)) == (1, 6)
    assert (again.last_of_term(2), again.last_of_term(3), again.last_of_term(1)) == (5, 9, None)
    again.close()


def test_nothing_counts_before_the_flush() -> None:
    disk = Disk()
    journal = Journal(disk, "c", "n1")
    fill(journal, 2)
    journal.append(1, b"x")
    journal.set_term(7, "n1")
    assert journal.dirty
    assert journal.durable_index == 2
    again = Journal(disk, "c", "n1")
    assert (again.last_index, again.term, again.vote) == (2, 0, None)


def test_truncation_and_overwriting_in_one_flush(tmp_path: Path) -> None:
    journal = Journal.open(tmp_path / "raft.sqlite", "c", "n1", cache_bytes=200)
    fill(journal, 6)
    journal.append(1, b"not flushed")
    journal.truncate_from(4)
    assert journal.durable_index == 3
    journal.append(2, b"other")
    journal.truncate_from(4)
    journal.append(3, b"third")
    held = contents(journal)
    assert [(index, term) for index, term, _ in held] == [(1, 1), (2, 1), (3, 1), (4, 3)]
    journal.flush()
    journal.close()
    again = Journal.open(tmp_path / "raft.sqlite", "c", "n1")
    assert contents(again) == held
    assert again.bytes_held == sum(len(payload) for _, _, payload in held)
    again.close()


def test_committed_entries_are_never_cut() -> None:
    journal = Journal(Disk(), "c", "n1")
    fill(journal, 5)
    journal.set_commit(3)
    with pytest.raises(Fault, match="committed"):
        journal.truncate_from(3)
    assert journal.last_index == 5
    journal.truncate_from(4)
    assert journal.last_index == 3


def test_memory_is_bounded_and_old_entries_come_from_disk(tmp_path: Path) -> None:
    journal = Journal.open(tmp_path / "raft.sqlite", "c", "n1", cache_bytes=2000)
    fill(journal, 100)
    assert journal._cache_held <= 2000  # pyright: ignore[reportPrivateUsage]
    rows = journal.read(1, 100, 1 << 40)
    assert [row.index for row in rows] == list(range(1, 101))
    assert len(journal.read(1, 100, 1)) == 1
    assert 1 < len(journal.read(50, 100, 1000)) < 20
    journal.close()


def test_compaction_keeps_the_budget_the_base_and_what_is_not_applied(tmp_path: Path) -> None:
    journal = Journal.open(tmp_path / "raft.sqlite", "c", "n1")
    fill(journal, 50, term=1, size=1000)
    fill(journal, 50, term=2, size=1000)
    journal.set_commit(100)
    assert journal.compact(limit=100, budget_bytes=1 << 30) == 0
    assert journal.compact(limit=30, budget_bytes=1000) == 30
    journal.flush()
    base = journal.compact(limit=100, budget_bytes=20_000)
    assert 75 < base < 85
    journal.flush()
    assert journal.bytes_held <= 20_000
    assert journal.term_at(base) == 2
    with pytest.raises(LookupError):
        journal.read(base, 100, 1)
    held = contents(journal)
    journal.close()
    again = Journal.open(tmp_path / "raft.sqlite", "c", "n1")
    assert again.base_index == base
    assert contents(again) == held
    again.close()


def test_compaction_stops_at_the_commit_index() -> None:
    journal = Journal(Disk(), "c", "n1")
    fill(journal, 10, size=1000)
    journal.set_commit(4)
    assert journal.compact(limit=10, budget_bytes=1) == 4


def test_another_nodes_journal_is_refused(tmp_path: Path) -> None:
    journal = Journal.open(tmp_path / "raft.sqlite", "c", "n1")
    fill(journal, 1)
    journal.close()
    with pytest.raises(Fault, match="belongs to node n1"):
        Journal.open(tmp_path / "raft.sqlite", "c", "n2")
    with pytest.raises(Fault, match="cluster c"):
        Journal.open(tmp_path / "raft.sqlite", "d", "n1")


def test_a_flipped_payload_is_named(tmp_path: Path) -> None:
    path = tmp_path / "raft.sqlite"
    journal = Journal.open(path, "c", "n1")
    fill(journal, 5)
    journal.close()
    data = path.read_bytes()
    at = data.index(b"3:" + bytes(50))
    path.write_bytes(data[: at + 20] + b"\x01" + data[at + 21 :])
    with pytest.raises(Fault, match=r"raft\.sqlite.*index 3"):
        Journal.open(path, "c", "n1")


def test_a_missing_row_is_found(tmp_path: Path) -> None:
    path = tmp_path / "raft.sqlite"
    for lost in (1, 3, 5):
        for old in tmp_path.iterdir():
            old.unlink()
        journal = Journal.open(path, "c", "n1")
        fill(journal, 5)
        journal.close()
        with contextlib.closing(sqlite3.connect(path)) as db:
            db.execute("DELETE FROM entries WHERE idx = ?", (lost,))
            db.commit()
        with pytest.raises(Fault, match="damaged"):
            Journal.open(path, "c", "n1")


def test_damage_is_found_or_harmless_wherever_it_is(tmp_path: Path) -> None:
    """Flip bytes all over the file and its WAL: it opens with the very same entries, or not at all."""
    path = tmp_path / "whole" / "raft.sqlite"
    path.parent.mkdir()
    journal = Journal.open(path, "c", "n1")
    journal.set_term(2, "n1")
    fill(journal, 20, size=700)
    journal.close()  # checkpoints into the file itself
    journal = Journal.open(path, "c", "n1")
    fill(journal, 10, size=700)
    expected = contents(journal)
    shutil.copytree(path.parent, tmp_path / "copy")  # as after kill -9: file and WAL
    journal.close()
    rng = random.Random(4)
    refused = 0
    for round_number in range(120):
        victim = "raft.sqlite-wal" if round_number % 2 else "raft.sqlite"
        target = tmp_path / f"damaged-{round_number}"
        shutil.copytree(tmp_path / "copy", target)
        data = bytearray((target / victim).read_bytes())
        at = rng.randrange(len(data))
        data[at] ^= 1 << rng.randrange(8)
        (target / victim).write_bytes(data)
        try:
            damaged = Journal.open(target / "raft.sqlite", "c", "n1")
        except Fault:
            refused += 1
        else:
            assert contents(damaged) == expected
            assert (damaged.term, damaged.vote) == (2, "n1")
            damaged.close()
        shutil.rmtree(target)
    assert refused > 40


def test_a_cut_wal_is_found_through_the_mark(tmp_path: Path) -> None:
    path = tmp_path / "live" / "raft.sqlite"
    path.parent.mkdir()
    journal = Journal.open(path, "c", "n1")
    for _ in range(6):
        fill(journal, 1, size=3000)
    shutil.copytree(path.parent, tmp_path / "copy")
    journal.close()
    wal = tmp_path / "copy" / "raft.sqlite-wal"
    wal.write_bytes(wal.read_bytes()[: wal.stat().st_size // 2])
    with pytest.raises(Fault, match="last writes are missing"):
        Journal.open(tmp_path / "copy" / "raft.sqlite", "c", "n1")


def test_a_lost_file_or_mark_is_found(tmp_path: Path) -> None:
    path = tmp_path / "raft.sqlite"
    journal = Journal.open(path, "c", "n1")
    fill(journal, 3)
    journal.close()
    shutil.copytree(tmp_path, tmp_path / "a")
    shutil.copytree(tmp_path, tmp_path / "b", ignore=shutil.ignore_patterns("a"))
    (tmp_path / "a" / "raft.sqlite").unlink()
    with pytest.raises(Fault, match="is missing"):
        Journal.open(tmp_path / "a" / "raft.sqlite", "c", "n1")
    (tmp_path / "b" / "raft.sqlite-mark").unlink()
    with pytest.raises(Fault, match=r"mark .* is missing"):
        Journal.open(tmp_path / "b" / "raft.sqlite", "c", "n1")


def test_power_loss_keeps_exactly_the_flushed_prefix(tmp_path: Path) -> None:
    """Cut the unsynced end of the WAL anywhere: what is left is a state after some flush, never in between.

    The mark goes with it, as it does when power is lost: it is not synced and then is older than the WAL.
    """
    live = tmp_path / "live"
    live.mkdir()
    journal = Journal.open(live / "raft.sqlite", "c", "n1")
    ends: list[int] = []
    for round_number in range(5):
        fill(journal, round_number + 1, size=900)
        ends.append(journal.last_index)
    shutil.copytree(live, tmp_path / "copy")
    journal.close()
    mark = tmp_path / "copy" / "raft.sqlite-mark"
    mark.write_bytes(bytes(mark.stat().st_size))
    wal = (tmp_path / "copy" / "raft.sqlite-wal").read_bytes()
    rng = random.Random(5)
    seen: set[int] = set()
    for round_number in range(40):
        target = tmp_path / f"cut-{round_number}"
        shutil.copytree(tmp_path / "copy", target)
        (target / "raft.sqlite-wal").write_bytes(wal[: rng.randrange(len(wal) // 3, len(wal))])
        journal = Journal.open(target / "raft.sqlite", "c", "n1")
        assert journal.last_index in [0, *ends]
        seen.add(journal.last_index)
        journal.close()
        shutil.rmtree(target)
    assert len(seen) > 2


def test_a_full_disk_changes_nothing_durable(tmp_path: Path) -> None:
    journal = Journal.open(tmp_path / "raft.sqlite", "c", "n1")
    fill(journal, 3)
    storage = journal._storage  # pyright: ignore[reportPrivateUsage]
    storage._writer.execute("PRAGMA max_page_count=10")  # type: ignore[attr-defined]
    journal.append(1, bytes(1_000_000))
    with pytest.raises(sqlite3.OperationalError, match="full"):
        journal.flush()
    journal.close()
    again = Journal.open(tmp_path / "raft.sqlite", "c", "n1")
    assert again.last_index == 3
    again.close()


def test_checksum_covers_index_term_and_payload() -> None:
    assert len({checksum(1, 2, b"a"), checksum(2, 2, b"a"), checksum(1, 3, b"a"), checksum(1, 2, b"b")}) == 4
