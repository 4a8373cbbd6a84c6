"""What a killed process left unsynced is durable before its successor promises anything: real syncs, counted.

`strace` sees which file each sync is of, and kills a process at the very call: written, readable, not synced.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.slow

FLUSHES = 10

JOURNAL = """
import sys
from pathlib import Path
from cluster.raft.journal import Journal
journal = Journal.open(Path(sys.argv[1]), "c", "n1")
print("open", journal.last_index, journal.term, journal.durable_index, flush=True)
for number in range(int(sys.argv[2])):
    journal.append(7, b"entry")
    journal.set_term(7, "n2")
    journal.flush()
"""
STORE = """
import sys
from pathlib import Path
from cluster.apply.store import Store
store = Store(Path(sys.argv[1]))
print("open", store.marker().index, flush=True)
for number in range(int(sys.argv[2])):
    store.write([], store.marker().index + 1)
"""
CHROMA = """
import sys
from pathlib import Path
from cluster.chroma.embedded import EmbeddedEngine
EmbeddedEngine(Path(sys.argv[1]))
print("open", flush=True)
import os
os._exit(0)
"""


def run(program: str, path: Path, count: int, *, kill_at: int = 0) -> tuple[str, list[str], list[str]]:
    """What it said, which files it synced before it said that it is open, and which after.

    `kill_at`: it dies at that sync of the write-ahead log, before the kernel has done it.
    """
    assert shutil.which("strace"), "strace is not installed (Debian: apt-get install strace)"
    log = path.parent.parent / "strace.log"
    calls = ["-e", "trace=fsync,fdatasync,write"]
    if kill_at:
        calls = ["-P", f"{path}-wal", "-e", f"inject=fdatasync:signal=KILL:when={kill_at}"]
    tracer = ["strace", "-f", "-y", "-s", "16", "-o", str(log), *calls]
    done = subprocess.run(
        [*tracer, sys.executable, "-c", program, str(path), str(count)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    if "ptrace" in done.stderr.lower() and "not permitted" in done.stderr.lower():
        pytest.skip("this machine does not let one process trace another")
    assert done.returncode == (137 if kill_at else 0) or done.returncode == -9, done.stderr
    before, after = [], []
    found = before
    for line in log.read_text().splitlines():
        sync = re.search(r"\b(?:fsync|fdatasync)\(\d+<(.*?)>\)\s+= 0", line)
        if sync:
            found.append(sync.group(1))
        elif re.search(r'\bwrite\(1<.*"open', line):
            found = after
    return done.stdout, before, after


@pytest.mark.parametrize(("program", "name"), [(JOURNAL, "raft.sqlite"), (STORE, "state.sqlite")])
def test_each_write_is_synced(tmp_path: Path, program: str, name: str) -> None:
    path = tmp_path / "node" / name
    path.parent.mkdir()
    _, _, after = run(program, path, FLUSHES)
    assert after.count(f"{path}-wal") >= FLUSHES


@pytest.mark.parametrize(
    ("program", "name", "told"), [(JOURNAL, "raft.sqlite", "open 1 7 1"), (STORE, "state.sqlite", "open 1")]
)
def test_a_tail_that_was_never_synced_is_synced_before_it_counts(
    tmp_path: Path, program: str, name: str, told: str
) -> None:
    path = tmp_path / "node" / name
    path.parent.mkdir()
    _, before, after = run(program, path, 1)
    shutil.rmtree(path.parent)
    path.parent.mkdir()
    # The last sync is that of the commit; one of a new log's header may come before it.
    said, _, _ = run(program, path, 1, kill_at=(before + after).count(f"{path}-wal"))
    assert said.split()[1] == "0"
    said, before, _ = run(program, path, 0)
    assert said.strip() == told, "written and readable"
    assert f"{path}-wal" in before
    assert str(path) in before, "and brought over to the database file"
    assert str(path.parent) in before


def test_what_chroma_wrote_is_synced_before_it_is_opened(tmp_path: Path) -> None:
    directory = tmp_path / "chroma"
    (directory / "index").mkdir(parents=True)
    (directory / "index" / "data_level0.bin").write_bytes(b"unsynced")
    _, before, _ = run(CHROMA, directory, 0)
    assert str(directory / "index" / "data_level0.bin") in before
    assert str(directory / "index") in before
