"""The `chroma-cluster` command: a cluster on this machine (`up`, `down`, `restart`, `status`, `demo`), or one
process of one; other packages plug in further commands (`cluster.cli.plugins`).

Exit codes: 0 done, 1 it did not work (the reason is on stderr), 2 wrong usage or settings; `status` also
has 3, it serves but a node is not ready.
Heavy modules are imported by the commands that need them, so that `--help` is quick.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from cluster.cli.members_commands import members_app
from cluster.cli.messages import fail
from cluster.cli.moving_commands import export, import_
from cluster.cli.plugins import PluggableGroup
from cluster.errors import ClusterError

if TYPE_CHECKING:
    from cluster.cli.layout import DataDirectory
    from cluster.cli.plan import ClusterPlan
    from cluster.cli.verifying import Members

app = typer.Typer(
    cls=PluggableGroup,
    help="A replicated, highly available Chroma: stock clients, no single point of failure.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

DataOption = Annotated[
    Path, typer.Option("--data", metavar="DIR", help="The cluster's data directory.", show_default=True)
]
DEFAULT_DATA = Path("data")


def main() -> None:
    """Entry point of the `chroma-cluster` command."""
    try:
        app(prog_name="chroma-cluster")
    except ClusterError as error:
        fail(error.message)
    except OSError as error:  # not permitted to signal a process, no space left to print to, ...
        fail(f"It did not work: {error}")
    finally:
        _let_go_of_lost_output()


def _let_go_of_lost_output() -> None:
    """Drop what cannot be printed any more (the terminal is closed, a pipe's reader is gone).

    Otherwise Python, as it ends, tries again to print it, fails, and spoils the exit code.
    """
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            with contextlib.suppress(OSError), open(os.devnull, "wb") as nowhere:
                os.dup2(nowhere.fileno(), stream.fileno())


@app.command()
def up(
    nodes: Annotated[
        int | None,
        typer.Option(
            min=1, max=9, help="How many nodes the cluster has (first time: 3).", show_default=False
        ),
    ] = None,
    data: DataOption = DEFAULT_DATA,
    port: Annotated[
        int | None,
        typer.Option(min=1, max=65535, help="Where clients reach it (first time: 8000).", show_default=False),
    ] = None,
    detach: Annotated[
        bool, typer.Option("--detach", "-d", help="Return when the cluster answers writes.")
    ] = False,
    timeout: Annotated[
        float, typer.Option(min=1, metavar="SECONDS", help="How long it may take to answer writes.")
    ] = 60.0,
) -> None:
    """Start a cluster on this machine, or what is missing of it.

    The first time, DIR gets a new cluster; later the same cluster resumes. On a running cluster only
    what is missing (a killed node, a killed balancer) is started.

    Without --detach a live view of the cluster follows. Ctrl-C stops the cluster, if this command
    started it; if it was running before, Ctrl-C only ends the view.
    """
    from cluster.cli.up import bring_up

    raise typer.Exit(bring_up(directory_at(data), nodes=nodes, port=port, detach=detach, timeout_s=timeout))


@app.command()
def down(data: DataOption = DEFAULT_DATA) -> None:
    """Stop the cluster's processes on this machine; its data stays. Nothing to stop is fine."""
    from cluster.cli.locks import exclusive
    from cluster.cli.messages import plain_console
    from cluster.cli.plan import title
    from cluster.cli.supervisor import Supervisor

    console = plain_console()
    directory = directory_at(data)
    plan = directory.read_plan()
    if plan is None:
        console.print(f"No cluster in {directory.root}: nothing to stop.")
        return
    directory.prepare()
    with exclusive(directory):
        supervisor = Supervisor(directory, plan)
        stopped = supervisor.stop(list(supervisor.names))
    for name, was_killed in stopped.items():
        console.print(f"stopped {title(name)}" + (" (it had to be killed)" if was_killed else ""))
    console.print("The cluster is down." if stopped else "The cluster is not running: nothing to stop.")


@app.command()
def restart(
    data: DataOption = DEFAULT_DATA,
    rolling: Annotated[
        bool, typer.Option("--rolling", help="One node at a time, while the cluster answers (needed).")
    ] = False,
    timeout: Annotated[
        float, typer.Option(min=1, metavar="SECONDS", help="How long each node may take to catch up.")
    ] = 120.0,
) -> None:
    """Restart every node, one at a time: followers first, the leader last, after it handed leadership over.

    It goes on only when the restarted node has caught up and the balancer uses it again. The balancer is left
    alone. Exit code 0: all nodes were restarted and are ready; 1: not, and stderr says which were.
    """
    from cluster.cli.rolling import restart_rolling

    if not rolling:
        fail("Say `restart --rolling`. To stop all nodes at once use `down`, then `up`.", code=2)
    directory = directory_at(data)
    raise typer.Exit(restart_rolling(directory, known_plan(directory), timeout_s=timeout))


@app.command()
def status(
    data: DataOption = DEFAULT_DATA,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print JSON for programs; with --watch one line a second.")
    ] = False,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Look again and again, until Ctrl-C.")] = False,
) -> None:
    """Show each node and the balancer.

    Exit code 0: it has a leader and a healthy balancer, and every node is ready; 3: it serves, but not every
    node is ready; 1: it has no leader or no healthy balancer.
    """
    from cluster.cli.overview import look

    directory = directory_at(data)
    plan = known_plan(directory)
    if watch:
        watch_status(directory, plan, as_json=as_json)
        return
    overview = look(directory, plan)
    if as_json:
        typer.echo(json.dumps(overview.as_json(), indent=2))
    else:
        from cluster.cli.status_view import render

        # Into a pipe or a file: wide enough for every number, whatever the terminal.
        Console(width=None if sys.stdout.isatty() else 120).print(render(overview))
    raise typer.Exit(1 if not overview.serving else 0 if overview.complete else 3)


