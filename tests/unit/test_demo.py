"""The demo's parts that decide something: which texts, what was lost, how long a pause, what differs."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from chromadb.errors import InvalidArgumentError, RateLimitError
from rich.console import Console

from cluster.cli.demo import corpus, story, writing
from cluster.cli.demo.compare import digest, records_in
from cluster.cli.demo.findings import Findings
from cluster.cli.demo.ledger import Difference, Ledger, Pause, Record, differences
from cluster.cli.demo.local import DemoError, LocalCluster, Node
from cluster.cli.demo.show import Show

if TYPE_CHECKING:
    from pathlib import Path

LONG = "Say at length what this is for, so that somebody may want to find it again."


# --- texts ---------------------------------------------------------------------------------------


def test_docstrings_are_found_from_the_module_down_to_methods() -> None:
    source = f'''
"""{LONG} The module."""

class Thing:
    """{LONG} The class."""

    async def act(self):
        """{LONG} The method."""

    def _inner(self):
        """{LONG} Private."""

def short():
    """Too short."""
'''
    found = list(corpus.docstrings(source.encode(), "pkg.mod"))
    assert [(text.id, text.kind) for text in found] == [
        ("pkg.mod", "module"),
        ("pkg.mod.Thing", "class"),
        ("pkg.mod.Thing.act", "function"),
    ]
    assert found[1].metadata == {"kind": "class", "module": "pkg.mod", "line": 4}


def test_a_library_is_parsed_and_never_run(tmp_path: Path) -> None:
    (tmp_path / "good.py").write_text(f'"""{LONG}"""\nraise SystemExit("was run")\n')
    (tmp_path / "broken.py").write_text("def (:\n")
    (tmp_path / "odd.py").write_text(f'"""{LONG} \\d"""\n')
    for folder in ("test", "site-packages", "pkg"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "__init__.py").write_text(f'"""{LONG}"""\n')
    assert [text.id for text in corpus.library(tmp_path)] == ["good", "odd", "pkg"]


def test_chapters_are_cut_between_paragraphs() -> None:
    paragraphs = [f"paragraph {n} " + "x" * 400 for n in range(5)]
    found = list(corpus.topics({"b": "short", "a": "\n\n".join(paragraphs)}))
    assert [text.id for text in found] == ["topic a 1", "topic a 2", "topic a 3"]
    assert "\n\n".join(text.words for text in found) == "\n\n".join(paragraphs)


def test_a_sample_is_spread_evenly_and_has_no_doubles() -> None:
    texts = [corpus.Text(f"t{n % 90}", "topic", "m", n, "words") for n in range(100)]
    distinct = list(corpus.unique(texts))
    assert len(distinct) == 90
    sample = corpus.sample(distinct, 30)
    assert [text.line for text in sample] == list(range(0, 90, 3))
    assert corpus.sample(distinct, 500) == distinct


# --- the books -----------------------------------------------------------------------------------


def ledger_of(*times: float) -> Ledger:
    clock = iter(times)
    ledger = Ledger(lambda: next(clock))
    for n in range(len(times)):
        ledger.acknowledged({f"id{n}": f"words {n}"})
    return ledger


def test_the_longest_pause_is_between_two_answers_after_the_kill() -> None:
    ledger = ledger_of(0.0, 5.0, 5.1, 5.2, 6.7, 6.8)
    assert ledger.longest_pause(5.15) == Pause(pytest.approx(1.5), 5.2)
    assert ledger.longest_pause(0.0) == Pause(5.0, 0.0)
    assert ledger.longest_pause(9.0) is None
    assert ledger.usual_gap() == pytest.approx(0.1)
    assert ledger_of(1.0).usual_gap() is None


def test_an_acknowledged_text_that_is_missing_or_changed_is_lost() -> None:
    ledger = ledger_of(0, 1, 2)
    assert ledger.lost({"id0": "words 0", "id1": "words 1", "id2": "words 2", "more": "x"}) == []
    assert ledger.lost({"id0": "words 0", "id1": "other"}) == ["id1", "id2"]
    assert ledger.lost({"id0": None, "id1": "words 1", "id2": "words 2"}) == ["id0"]


# --- comparing nodes -----------------------------------------------------------------------------


def record(vector: list[float], document: str | None = "d", metadata: Any = None) -> Record:
    return Record(document, metadata, None, np.asarray(vector, dtype="<f4").tobytes())


def test_equal_nodes_do_not_differ_in_any_order() -> None:
    a = {"x": record([1, 2]), "y": record([3, 4], metadata={"n": 1})}
    b = dict(reversed(a.items()))
    assert differences({"n1": a, "n2": b}) == []
    assert digest(a) == digest(b)
    assert (digest(a).records, digest(a).vectors, digest(a).dimension) == (2, 2, 2)


@pytest.mark.parametrize(
    ("other", "fields"),
    [
        ({"x": record([1, 2.0000002])}, ("vector",)),
        ({"x": record([1, 2], document="e")}, ("document",)),
        ({"x": record([1, 2], metadata={"n": 1})}, ("metadata",)),
        ({"x": record([1, 2], document=None, metadata={"n": 2})}, ("document", "metadata")),
    ],
)
def test_one_bit_is_a_difference(other: dict[str, Record], fields: tuple[str, ...]) -> None:
    same = {"x": record([1, 2])}
    assert differences({"n1": same, "n2": dict(same), "n3": other}) == [Difference("x", fields, ("n3",))]
    assert digest(same).value != digest(other).value


def test_a_missing_record_is_a_difference() -> None:
    found = differences({"n1": {"x": record([1])}, "n2": {}, "n3": {"x": record([1])}})
    assert [(one.id, one.nodes) for one in found] == [("x", ("n2",))]


def test_the_json_form_of_a_vector_gives_its_bits_back() -> None:
    import orjson

    vector = np.random.default_rng(3).standard_normal(256).astype("<f4")
    page = {
        "ids": ["x", "y"],
        "documents": ["d", None],
        "metadatas": [None, {"n": 1}],
        "embeddings": [orjson.loads(orjson.dumps(vector, option=orjson.OPT_SERIALIZE_NUMPY)), None],
        "uris": None,
    }
    records = dict(records_in(page))
    assert records["x"] == Record("d", None, None, vector.tobytes())
    assert records["y"] == Record(None, {"n": 1}, None, None)


# --- writing -------------------------------------------------------------------------------------


class Shaky:
    """A collection whose cluster has hiccups."""

    def __init__(self, failures: list[Exception]) -> None:
        self.failures = failures
        self.stored: list[str] = []

    def add(self, ids: list[str], **_: Any) -> None:
        if self.failures:
            raise self.failures.pop()
        self.stored.extend(ids)


TEXTS = [corpus.Text(f"t{n}", "topic", "m", n, f"words {n}") for n in range(10)]


def test_what_is_not_acknowledged_is_sent_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writing, "RETRY_WAIT_S", 0)
    shaky: Any = Shaky([Exception("503 unavailable"), RateLimitError("later")])
    ledger = Ledger(lambda: 0.0)
    counts: list[int] = []
    writing.write_all(shaky, TEXTS, ledger, batch_size=4, writers=2, progress=counts.append)
    assert sorted(shaky.stored) == sorted(ledger.words) == sorted(text.id for text in TEXTS)
    assert sorted(counts) == [2, 4, 4]
    assert ledger.retries == 2


def test_a_final_refusal_ends_the_demo_with_its_reason() -> None:
    shaky: Any = Shaky([InvalidArgumentError("no such thing")])
    ledger = Ledger(lambda: 0.0)
    with pytest.raises(DemoError, match="no such thing"):
        writing.write_all(shaky, TEXTS, ledger, batch_size=10, writers=1, progress=lambda _: None)
    assert ledger.words == {}


# --- the end -------------------------------------------------------------------------------------


def plain() -> tuple[Show, io.StringIO]:
    out = io.StringIO()
    return Show(Console(file=out, width=100, highlight=False)), out


def good_findings() -> Findings:
    same = digest({"x": record([1])})
    return Findings(acknowledged=7, pause_s=0.25, caught_up_s=2, digests={"a": same, "b": same}, killed="a")


def test_the_summary_says_what_was_found() -> None:
    show, out = plain()
    findings = good_findings()
    show.comparison(findings)
    show.summary(findings)
    assert findings.good
    assert "Nothing was lost" in out.getvalue()
    assert "250 ms" in out.getvalue()
    assert "identical" in out.getvalue()


def test_a_loss_or_a_difference_is_said_and_is_not_good() -> None:
    show, out = plain()
    lost = good_findings()
    lost.lost = ["csv.reader"]
    show.read_back(lost)
    differing = good_findings()
    differing.differing = [Difference("gzip", ("vector",), ("node-2",))]
    show.comparison(differing)
    show.summary(differing)
    assert not lost.good
    assert not differing.good
    assert not Findings().good
    assert "LOST: csv.reader" in out.getvalue()
    assert "gzip: vector on node-2" in out.getvalue()
    assert "Something is wrong" in out.getvalue()


@pytest.mark.parametrize("error", [DemoError("no leader"), KeyboardInterrupt()])
@pytest.mark.parametrize("keep", [True, False])
def test_processes_are_stopped_whatever_happens(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, error: BaseException, keep: bool
) -> None:
    stopped: list[Path] = []

    def fail(_: LocalCluster, __: int | None) -> None:
        (tmp_path / "cluster.json").write_text("{}")
        raise error

    monkeypatch.setattr(LocalCluster, "up", fail)
    monkeypatch.setattr(LocalCluster, "nodes", lambda _: list[Node]())
    monkeypatch.setattr(LocalCluster, "stop_for_sure", lambda cluster: stopped.append(cluster.data))
    show, out = plain()
    code = story.run(data=tmp_path, keep=keep, show=show)
    assert code == (130 if isinstance(error, KeyboardInterrupt) else 1)
    assert stopped == ([] if keep else [tmp_path])
    assert ("no leader" in out.getvalue()) == isinstance(error, DemoError)
    assert tmp_path.exists()
