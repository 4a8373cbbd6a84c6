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
import sys
import tempfile
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from rich.console import Console

from evaluation.raft.cluster import MEMBER, RaftCluster
from evaluation.raft.failover import fail_over
from evaluation.raft.figures import Failover, Failure, Latency, Round, System, summarize
from evaluation.raft.load import Driven, Load
from evaluation.raft.tables import show_failovers, show_latencies

if TYPE_CHECKING:
    from collections.abc import Sequence

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

TOXIPROXY = Path(__file__).parents[2] / ".cache" / "bin" / "server"


def main() -> int:
    options = _options()
    console = Console()
    began = time.time()
    load_averages = [os.getloadavg()]
    latencies = _measure_latencies(options, console)
    failovers = _measure_failovers(options, console)
    load_averages.append(os.getloadavg())
    if latencies:
        show_latencies(latencies, console)
    if failovers:
        show_failovers(failovers, console)
    console.print(
        f"{os.cpu_count()} CPUs; load average over a minute {load_averages[0][0]:.1f} at the start, "
        f"{load_averages[1][0]:.1f} at the end; {time.time() - began:.0f} s"
    )
    if options.out:
        figures = _document(load_averages, latencies, failovers)
        options.out.write_text(json.dumps(figures, indent=2) + "\n")
    lost_writes = sum(failover.lost for failover in failovers.values())
    if lost_writes:
        console.print(f"[red]{lost_writes} acknowledged writes are missing[/red]")
    return 1 if lost_writes else 0


def _options() -> argparse.Namespace:
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
    return options


def _measure_latencies(options: argparse.Namespace, console: Console) -> dict[str, dict[System, Latency]]:
    """Load -> system -> its rounds together."""
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
    return latencies


def _measure_failovers(options: argparse.Namespace, console: Console) -> dict[Failure, Failover]:
    failovers: dict[Failure, Failover] = {}
    for failure in options.failures if options.trials else ():
        console.print(f"[dim]{options.trials} times: {failure}[/dim]")
        failovers[failure] = fail_over(
            failure, options.trials, options.toxiproxy, random.Random(options.seed)
        )
    return failovers


def _document(
    load_averages: Sequence[tuple[float, float, float]],
    latencies: dict[str, dict[System, Latency]],
    failovers: dict[Failure, Failover],
) -> dict[str, Any]:
    """The figures as `--out` has them."""
    return {
        "cpus": os.cpu_count(),
        "python": platform.python_version(),
        "load_averages": load_averages,
        "latency": {
            name: {system: asdict(latency) for system, latency in by_system.items()}
            for name, by_system in latencies.items()
        },
        "failover": {failure: asdict(failover) for failure, failover in failovers.items()},
    }


def measure(program: str, load: Load, timeout_s: float) -> Round:
    """A new cluster, as many proposals to warm it up as are in flight, then the load."""
    folder = Path(tempfile.mkdtemp(prefix="raft-bench-"))
    cluster = RaftCluster(folder, program=program)
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


if __name__ == "__main__":
    sys.exit(main())
