"""What the demo looks like: on a terminal with colours and moving bars, in a log as plain lines."""

from __future__ import annotations

from collections import Counter
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.padding import Padding
from rich.panel import Panel
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text as RichText

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping, Sequence

    from cluster.cli.demo.corpus import Text
    from cluster.cli.demo.findings import Findings
    from cluster.cli.demo.ledger import Ledger, Pause

INDENT = 4
NAME_CHARACTERS = 32
SHOWN_DIFFERENCES = 5


class Bar:
    """A progress bar: call it with how much was done; `say` prints a line above it."""

    def __init__(self, progress: Progress, task: Any) -> None:
        self._progress = progress
        self._task = task

    def __call__(self, count: int) -> None:
        self._progress.advance(self._task, count)

    def say(self, line: str) -> None:
        """A line that stays, while the bar goes on."""
        self._progress.console.print(
            Padding(RichText(f"✗ {line}", style="bold red"), (0, 0, 0, INDENT - 2), expand=False)
        )


class Show:
    """Prints the demo."""

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console(highlight=False)
        self._steps = 0

    def title(self) -> None:
        """What is about to be seen."""
        self._console.print(
            Panel(
                "Three Chromas behind one address. Python's own documentation goes in, "
                "the leader is killed while it is being written to, and then every record "
                "on every node is compared.",
                title="[bold]chroma-cluster demo[/]",
                border_style="cyan",
                width=min(76, self._console.width),
                padding=(0, 2),
            )
        )

    def step(self, words: str) -> None:
        """The next chapter."""
        self._steps += 1
        self._console.print()
        self._console.print(f"[bold cyan]{self._steps}[/] [bold]{escape(words)}[/]")

    def done(self, words: str) -> None:
        """Something went well."""
        self._line("[green]✓[/]", words)

    def bad(self, words: str) -> None:
        """Something did not."""
        self._line("[bold red]✗[/]", words)

    def failed(self, words: str) -> None:
        """The demo ends here."""
        self._console.print()
        self._console.print(f"[bold red]✗[/] {escape(words)}")

    @contextmanager
    def waiting(self, words: str) -> Generator[None]:
        """Something takes a moment."""
        if not self._console.is_terminal:
            yield
            return
        with self._console.status(f"[dim]{escape(words)} …[/]", spinner="dots"):
            yield

    @contextmanager
    def progress(self, total: int) -> Generator[Bar]:
        """A bar over `total` texts; in a log it is one line when all is done."""
        progress = Progress(
            TextColumn(" " * (INDENT - 2)),
            BarColumn(bar_width=44),
            MofNCompleteColumn(),
            TextColumn("texts"),
            TimeElapsedColumn(),
            console=self._console,
            transient=True,
            disable=not self._console.is_terminal,
        )
        with progress:
            yield Bar(progress, progress.add_task("", total=total))

    def nodes(self, status: Mapping[str, Any]) -> None:
        """Who leads and who follows."""
        parts = [
            f"[bold yellow]{node['id']} leads[/]"
            if node["id"] == status["leader"]
            else f"{node['id']} follows"
            for node in status["nodes"]
        ]
        self._console.print(Padding(" · ".join(parts), (0, 0, 0, INDENT), expand=False))

    def corpus(self, texts: Sequence[Text], found: int) -> None:
        """What will be indexed."""
        kinds = Counter(text.kind for text in texts)
        parts = ", ".join(
            f"{kinds[kind]:,} {name}"
            for kind, name in (
                ("topic", "pieces of the language reference"),
                ("module", "modules"),
                ("class", "classes"),
                ("function", "functions and methods"),
            )
        )
        some = "" if len(texts) == found else f" of {found:,}"
        characters = sum(len(text.words) for text in texts)
        self.done(f"{len(texts):,}{some} texts, {characters / 1e6:.1f} million characters: {parts}")

    def answers(self, answers: Sequence[tuple[str, Sequence[tuple[str, str, float]]]]) -> None:
        """Questions with their best answers."""
        for question, hits in answers:
            self._console.print(
                Padding(f"[italic]{escape(question)}[/]", (0, 0, 0, INDENT - 2), expand=False)
            )
            for key, words, similarity in hits:
                name = escape(_cut(key, NAME_CHARACTERS).ljust(NAME_CHARACTERS))
                rest = self._console.width - INDENT - len("0.00") - NAME_CHARACTERS - 4
                first = escape(_cut(_first_line(words), rest))
                self._console.print(f"{' ' * INDENT}[dim]{similarity:.2f}[/]  [cyan]{name}[/]  {first}")

    def survived(self, killed: str, leader: str | None, ledger: Ledger, pause: Pause | None) -> None:
        """How the kill went."""
        usual = ledger.usual_gap()
        if leader is not None and leader != killed:
            self.done(f"{leader} leads now; the writers only saw a pause")
        if pause is not None and usual is not None:
            self.done(
                f"writes paused for {_seconds(pause.seconds)} "
                f"(usually {_seconds(usual)} between two answers), then went on to the end"
            )
        if ledger.retries:
            self.done(f"{ledger.retries:,} writes got an error and were sent again by the client")
        else:
            self.done("no write got an error: the balancer held them until the new leader was there")

    def read_back(self, findings: Findings) -> None:
        """Nothing lost?"""
        kept = findings.acknowledged - len(findings.lost)
        words = f"{findings.acknowledged:,} texts acknowledged, {kept:,} read back word by word, "
        if findings.lost:
            self.bad(f"{words}{len(findings.lost):,} LOST: {', '.join(findings.lost[:SHOWN_DIFFERENCES])}")
        else:
            self.done(f"{words}none lost")

    def comparison(self, findings: Findings) -> None:
        """A line for each node, and what differs."""
        table = Table(box=None, padding=(0, 2), header_style="dim", pad_edge=False)
        table.add_column("node")
        table.add_column("records", justify="right")
        table.add_column("vectors", justify="right")
        table.add_column("dimensions", justify="right")
        table.add_column("digest of all", no_wrap=True)
        values = Counter(digest.value for digest in findings.digests.values())
        usual = values.most_common(1)[0][0] if values else ""
        for name, digest in findings.digests.items():
            style = "green" if digest.value == usual else "bold red"
            killed = " (killed)" if name == findings.killed else ""
            table.add_row(
                f"{name}{killed}",
                f"{digest.records:,}",
                f"{digest.vectors:,}",
                f"{digest.dimension}",
                f"[{style}]{digest.value}[/]",
            )
        self._console.print(Padding(table, (0, 0, 0, INDENT), expand=False))
        if not findings.differing:
            self.done("identical, to the last bit")
            return
        self.bad(f"{len(findings.differing):,} records differ:")
        for one in findings.differing[:SHOWN_DIFFERENCES]:
            self._line(" ", f"{one.id}: {', '.join(one.fields)} on {', '.join(one.nodes)}")

    def summary(self, findings: Findings) -> None:
        """The whole demo in one frame."""
        table = Table.grid(padding=(0, 2))
        table.add_column(justify="right", style="bold")
        table.add_column()
        table.add_row(f"{findings.acknowledged:,}", "texts acknowledged by the cluster")
        lost = len(findings.lost)
        table.add_row(f"[{'green' if not lost else 'bold red'}]{lost:,}[/]", "of them lost")
        if findings.pause_s is not None:
            table.add_row(_seconds(findings.pause_s), f"without an answer when {findings.killed} was killed")
        table.add_row(f"{findings.caught_up_s:.1f} s", "from its restart until it had everything again")
        differing = len(findings.differing)
        table.add_row(
            f"[{'green' if not differing else 'bold red'}]{differing:,}[/]",
            f"records that differ between {len(findings.digests)} nodes",
        )
        good = findings.good
        self._console.print()
        self._console.print(
            Panel(
                table,
                title="[bold green]Nothing was lost[/]" if good else "[bold red]Something is wrong[/]",
                border_style="green" if good else "red",
                expand=False,
                padding=(0, 2),
            )
        )

    def kept(self, data: str) -> None:
        """How to go on with a cluster that still runs."""
        self._console.print()
        self._console.print(
            f"The cluster is still running. Stop it: chroma-cluster down --data {escape(data)}"
        )

    def _line(self, mark: str, words: str) -> None:
        table = Table.grid(padding=(0, 1))
        table.add_row(mark, escape(words))
        self._console.print(Padding(table, (0, 0, 0, INDENT - 2), expand=False))


def _cut(words: str, characters: int) -> str:
    return words if len(words) <= characters else words[: max(0, characters - 1)] + "…"


def _first_line(words: str) -> str:
    """The first line of a text that says something; reference chapters begin with a heading."""
    lines = [line.strip() for line in words.splitlines() if line.strip() and set(line.strip()) - set("*=-~^")]
    return lines[0] if lines else ""


def _seconds(value: float) -> str:
    return f"{value * 1000:.0f} ms" if value < 1 else f"{value:.1f} s"