def watch_status(directory: DataDirectory, plan: ClusterPlan, *, as_json: bool) -> None:
    """Show the cluster again and again, until Ctrl-C."""
    from rich.live import Live

    from cluster.cli.interrupts import Interrupts
    from cluster.cli.overview import look
    from cluster.cli.status_view import render

    interrupts = Interrupts()
    with interrupts.installed():
        if as_json:
            typer.echo(json.dumps(look(directory, plan).as_json()))
            while not interrupts.wait(1):
                typer.echo(json.dumps(look(directory, plan).as_json()))
            return
        with Live(console=Console(), auto_refresh=False) as live:
            live.update(render(look(directory, plan)), refresh=True)
            while not interrupts.wait(1):
                live.update(render(look(directory, plan)), refresh=True)


@app.command()
def demo(
    data: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="A data directory to use and keep; without it a temporary one.",
            show_default=False,
        ),
    ] = None,
    keep: Annotated[bool, typer.Option("--keep", help="Leave the cluster running in the end.")] = False,
    texts: Annotated[
        int | None, typer.Option(min=100, help="How many texts to index.", show_default=False)
    ] = None,
    port: Annotated[
        int | None, typer.Option(min=1, max=65535, help="The balancer's port.", show_default=False)
    ] = None,
) -> None:
    """Index real texts, ask questions, kill the leader while writing, and compare all nodes."""
    from cluster.cli.demo import run

    done = (
        run(data=data, keep=keep, port=port)
        if texts is None
        else run(data=data, keep=keep, port=port, texts=texts)
    )
    raise typer.Exit(done)


UrlOption = Annotated[
    str | None,
    typer.Option("--url", metavar="URL", help="A node's URL, in place of --data.", show_default=False),
]
SecretOption = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="The cluster's secret, with --url.", show_default=False),
]


