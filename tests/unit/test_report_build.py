"""The page and the documents from synthetic runs: self-contained, complete, nothing hidden, all escaped."""

from __future__ import annotations

import base64
import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from typing import TYPE_CHECKING

import pytest

from evaluation.checking.verdict import Finding, Verdict
from evaluation.record import RunRecord
from evaluation.report import build
from evaluation.report.documents import write_documents
from evaluation.report.markers import names, replaced, table
from evaluation.report.matrices import METRICS
from tests.unit import report_runs

if TYPE_CHECKING:
    from pathlib import Path

HOSTILE = "</title></style><script>alert('x')</script><img src=http://evil.example/x onerror=alert(1)>\"'&"


class Page(HTMLParser):
    """What a browser would make of it: tags with attributes, and the text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def built(folder: Path) -> Page:
    out = folder / "report" / "page.html"
    build(folder, out)
    return Page(out.read_text())


@pytest.fixture(scope="module")
def partial(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Good, losing and broken runs, an error, a run without verdict, and cells without a run."""
    tmp_path = tmp_path_factory.mktemp("partial")
    report_runs.good_run(1).write(tmp_path)
    report_runs.good_run(2).write(tmp_path)
    report_runs.losing_run().write(tmp_path)
    report_runs.losing_run("cluster", fault="pause-leader").write(tmp_path)
    report_runs.error_run().write(tmp_path)
    unjudged = report_runs.good_run(fault="kill-all")
    unjudged.judgement = None
    unjudged.write(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def page(partial: Path) -> Page:
    return built(partial)


@pytest.fixture
def document(partial: Path, tmp_path: Path) -> Path:
    """A document beside which nothing is yet."""
    return tmp_path / "evaluation.md"


def test_one_file_without_anything_from_elsewhere(partial: Path, page: Page) -> None:
    assert sorted(path.name for path in (partial / "report").iterdir()) == ["page.html", "page.json"]
    for tag, attributes in page.tags:
        for name in ("src", "href", "xlink:href", "data", "action", "srcset", "poster"):
            value = attributes.get(name) or ""
            assert value.startswith(("#", "data:image/png;base64,")) or not value, (tag, name, value[:80])
    assert not page.all("link")
    assert not page.all("iframe")
    text = (partial / "report" / "page.html").read_text()
    assert not re.search(r"@import|url\((?!#)", text)


def test_every_kind_of_standing_is_seen(partial: Path, page: Page) -> None:
    classes = " ".join(attributes.get("class") or "" for _, attributes in page.tags)
    for name in ("promise-broken", "anomaly", "error", "ok", "not-checked", "not-run"):
        assert f"cell {name}" in classes
    summary = json.loads((partial / "report" / "page.json").read_text())
    standing = {(cell["system"], cell["fault"]): cell["standing"] for cell in summary["cells"]}
    assert standing["cluster", "leader-isolated"] == "ok"
    assert standing["cluster", "pause-leader"] == "promise broken"
    assert standing["cluster", "kill-all"] == "not checked"
    assert standing["naive-lww", "leader-isolated"] == "anomaly"
    assert standing["naive-lww", "disk-full"] == "error"
    assert standing["naive-lww", "kill-all"] == "not run"


def test_links_of_cells_lead_to_runs(page: Page) -> None:
    ids = {attributes.get("id") for _, attributes in page.tags}
    targets = {str(one["href"])[1:] for one in page.all("a") if str(one.get("href")).startswith("#run-")}
    assert targets
    assert targets <= ids


def test_every_run_has_its_command_seed_and_timeline(partial: Path, page: Page) -> None:
    runs = [one for one in page.all("details") if one.get("class") == "run"]
    assert len(runs) == 6
    images = page.all("img")
    assert len(images) == 5  # the error run has no history
    for image in images:
        assert base64.b64decode(str(image["src"]).split(",")[1]).startswith(b"\x89PNG")
        assert image["alt"]
    for path in partial.glob("*/*/*/run.json"):
        assert RunRecord.load(path.parent).command in page.text
    assert "chroma-2 does not answer" in page.text


def test_a_folder_gets_an_index(tmp_path: Path) -> None:
    assert build(tmp_path, tmp_path / "report") == tmp_path / "report" / "index.html"
    assert {path.name for path in (tmp_path / "report").iterdir()} == {"index.html", "index.json"}


def test_an_empty_folder_says_so(tmp_path: Path) -> None:
    page = built(tmp_path)
    assert "There is no run in this folder." in page.text
    assert "No violation was found in these runs." in page.text


def test_hostile_texts_stay_texts(tmp_path: Path) -> None:
    run = report_runs.losing_run("cluster")
    run.record.command = run.record.error = HOSTILE
    run.record.workloads = [HOSTILE]
    run.record.fault_detail = {HOSTILE: HOSTILE, "list": [HOSTILE], "table": {HOSTILE: HOSTILE}}
    run.record.versions = {HOSTILE: HOSTILE}
    run.record.events[0] = run.record.events[0].__class__(at_ns=0, kind=HOSTILE, member=HOSTILE, text=HOSTILE)
    run.record.entries[0]["side"] = HOSTILE
    finding = Finding("lost", Verdict.VIOLATION, count=1, detail=HOSTILE, example=(0, 1))
    run.judgement = report_runs.judgement(lost=finding)
    run.write(tmp_path)
    run.record.error, run.record.seed = "", 2
    run.write(tmp_path)
    (tmp_path / "matrix.json").write_text(
        json.dumps({"systems": [HOSTILE], "faults": [HOSTILE], HOSTILE: [HOSTILE]})
    )
    (tmp_path / "cost.json").write_text("{")
    clean = tmp_path.parent / f"{tmp_path.name}-clean"
    report_runs.losing_run("cluster").write(clean)
    page, other = built(tmp_path), built(clean)
    assert HOSTILE in "".join(page.words)
    assert len(page.all("script")) == len(other.all("script")) == 1
    assert all(str(image["src"]).startswith("data:") for image in page.all("img"))
    assert not any("onerror" in attributes for _, attributes in page.tags)
    assert "cost.json" in page.text


def test_a_damaged_history_is_shown_as_such(tmp_path: Path) -> None:
    folder = report_runs.good_run().write(tmp_path)
    (folder / "history.jsonl").write_text("{}\n")
    assert "the history cannot be read" in built(tmp_path).text


def test_numbers_not_measured_are_dashes(tmp_path: Path) -> None:
    run = report_runs.good_run()
    run.judgement = report_runs.judgement(lost=Verdict.OK)
    run.write(tmp_path)
    built(tmp_path)
    cell = json.loads((tmp_path / "report" / "page.json").read_text())["cells"][0]
    assert (cell["lost"], cell["stale"], cell["duplicated"]) == (0, None, None)
    assert {cell["text"][metric.id] for metric in METRICS} == {"0", "\N{EN DASH}"}


DOCUMENT = """# Title

By hand.

<!-- generated: overview -->
old
<!-- end of overview -->

Between, by hand.

<!-- generated: verdicts -->
<!-- end of verdicts -->
"""


def test_documents_keep_what_was_written_by_hand(partial: Path, document: Path) -> None:
    document.write_text(DOCUMENT)
    files = write_documents(partial, document)
    text = document.read_text()
    assert [path.relative_to(document.parent).as_posix() for path in files] == [
        "evaluation.md",
        "evaluation/verdicts.svg",
    ]
    assert text.startswith("# Title\n\nBy hand.\n")
    assert "\nBetween, by hand.\n" in text
    assert "old" not in text
    assert "| `cluster` |" in text
    assert "(evaluation/verdicts.svg)" in text
    write_documents(partial, document)
    assert document.read_text() == text


def test_all_blocks_can_be_made_and_figures_of_earlier_runs_go(partial: Path, document: Path) -> None:
    blocks = [
        "provenance",
        "overview",
        "guide",
        "verdicts",
        "staleness",
        "counter-examples",
        "timelines",
        "cost",
    ]
    blocks += ["compactor", *(f"table-{metric.id}" for metric in METRICS)]
    document.write_text("\n".join(f"<!-- generated: {name} -->\n<!-- end of {name} -->" for name in blocks))
    figures = document.parent / "evaluation"
    figures.mkdir()
    (figures / "old.svg").write_text("")
    (figures / "notes.md").write_text("")
    files = write_documents(partial, document)
    there = {path.name for path in figures.iterdir()}
    assert there == {path.name for path in files[1:]} | {"notes.md"}
    images = re.findall(r"\]\(evaluation/([^)]+)\)", document.read_text())
    assert sorted(images) == sorted(path.name for path in files[1:])
    assert names(document.read_text()) == blocks


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("<!-- generated: overview -->", "no end"),
        ("<!-- generated: strange -->\n<!-- end of strange -->", "no such block"),
        ("<!-- generated: cost -->\n<!-- end of cost -->\n" * 2, "twice"),
    ],
)
def test_wrong_markers_change_nothing(partial: Path, document: Path, text: str, words: str) -> None:
    document.write_text(text)
    with pytest.raises(ValueError, match=words):
        write_documents(partial, document)
    assert document.read_text() == text


def test_markdown_tables_survive_pipes_and_line_breaks() -> None:
    assert table(["a", "b"], [["x|y", "1\n2"]], frozenset({1})) == "| a | b |\n|---|--:|\n| x\\|y | 1 2 |"
    marked = "<!-- generated: a -->\n<!-- end of a -->"
    assert replaced(marked, {"a": "new"}) == "<!-- generated: a -->\n\nnew\n\n<!-- end of a -->"


def test_judging_does_not_load_the_figures() -> None:
    code = "import sys, evaluation.report.standing, evaluation.report; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
