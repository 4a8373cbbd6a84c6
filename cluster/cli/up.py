"""`chroma-cluster up`: found or resume a cluster, start what is missing, and stay with it unless detached.

Who stops what: an `up` in the foreground that found nothing running owns the cluster, and Ctrl-C,
SIGTERM or a closed terminal stop all of it. One that joined a running cluster leaves it running:
nobody takes a service down by closing a view. A process that dies is shown, never restarted by
itself: `up` again (in another terminal, say) starts it. It also restarts a node that lives but has a fault.
"""

from __future__ import annotations

import contextlib
import random
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from rich.console import Console
from rich.live import Live

from cluster.cli.errors import StartError
from cluster.cli.interrupts import Interrupts
from cluster.cli.locks import exclusive
from cluster.cli.messages import plain_console
from cluster.cli.overview import look
from cluster.cli.plan import BALANCER, DEFAULT_NODES, DEFAULT_PORT, new_plan, settle_plan, title
from cluster.cli.ports import choose_ports, shuffled_ports, take_port
from cluster.cli.serving import wait_until_serving, why_unready
from cluster.cli.status_view import changes, render
from cluster.cli.supervisor import Supervisor

if TYPE_CHECKING:
    from cluster.cli.layout import DataDirectory
    from cluster.cli.overview import NodeView, Overview
    from cluster.cli.plan import ClusterPlan
    from cluster.cli.serving import StartOutcome

REFRESH_S: Final = 1.0


def _say(text: str, *, style: str | None = None, error: bool = False) -> None:
    """Print one message as it is; a terminal that is gone must not keep a cluster from being stopped."""
    with contextlib.suppress(OSError):
        plain_console(stderr=error).print(text, style=style)


def bring_up(
    directory: DataDirectory, *, nodes: int | None, port: int | None, detach: bool, timeout_s: float
) -> int:
    """Run `up`; its exit code.

    Raises:
        LayoutError: the data directory cannot be used, or holds another cluster than asked for.
        StartError: a port or a node's directory is in use. Nothing was started in either case.
    """
    interrupts = Interrupts()
    with interrupts.installed():
        supervisor, joined = _start_missing(directory, nodes=nodes, port=port)
        outcome = wait_until_serving(supervisor, timeout_s=timeout_s, interrupted=interrupts.asked)
        if interrupts.asked():
            _end(supervisor, joined, interrupts)
            return 130
        outcome = _with_hopeless_others(supervisor, outcome)
        _report(outcome)
        if outcome.hopeless:
            supervisor.stop(list(supervisor.children))
            _say("What this command had started is stopped again.", style="red", error=True)
            return 1
        if outcome.answers:
            _welcome(supervisor, detach=detach)
        else:
            look_there = f"chroma-cluster status --data {directory.root}"
            text = "It is left running: it may only need more time (a long log to replay, say)."
            _say(f"{text} Look with `{look_there}`.", style="red", error=True)
        console = Console(highlight=False)
        # Without a terminal there is no view to keep: to join a running cluster is then done.
        if detach or (joined and not console.is_terminal):
            return 0 if outcome.answers and not outcome.deaths and not outcome.unready else 1
        with contextlib.suppress(OSError):  # the terminal is gone: that ends the view
            _stay(console, supervisor, interrupts)
        return _end(supervisor, joined, interrupts)


def _start_missing(
    directory: DataDirectory, *, nodes: int | None, port: int | None
) -> tuple[Supervisor, bool]:
    """Start what does not run, or does not serve any more; the supervisor, and whether something was
    running before.
    """
    _settled(directory, nodes, port)  # refuses before anything is written
    directory.prepare()
    with exclusive(directory):
        plan, known = _settled(directory, nodes, port)
        supervisor = Supervisor(directory, plan)
        there = supervisor.running()
        missing = supervisor.missing()
        broken = (
            {view.id: view for view in look(directory, plan).nodes if is_to_restart(view)} if there else {}
        )
        if known is not None and known.port != plan.port and BALANCER in there:
            raise StartError(
                f"The balancer runs on port {known.port}, so it cannot be started on {plan.port}. Nothing "
                "was changed. Leave --port out, or stop the cluster first with `chroma-cluster down`."
            )
        supervisor.check(missing)
        if plan != known:
            directory.write_plan(plan)
        if known is None:
            _say(f"New cluster of {len(plan.nodes)} nodes in {directory.root}")
        elif not there:
            _say(f"Resuming the cluster of {len(plan.nodes)} nodes in {directory.root}")
        elif missing:
            names = ", ".join(title(name) for name in missing)
            _say(f"The cluster is running; missing and started now: {names}")
        elif not broken:
            _say("The cluster is running, nothing is missing.")
        for name, view in broken.items():
            _say(f"{name} runs, but has stopped serving; restarted now. Its reason was: {view.reason}")
        supervisor.stop(list(broken))
        supervisor.check(list(broken))
        supervisor.start([*missing, *broken])
        return supervisor, bool(there)


