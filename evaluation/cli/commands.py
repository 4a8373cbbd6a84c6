"""The evaluation's commands of `chroma-cluster`: what they are called with and what their help says.

The entry points in `pyproject.toml` name them, so that `cluster` need not know them. The help of
`chroma-cluster` imports this module: what the commands do, and the packages that it needs, waits until
one is called.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cluster.cli.messages import fail

if TYPE_CHECKING:
    from types import ModuleType


def evaluate(
    systems: Annotated[
        str | None, typer.Option(metavar="A,B,...", help="Which systems (all).", show_default=False)
    ] = None,
    faults: Annotated[
        str | None, typer.Option(metavar="A,B,...", help="Which faults (all).", show_default=False)
    ] = None,
    workloads: Annotated[
        str | None, typer.Option(metavar="A,B,...", help="Which workloads (all).", show_default=False)
    ] = None,
    minutes: Annotated[
        float | None,
        typer.Option(min=0, help="Begin no run that would not be over by then.", show_default=False),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="The first seed.")] = 1,
    seeds: Annotated[int, typer.Option(min=1, help="How many seeds, from the first on.")] = 1,
    out: Annotated[
        Path, typer.Option(metavar="DIR", help="Where runs are saved; finished ones are not done again.")
    ] = Path("evaluation-runs"),
    quick: Annotated[
        bool, typer.Option("--quick", help="Only the essence: the sharpest faults, each weak system once.")
    ] = False,
) -> None:
    """Run systems under faults and judge what clients saw; an interrupted evaluation goes on where it ended.

    Exit code 0: all as expected; 1: a promise is broken, or a weak system showed nothing where it must;
    2: a run ended in an error, or undecided.
    """
    raise typer.Exit(
        verbs().evaluate(
            systems=systems,
            faults=faults,
            workloads=workloads,
            minutes=minutes,
            seed=seed,
            seeds=seeds,
            out=out,
            quick=quick,
        )
    )


def judge(folder: Annotated[Path, typer.Argument(metavar="DIR")]) -> None:
    """Judge the saved runs of an evaluation again. Exit codes as of `evaluate`."""
    raise typer.Exit(verbs().judge(folder))


def report(
    folder: Annotated[Path, typer.Argument(metavar="DIR")],
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Where the report goes (DIR/report).", show_default=False),
    ] = None,
) -> None:
    """Write the report of an evaluation's saved runs: pages and figures that need no network."""
    raise typer.Exit(verbs().report(folder, out or folder / "report"))


def verbs() -> ModuleType:
    """What the commands do; it needs packages of its own, which a cluster does not."""
    try:
        return import_module("evaluation.cli.verbs")
    except ModuleNotFoundError as error:
        fail(
            f"The evaluation needs the package {error.name}, which is not installed. In a checkout, "
            "`make chaos` installs all of it; elsewhere: pip install 'chroma-cluster[evaluation]'.",
            code=2,
        )
