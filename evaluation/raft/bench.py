"""The replicated log measured as three real processes on loopback: `python -m evaluation.raft.bench`.

Latency from `propose` to commit, with fsync on and links authenticated, at several sizes and numbers
in flight ("ours"), turn by turn with unmodified pysyncobj ("stock": a plain SyncObj with its own file
journal, which never fsyncs). The proposals come from a thread of the leader's process; each round has
new processes.

Then the leader fails while it has 16 writes under way: killed with -9, frozen (SIGSTOP: nothing is
reset), or cut off by Toxiproxy (nothing arrives, nothing fails). Measured is the time until another
write is committed; at the end every write that was ever acknowledged must be in every node's log.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import shutil
import statistics
import sys
import tempfile
import time
from collections import Counter
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_args

from rich.console import Console
from rich.table import Table

from evaluation.raft.cluster import MEMBER, Cluster, eventually
from evaluation.raft.links import Links
from evaluation.raft.load import Driven, Load, percentile

if TYPE_CHECKING:
    from collections.abc import Sequence

Failure: TypeAlias = Literal["kill", "freeze", "black-hole"]
System: TypeAlias = Literal["ours", "stock"]

PROGRAMS: dict[System, str] = {"ours": MEMBER, "stock": "evaluation.raft.stock"}
LOADS = (
    Load(1, 2048, 1500),
    Load(16, 2048, 4000),
    Load(64, 2048, 4500),
    Load(4, 1 << 20, 80),
    Load(1, 16 << 20, 8),
)
"""Below 5,000 proposals each: there pysyncobj would begin to compact."""
HUGE = (Load(1, 40 << 20, 3), Load(1, 60 << 20, 3))
"""Only if asked for: the longest request that a node takes, and nearly the longest entry of the log."""

PUMPED = 16
TOXIPROXY = Path(__file__).parents[2] / ".cache" / "bin" / "server"


@dataclass(frozen=True)
class Round:
    """One load on one new cluster."""

    driven: Driven
    elections: int
    """By how much the term rose."""
    load_average: float


@dataclass(frozen=True)
class Latency:
    """A load's rounds together: the times of all commits, and each round's rate and load average."""

    commits: int
    per_second: list[float]
    p50_ms: float | None
    p99_ms: float | None
    max_ms: float | None
    elections: int
    errors: dict[str, int]
    unanswered: int
    load_averages: list[float]


@dataclass(frozen=True)
class Failover:
    """Trials of one failure, on one cluster."""

    pauses_ms: list[float]
    acknowledged: int
    lost: int
    load_average: float


def summarize(rounds: Sequence[Round]) -> Latency:
    latencies_ms = [each for one in rounds for each in one.driven.latencies_ms]
    errors: Counter[str] = Counter()
    for one in rounds:
        errors.update(one.driven.errors)
    return Latency(
        commits=len(latencies_ms),
        per_second=[one.driven.per_second for one in rounds],
        p50_ms=percentile(latencies_ms, 50),
        p99_ms=percentile(latencies_ms, 99),
        max_ms=percentile(latencies_ms, 100),
        elections=sum(one.elections for one in rounds),
        errors=dict(errors),
        unanswered=sum(one.driven.unanswered for one in rounds),
        load_averages=[one.load_average for one in rounds],
    )


def lost(acknowledged: Sequence[str], logs: Sequence[Sequence[str]]) -> list[str]:
    """What was acknowledged and is missing in at least one of the logs."""
    held = [set(log) for log in logs]
    return [text for text in acknowledged if not all(text in log for log in held)]


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3, help="how often the two systems take turns (3)")
    parser.add_argument(
        "--loads",
        nargs="*",
        choices=[load.name for load in (*LOADS, *HUGE)],
        default=[load.name for load in LOADS],
        help="in flight x size (all below 40 MiB)",
    )
    parser.add_argument(
        "--scale", type=float, default=1.0, help="this share of the usual number of proposals (1.0)"
    )
    parser.add_argument("--timeout", type=float, default=30.0, help="seconds for one round (30)")
    parser.add_argument("--no-stock", action="store_true", help="leave pysyncobj out")
    parser.add_argument("--trials", type=int, default=20, help="how often the leader fails in each way (20)")
    parser.add_argument(
        "--failures",
        nargs="*",
        choices=get_args(Failure),
        default=get_args(Failure),
        help="how the leader fails (in all ways)",
    )
    parser.add_argument(
        "--toxiproxy", type=Path, default=TOXIPROXY, help="the server that black-hole needs (make toxiproxy)"
    )
    parser.add_argument("--seed", type=int, default=1, help="of the moments at which the leader fails (1)")
    parser.add_argument("--out", type=Path, default=None, help="write the figures as JSON")
    options = parser.parse_args()
    if options.trials and "black-hole" in options.failures and not options.toxiproxy.is_file():
        parser.error(
            f"there is no Toxiproxy server at {options.toxiproxy}: nothing was measured. "
            "`make toxiproxy` builds it; or leave the black hole out with --failures kill freeze"
        )
    console = Console()
    began = time.time()
    load_averages = [os.getloadavg()]
    systems: list[System] = ["ours"] if options.no_stock else ["ours", "stock"]
    latencies: dict[str, dict[System, Latency]] = {}
    chosen = [load for load in (*LOADS, *HUGE) if load.name in options.loads and options.rounds]
    for load in chosen:
        scaled = replace(load, count=max(load.in_flight, round(load.count * options.scale)))
        rounds: dict[System, list[Round]] = {system: [] for system in systems}
        for number in range(options.rounds):
            for system in systems:
                console.print(f"[dim]round {number + 1}: {load.name}: {system}[/dim]")
                rounds[system].append(measure(PROGRAMS[system], scaled, options.timeout))
        latencies[load.name] = {system: summarize(each) for system, each in rounds.items()}
    failovers: dict[Failure, Failover] = {}
    for failure in options.failures if options.trials else ():
        console.print(f"[dim]{options.trials} times: {failure}[/dim]")
        failovers[failure] = fail_over(
            failure, options.trials, options.toxiproxy, random.Random(options.seed)
        )
    load_averages.append(os.getloadavg())
    show(latencies, failovers, console)
    console.print(
        f"{os.cpu_count()} CPUs; load average over a minute {load_averages[0][0]:.1f} at the start, "
        f"{load_averages[1][0]:.1f} at the end; {time.time() - began:.0f} s"
    )
    if options.out:
        figures: dict[str, Any] = {
            "cpus": os.cpu_count(),
            "python": platform.python_version(),
            "load_averages": load_averages,
            "latency": {
                name: {system: asdict(latency) for system, latency in by_system.items()}
                for name, by_system in latencies.items()
            },
            "failover": {failure: asdict(failover) for failure, failover in failovers.items()},
        }
        options.out.write_text(json.dumps(figures, indent=2) + "\n")
    lost_writes = sum(failover.lost for failover in failovers.values())
    if lost_writes:
        console.print(f"[red]{lost_writes} acknowledged writes are missing[/red]")
    return 1 if lost_writes else 0


def measure(program: str, load: Load, timeout_s: float) -> Round:
    """A new cluster, as many proposals to warm it up as are in flight, then the load."""
    folder = Path(tempfile.mkdtemp(prefix="raft-bench-"))
    cluster = Cluster(folder, program=program)
    try:
        cluster.start()
        member = cluster.members[cluster.leader()]
        warm = replace(load, count=load.in_flight)
        member.ask("load", load=asdict(warm), timeout_s=timeout_s)
        terms = cluster.terms()
        driven = Driven(**member.ask("load", load=asdict(load), timeout_s=timeout_s))
        elections = max(cluster.terms().values()) - max(terms.values())
        return Round(driven, elections, os.getloadavg()[0])
    finally:
        cluster.close()
        shutil.rmtree(folder)


def fail_over(failure: Failure, trials: int, toxiproxy: Path, rng: random.Random) -> Failover:
    folder = Path(tempfile.mkdtemp(prefix="raft-bench-"))
    cluster = Cluster(folder)
    try:
        with ExitStack() as stack:
            links = None
            if failure == "black-hole":
                links = stack.enter_context(Links(toxiproxy, cluster, folder / "toxiproxy.log"))
            stack.callback(cluster.close)
            cluster.start()
            pauses_ms = [
                one_failover(cluster, failure, links, f"{number}", folder / "acked", rng)
                for number in range(trials)
            ]
            cluster.agree()
            acknowledged = (folder / "acked").read_text().split()
            missing = lost(acknowledged, [cluster.texts(node_id) for node_id in cluster.ids])
            return Failover(pauses_ms, len(acknowledged), len(missing), os.getloadavg()[0])
    finally:
        shutil.rmtree(folder)


def one_failover(
    cluster: Cluster, failure: Failure, links: Links | None, label: str, acked: Path, rng: random.Random
) -> float:
    """Let the leader fail under writes; milliseconds until the next leader has committed one."""

    def are_linked() -> bool:
        return all(len(cluster.status(node_id)["connected"]) == 2 for node_id in cluster.ids)

    def pumped() -> bool:
        return acked.exists() and acked.stat().st_size > size

    eventually(are_linked, 30, "all nodes are connected")
    leader = cluster.leader()
    rest = [node_id for node_id in cluster.ids if node_id != leader]
    size = acked.stat().st_size if acked.exists() else 0
    cluster.members[leader].ask("pump", label=label, in_flight=PUMPED, acked=str(acked))
    eventually(pumped, 30, "acknowledged writes")
    # The failure meets any phase of heartbeats and fsyncs.
    time.sleep(rng.uniform(0.1, 0.4))
    began = time.perf_counter()
    match failure:
        case "kill":
            cluster.kill(leader)
        case "freeze":
            cluster.freeze(leader)
        case "black-hole":
            assert links is not None
            links.cut(leader)
    cluster.write(f"{label}-after", among=rest, every_s=0.002)
    pause_ms = (time.perf_counter() - began) * 1000
    with acked.open("a") as out:
        out.write(f"{label}-after\n")
    match failure:
        case "kill":
            cluster.start(leader)
        case "freeze":
            cluster.thaw(leader)
        case "black-hole":
            assert links is not None
            links.heal(leader)
    cluster.agree()
    return pause_ms


def show(
    latencies: dict[str, dict[System, Latency]], failovers: dict[Failure, Failover], console: Console
) -> None:
    if latencies:
        table = Table(title="from propose to commit: three processes, loopback")
        for heading in ("in flight", "log", "commits", "per second", "p50 ms", "p99 ms", "elections"):
            table.add_column(heading, justify="left" if heading == "log" else "right")
        notes: list[str] = []
        for name, by_system in latencies.items():
            for system, latency in by_system.items():
                rate = statistics.median(latency.per_second)
                table.add_row(
                    name,
                    system,
                    f"{latency.commits:,}",
                    f"{rate:,.0f}" if rate >= 10 else f"{rate:.1f}",
                    "-" if latency.p50_ms is None else f"{latency.p50_ms:,.1f}",
                    "-" if latency.p99_ms is None else f"{latency.p99_ms:,.1f}",
                    str(latency.elections),
                )
                wrong = {**latency.errors, "unanswered": latency.unanswered}
                notes += [f"{name}, {system}: {count} {kind}" for kind, count in wrong.items() if count]
        console.print(table)
        for note in notes:
            console.print(note)
    if failovers:
        table = Table(title="from the leader's failure to the next committed write")
        for heading in ("failure", "trials", "median ms", "max ms", "acknowledged", "lost"):
            table.add_column(heading, justify="left" if heading == "failure" else "right")
        for failure, failover in failovers.items():
            table.add_row(
                failure,
                str(len(failover.pauses_ms)),
                f"{statistics.median(failover.pauses_ms):.0f}",
                f"{max(failover.pauses_ms):.0f}",
                str(failover.acknowledged),
                str(failover.lost),
            )
        console.print(table)


if __name__ == "__main__":
    sys.exit(main())
