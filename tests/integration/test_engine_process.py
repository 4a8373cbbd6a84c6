"""The engine in its own process: the same answers and errors, and no child outlives its parent."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import pytest

from cluster.chroma.embedded import EmbeddedEngine
from cluster.chroma.interface import Engine, Get, Query
from cluster.chroma.isolated import IsolatedEngine
from cluster.chroma.isolated_scratch import IsolatedScratch
from cluster.chroma.scratch import Scratch
from cluster.chroma.watchdog import Limits
from cluster.errors import ClusterError, EngineDied, EngineUnavailable, Fault, Unavailable
from cluster.failpoint import MARKED_WORDS
from cluster.state.commands import CreateCollection, DeleteRecords, WriteRecords
from cluster.state.work import Call, Resolve, Target

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

T = TypeVar("T")

pytestmark = pytest.mark.slow

HOME = ("default_tenant", "default_database", "first", "00000000-0000-4000-8000-000000000001")
C1 = HOME[3]
DEADLINE_S = 60

#: Writes without end in an isolated engine, and tells the child's process id.
WRITES_FOR_EVER = """
import sys
from pathlib import Path
import numpy as np
from cluster.state.commands import CreateCollection, WriteRecords
from cluster.chroma.isolated import IsolatedEngine
from cluster.state.work import Call, Target
home = ("default_tenant", "default_database", "first", sys.argv[2])
engine = IsolatedEngine(Path(sys.argv[1]))
engine.apply(Call(CreateCollection(*home, False, None, None, None), None, 1))
rows = tuple(row.tobytes() for row in np.random.default_rng(0).random((2000, 64), dtype=np.float32))
ids = tuple(map(str, range(2000)))
print(engine.pid, flush=True)
while True:
    engine.apply(Call(WriteRecords("upsert", home[3], ids, 64, rows, None, None, None), Target(*home), 2))