def is_to_restart(view: NodeView) -> bool:
    """Whether a node runs, known to this cluster directory, and has a fault that a restart may mend.

    What it does not mend (a damaged journal, say) keeps the new process from starting, or comes back: that is
    then told of it like of any other node that was started.
    """
    return view.pid is not None and view.state == "failed"


def _settled(
    directory: DataDirectory, nodes: int | None, port: int | None
) -> tuple[ClusterPlan, ClusterPlan | None]:
    """The plan to run, and the one in the directory (None: a new one is founded)."""
    known = directory.read_plan()
    if known is not None:
        return settle_plan(known, nodes=nodes, port=port), known
    directory.refuse_foreign_data()
    count = nodes or DEFAULT_NODES
    public = port or DEFAULT_PORT
    candidates = (each for each in shuffled_ports(random.Random()) if each != public)
    return new_plan(count, public, choose_ports(2 * count, candidates, take_port)), None


def _with_hopeless_others(supervisor: Supervisor, outcome: StartOutcome) -> StartOutcome:
    """Besides those that were started, tell of nodes that ran before and that waiting does not make ready."""
    seen = look(supervisor.directory, supervisor.plan).nodes
    others = [view for view in seen if view.is_beyond_waiting and view.id not in supervisor.children]
    told = tuple(f"{view.id}: {why_unready(view)}" for view in others)
    return replace(outcome, unready=(*outcome.unready, *told))


def _report(outcome: StartOutcome) -> None:
    """Say on stderr what went wrong, if something did."""
    for death in outcome.deaths:
        _say(str(death), style="red", error=True)
    if not outcome.answers:
        _say(f"The cluster does not answer writes: {outcome.reason}", style="red", error=True)
    elif outcome.deaths:
        _say("The cluster answers writes without it.", style="yellow", error=True)
    for told in outcome.unready:
        _say(f"Not ready: {told}", style="yellow", error=True)


def _welcome(supervisor: Supervisor, *, detach: bool) -> None:
    _say(f"Chroma is at {supervisor.plan.url}", style="bold")
    if detach:
        where = supervisor.directory.root
        _say("It runs in the background, with logs in " + str(where / "logs"))
        _say(f"Look: chroma-cluster status --data {where}   Stop: chroma-cluster down --data {where}")


def _stay(console: Console, supervisor: Supervisor, interrupts: Interrupts) -> None:
    """Show the cluster until asked to end, or until somebody stopped all of it."""
    directory, plan = supervisor.directory, supervisor.plan
    again = f"`chroma-cluster up --data {directory.root}` in another terminal starts it again"
    before: Overview | None = None

    def observe() -> bool:
        """Tell what changed; True when everything was stopped on purpose."""
        nonlocal before
        supervisor.deaths()  # collects dead children, so that they do not stay zombies
        now = look(directory, plan)
        for line in changes(before, now) if before else []:
            text = f"- {line}" + (f"; {again}" if line.endswith("is down") else "")
            console.print(text, markup=False, soft_wrap=True)
        before = now
        return all(supervisor.was_stopped(name) for name in supervisor.names)

    with contextlib.ExitStack() as stack:
        live = None
        if console.is_terminal:
            live = stack.enter_context(Live(console=console, auto_refresh=False, transient=True))
        while not interrupts.asked() and not observe():
            if live and before:
                live.update(render(before), refresh=True)
            interrupts.wait(REFRESH_S)


def _end(supervisor: Supervisor, joined: bool, interrupts: Interrupts) -> int:
    """Leave a cluster that was there before; stop one that this command started."""
    where = supervisor.directory.root
    if joined:
        _say(f"The cluster stays up. `chroma-cluster down --data {where}` stops it.")
        return 0
    _say("Stopping ... (Ctrl-C again: at once)")
    with exclusive(supervisor.directory):
        stopped = supervisor.stop(list(supervisor.names), hurry=interrupts.hurried)
    killed = [title(name) for name, was_killed in stopped.items() if was_killed]
    if killed:
        _say(f"Had to be killed: {', '.join(killed)}")
    _say("The cluster is down. Its data stays; `up` again resumes it.")
    return 0
