"""Run seeds of the simulation from the command line: `python -m tests.simulation.run --seed 17`.

Exit code 0: no violation. 1: one, printed with its seed, the command that repeats it, and the last events.
"""

from __future__ import annotations

import argparse
import logging
import multiprocessing
import sys
import time
import traceback
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from tests.simulation.cluster import Result, Simulation
from tests.simulation.invariants import Violation
from tests.simulation.plan import PROFILES, make_plan

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


@dataclass(frozen=True, slots=True)
class Failure:
    """A seed that broke a promise, and all that is needed to look into it."""

    seed: int
    rule: str
    text: str


def run_seed(
    seed: int,
    *,
    nodes: int | None = None,
    seconds: float | None = None,
    mutation: str | None = None,
    profile: str | None = None,
    snapshots: bool = False,
    hashing: bool = False,
    lines: int = 80,
    changes: bool = False,
    upgrade: bool = False,
) -> Result | Failure:
    """One run; every exception of the code under test is a failure too."""
    from tests.simulation.mutations import parts_of

    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    plan = make_plan(seed, nodes, seconds, profile, changes=changes, snapshots=snapshots, upgrade=upgrade)
    simulation = Simulation(plan, parts_of(mutation), hashing=hashing)
    try:
        return simulation.run()
    except Violation as violation:
        rule, what = violation.rule, str(violation)
    except Exception as error:
        rule, what = f"exception {type(error).__name__}", traceback.format_exc()
    finally:
        logging.disable(before)  # tests of the same process look at what is logged
    command = f"python -m tests.simulation.run --seed {seed}"
    given = (("nodes", nodes), ("seconds", seconds), ("mutation", mutation), ("profile", profile))
    for flag, value in given:
        command += "" if value is None else f" --{flag} {value}"
    command += " --changes" if changes else ""
    command += " --snapshots" if snapshots else ""
    command += " --upgrade" if upgrade else ""
    text = "\n".join(
        [
            f"seed {seed} ({plan.nodes} nodes, profile {plan.profile}) at {simulation.scheduler.now:.6f} s",
            f"broken: {what}",
            f"repeat: {command}",
            f"the last {lines} events:",
            *simulation.trace.last(lines),
        ]
    )
    return Failure(seed, rule, text)


def run_many(seeds: Iterable[int], jobs: int = 2, *, snapshots: bool = False) -> Iterator[Result | Failure]:
    """Run seeds in `jobs` processes; results as they come."""
    run = partial(run_seed, snapshots=snapshots)
    if jobs == 1:
        yield from map(run, seeds)
        return
    with multiprocessing.get_context("spawn").Pool(jobs) as pool:
        yield from pool.imap_unordered(run, seeds, chunksize=4)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seed", type=int, required=True, help="the (first) seed")
    parser.add_argument("--count", type=int, default=1, help="how many seeds, one after the other")
    parser.add_argument("--nodes", type=int, choices=(1, 2, 3, 4, 5, 7), help="not what the seed chooses")
    parser.add_argument(
        "--seconds", type=float, help="simulated seconds of faults, instead of the seed's choice"
    )
    parser.add_argument("--mutation", help="switch a deliberate bug on (see tests/simulation/mutations.py)")
    parser.add_argument(
        "--profile", choices=tuple(PROFILES), help="which faults, instead of the seed's choice"
    )
    parser.add_argument("--changes", action="store_true", help="members come and go all the time")
    parser.add_argument("--snapshots", action="store_true", help="keep the log briefly, and lose more nodes")
    parser.add_argument("--upgrade", action="store_true", help="nodes of an older build are replaced")
    parser.add_argument("--hash", action="store_true", help="print the hash of the whole trace")
    parser.add_argument("--lines", type=int, default=80, help="how many events a failure prints")
    options = parser.parse_args()
    began = time.process_time()
    simulated_s = 0.0
    failures = 0
    totals = [0] * 8
    for seed in range(options.seed, options.seed + options.count):
        result = run_seed(
            seed,
            nodes=options.nodes,
            seconds=options.seconds,
            mutation=options.mutation,
            profile=options.profile,
            snapshots=options.snapshots,
            hashing=options.hash,
            lines=options.lines,
            changes=options.changes,
            upgrade=options.upgrade,
        )
        if isinstance(result, Failure):
            failures += 1
            print(result.text, end="\n\n", flush=True)
            continue
        simulated_s += result.simulated_s
        numbers = (
            result.steps,
            result.messages,
            result.commits,
            result.writes,
            result.reads,
            result.terms,
            result.crashes,
            result.bounded_reads,
        )
        totals = [total + number for total, number in zip(totals, numbers, strict=True)]
        if options.hash:
            print(f"seed {seed} trace {result.trace_hash}")
    cpu_s = time.process_time() - began
    names = (
        "steps",
        "messages",
        "commits",
        "writes answered",
        "reads answered",
        "terms",
        "crashes",
        "bounded reads",
    )
    counted = ", ".join(f"{total} {name}" for total, name in zip(totals, names, strict=True))
    print(f"{options.count} seeds, {failures} failures; {counted}")
    if not options.hash:
        print(
            f"{simulated_s / 3600:.2f} simulated hours in {cpu_s:.1f} s of CPU "
            f"({simulated_s / 60 / max(cpu_s, 1e-9):.2f} simulated hours a CPU minute)"
        )
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