"""


def write(*ids: str, dimension: int = 4) -> Call:
    rows = np.random.default_rng(len(ids)).random((len(ids), dimension), dtype=np.float32)
    metadatas = tuple({"k": at, "f": 0.1, "l": ["x"]} for at, _ in enumerate(ids))
    packed = tuple(row.tobytes() for row in rows)
    command = WriteRecords("upsert", C1, ids, dimension, packed, metadatas, tuple(ids), None)
    return Call(command, Target(*HOME), 3)


def check_where(engine: Engine, where: str | None, where_document: str | None) -> None:
    """Let Chroma judge a filter without reading records."""
    engine.get(C1, Get([], where, where_document, limit=0, include=()))


def answers(engine: Engine) -> list[Any]:
    """What each operation answers, or how it fails."""
    resolve = Resolve(DeleteRecords(C1, None, '{"k": {"$lt": 2}}', None, 5), Target(*HOME), 4)
    everything = ["embeddings", "metadatas", "documents", "uris"]
    operations: list[Callable[[], Any]] = [
        lambda: engine.apply(write("a", "b", "c")),
        lambda: engine.apply(write("d", dimension=5)),
        lambda: engine.get(C1, Get(include=everything)),
        lambda: engine.get(C1, Get(["a"], include=[])),
        lambda: engine.get(C1, Get(where="[]")),
        lambda: engine.get("nowhere"),
        lambda: engine.query(C1, Query([[0.1, 0.2, 0.3, 0.4]], include=[*everything, "distances"])),
        lambda: engine.query(C1, Query(np.ones((2, 4), dtype=np.float32), n_results=2)),
        lambda: engine.query(C1, Query([[1.0, 2.0], [1.0]])),
        lambda: engine.query(C1, Query([[1e39, 0.0, 0.0, 0.0]], include=["distances"])),
        lambda: check_where(engine, '{"k": 1}', None),
        lambda: engine.resolve(resolve),
        lambda: engine.apply(Call(DeleteRecords(C1, ("a",), None, None, None), Target(*HOME), 5)),
        lambda: engine.count(C1),
        lambda: engine.collection(C1),
        lambda: engine.collections("default_tenant", "default_database"),
        engine.collection_ids,
        engine.documents,
    ]
    said: list[Any] = []
    for operation in operations:
        try:
            said.append(operation())
        except ClusterError as error:
            said.append((type(error), error.status, error.error, error.message))
    return said


def test_it_answers_like_the_engine_in_the_same_process(tmp_path: Path) -> None:
    create = Call(CreateCollection(*HOME, False, {"a": 1.5}, None, None), None, 1)
    near, far = EmbeddedEngine(tmp_path / "near" / "chroma"), IsolatedEngine(tmp_path / "far" / "chroma")
    [change] = far.apply(create)
    near.apply(create)
    assert answers(far) == answers(near)
    far.close()
    far.close()
    with pytest.raises(Unavailable):
        far.count(C1)
    near.close()
    assert change.value is not None
    again = IsolatedEngine(tmp_path / "far" / "chroma", [(change.key, change.value)])
    assert again.count(C1) == 2
    again.close()


def test_many_threads_at_once(tmp_path: Path) -> None:
    engine = IsolatedEngine(tmp_path / "chroma")
    engine.apply(Call(CreateCollection(*HOME, False, None, None, None), None, 1))
    names = [f"id{n}" for n in range(300)]
    engine.apply(write(*names))
    failures: list[object] = []

    def read(number: int) -> None:
        try:
            for turn in range(30):
                name = names[(number * 31 + turn) % 300]
                if engine.get(C1, Get([name])).documents != [name]:
                    failures.append(name)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=read, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for _ in range(5):
        engine.apply(write(*names))
    for thread in threads:
        thread.join()
    assert failures == []
    engine.close()


def test_a_directory_that_cannot_be_used_is_a_fault(tmp_path: Path) -> None:
    (tmp_path / "chroma").write_text("not a directory")
    with pytest.raises(Fault, match="failed to open"):
        IsolatedEngine(tmp_path / "chroma")


def test_an_engine_that_dies_is_started_again_and_knows_what_the_one_before_made(tmp_path: Path) -> None:
    changes: list[None] = []
    engine = IsolatedEngine(tmp_path / "chroma", on_change=lambda: changes.append(None))
    engine.apply(Call(CreateCollection(*HOME, False, None, None, None), None, 1))
    engine.apply(write("a"))
    assert engine.pid is not None
    first = engine.pid
    os.kill(first, signal.SIGKILL)
    # Not a moment later: what the dead process had not taken in is no victim of its death.
    assert engine.count(C1) == 1
    condition = engine.condition()
    assert (condition.state, condition.restarts, condition.down_s) == ("serving", 1, 0.0)
    assert condition.pid not in (None, first)
    assert f"{first} ended by SIGKILL" in condition.last_death
    assert len(changes) == 3, "it was there, it was not, it was there again"
    engine.close()


def test_a_write_whose_engine_dies_says_so_and_is_right_when_repeated(tmp_path: Path) -> None:
    engine = IsolatedEngine(tmp_path / "chroma")
    engine.apply(Call(CreateCollection(*HOME, False, None, None, None), None, 1))
    names = [f"id{n}" for n in range(5000)]
    dead = threading.Event()

    def kill() -> None:
        while not dead.wait(0.2):
            pid = engine.pid
            with contextlib.suppress(ProcessLookupError):  # the last one is gone, the next one not there yet
                os.kill(pid or 1 << 30, signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    with pytest.raises(EngineDied, match="SIGKILL") as caught:
        write_for_ever(engine, names)
    dead.set()
    assert not caught.value.proven, "it was killed from outside"
    killer.join()
    patiently(lambda: engine.apply(write(*names)))
    assert engine.count(C1) == 5000
    engine.close()


def test_a_stopped_engine_is_replaced_and_no_read_is_to_blame(tmp_path: Path) -> None:
    engine = IsolatedEngine(tmp_path / "chroma")
    assert engine.pid is not None
    os.kill(engine.pid, signal.SIGSTOP)
    assert patiently(engine.documents) == 0
    assert "stopped by a signal" in engine.condition().last_death
    engine.close()


@pytest.mark.parametrize("what", ["crash", "hang", "spin"])
def test_words_that_end_the_process_are_answered_with_what_they_did(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    monkeypatch.setenv(MARKED_WORDS, "1")
    limits = Limits(hang_s=1.0, read_limit_s=1.5)
    engine = IsolatedEngine(tmp_path / "chroma", limits=limits)
    engine.apply(Call(CreateCollection(*HOME, False, None, None, None), None, 1))
    words = {"crash": "SIGSEGV", "hang": "did nothing", "spin": "of one read"}
    with pytest.raises(EngineDied, match=words[what]) as caught:
        engine.get(C1, Get(where_document=f'{{"$contains": "failpoint:engine:{what}"}}'))
    assert caught.value.proven
    assert patiently(lambda: engine.count(C1)) == 0
    engine.close()


def test_the_judge_is_a_process_too_and_comes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(MARKED_WORDS, "1")
    judge = IsolatedScratch()
    near = Scratch()
    try:
        for where in ('{"a": 1}', '{"$or": [1]}', '{"$and": []}'):
            assert str(patiently(partial(judge.judge_where, where, None))) == str(
                near.judge_where(where, None)
            )
        for name in ("fine-name", "x", "a..b"):
            asked = (name, {"k": 1}, None, None)
            assert str(judge.judge_create_collection(*asked)) == str(near.judge_create_collection(*asked))
        assert judge.judge_create_tenant("ab") is not None
        assert judge.judge_where('{"a": "\ud800"}', None) is not None, "what cannot be sent is refused"
        with pytest.raises(EngineDied, match="SIGSEGV"):
            judge.judge_where(None, '{"$contains": "failpoint:scratch:crash"}')
        assert patiently(lambda: judge.judge_where('{"a": 1}', None)) is None
    finally:
        judge.close()
        near.close()
    with pytest.raises(Unavailable):
        judge.judge_where('{"a": 1}', None)


def write_for_ever(engine: Engine, names: list[str]) -> None:
    """A kill that comes between two calls strikes none: then there is no process for a moment."""
    while True:
        patiently(lambda: engine.apply(write(*names)))


def patiently(ask: Callable[[], T]) -> T:
    """The answer, once there is a process to give it."""
    deadline = time.monotonic() + DEADLINE_S
    while True:
        try:
            return ask()
        except EngineUnavailable:
            assert time.monotonic() < deadline


def test_a_child_dies_with_its_killed_parent_and_a_new_one_takes_over(tmp_path: Path) -> None:
    directory = tmp_path / "chroma"
    parent = subprocess.Popen(
        [sys.executable, "-c", WRITES_FOR_EVER, str(directory), C1], stdout=subprocess.PIPE, text=True
    )
    with parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        parent.kill()
    engine = IsolatedEngine(directory)
    engine.apply(Call(CreateCollection(*HOME, False, None, None, None), None, 1))
    engine.apply(write("a", dimension=64))
    assert engine.get(C1, Get(["a"])).documents == ["a"]
    engine.close()
    deadline = time.monotonic() + DEADLINE_S
    while os.path.exists(f"/proc/{child}/fd/0"):
        assert time.monotonic() < deadline