@app.command()
def verify(
    data: DataOption = DEFAULT_DATA,
    url: UrlOption = None,
    secret_file: SecretOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for programs.")] = False,
) -> None:
    """Compare what all nodes have, record by record where they differ, while they serve.

    Exit code 0: all have the same; 1: something differs, and it is named; 2: it could not be done, or not on
    every node.
    """
    from cluster.cli.verifying import exit_code, lines
    from cluster.cli.verifying import verify as compare

    terminal = sys.stderr.isatty() and not as_json

    def watch(line: str) -> None:
        if terminal:
            print(f"\r\x1b[K{line}", end="", file=sys.stderr, flush=True)

    result = compare(known_members(data, url, secret_file), watch)
    if terminal:
        print("\r\x1b[K", end="", file=sys.stderr, flush=True)
    if as_json:
        typer.echo(json.dumps(result, indent=2))
    else:
        for line in lines(result):
            typer.echo(line)
    raise typer.Exit(exit_code(result))


@app.command()
def repair(
    data: DataOption = DEFAULT_DATA,
    node: Annotated[
        str | None,
        typer.Option(metavar="ID", help="This node, whatever is known of it.", show_default=False),
    ] = None,
    collection: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Only nodes whose copy of this collection differs (they are filled as a whole).",
            show_default=False,
        ),
    ] = None,
    donor: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="ID",
            help="This node's copy is right: yours to say where no majority does.",
            show_default=False,
        ),
    ] = None,
    timeout: Annotated[
        float, typer.Option(min=1, metavar="SECONDS", help="How long each node may take.")
    ] = 3600.0,
) -> None:
    """Fill nodes that a verification found to differ with a copy of one that is right; the rest serves on.

    All nodes are compared in the end. Exit code 0: all have the same; 1: something still differs; 2: it
    could not be done.
    """
    from cluster.cli.repairing import Order
    from cluster.cli.repairing import repair as mend
    from cluster.cli.verifying import exit_code, lines
    from cluster.cli.verifying import verify as compare

    plan = known_plan(directory_at(data))
    if not mend(plan, Order(node, collection, donor), timeout, typer.echo):
        typer.echo("Nothing is known to differ, so nothing was done. `chroma-cluster verify` compares.")
        return
    result = compare(known_members(data, None, None), lambda line: None)
    for line in lines(result):
        typer.echo(line)
    raise typer.Exit(exit_code(result))


app.add_typer(members_app, name="members")
app.command("import")(import_)
app.command("export")(export)


# `node` and `lb` take every setting as a flag. The flags come from the settings' models, which take a
# while to import: these two pass on what they are given, so that the other commands need not wait.
PASS_ON: dict[str, Any] = {
    "allow_extra_args": True,
    "ignore_unknown_options": True,
    "help_option_names": [],
}


@app.command(context_settings=PASS_ON, add_help_option=False)
def node(context: typer.Context) -> None:
    """Run one node in this process (for containers and init systems); `node --help` lists its settings."""
    from cluster.cli.process_commands import node_command

    node_command(context.args)


@app.command(context_settings=PASS_ON, add_help_option=False)
def lb(context: typer.Context) -> None:
    """Run one balancer in this process (for containers and init systems); `lb --help` lists its settings."""
    from cluster.cli.process_commands import balancer_command

    balancer_command(context.args)


def known_members(data: Path, url: str | None, secret_file: Path | None) -> Members:
    """The nodes of the cluster in a data directory, or the one at a URL."""
    from cluster.cli.verifying import members_at

    if url is None:
        plan = known_plan(directory_at(data))
        return members_at([node.url for node in plan.nodes], plan.secret)
    if secret_file is None:
        fail("With --url, --secret-file must name the file with the cluster's secret.", code=2)
    try:
        return members_at([url], secret_file.read_text().strip())
    except OSError as error:
        fail(f"{secret_file} cannot be read: {error.strerror}. Nothing was done.", code=2)


def directory_at(path: Path) -> DataDirectory:
    """The data directory at a path, made absolute: the processes that use it may live elsewhere."""
    from cluster.cli.layout import DataDirectory

    return DataDirectory(path.expanduser().absolute())


def known_plan(directory: DataDirectory) -> ClusterPlan:
    """The plan of a cluster that must exist."""
    plan = directory.read_plan()
    if plan is None:
        fail(f"No cluster in {directory.root}. Start one with `chroma-cluster up --data DIR`.", code=2)
    return plan
