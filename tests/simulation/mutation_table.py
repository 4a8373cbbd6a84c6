"""Which deliberate bug is found after how many seeds: `python -m tests.simulation.mutation_table [--write]`.

With `--write` the table in docs/simulation.md gets what was just measured.
"""

from __future__ import annotations

import argparse
import functools
import logging
import multiprocessing
import sys
from dataclasses import dataclass
from pathlib import Path

from cluster.raft.transport import TcpTransport
from tests.simulation.courses import COURSES
from tests.simulation.links import run_links
from tests.simulation.mutations import MUTATIONS, Mutation
from tests.simulation.run import Failure, run_seed

PAGE = Path(__file__).parents[2] / "docs" / "simulation.md"
BEGIN, END = "<!-- mutation table: begin -->", "<!-- mutation table: end -->"


@dataclass(frozen=True, slots=True)
class Row:
    name: str
    seeds: int | None
    """How many seeds it took; None if none of them found it."""
    rule: str
    first_seed: int
    course: str | None = None
    """Which course of events was made to show it."""

    @property
    def mutation(self) -> Mutation:
        return MUTATIONS[self.name]

    @property
    def needed(self) -> str:
        if self.seeds is not None:
            return str(self.seeds)
        if not self.rule:
            return "not found"
        return f"course `{self.course}`"


def hunt(mutation: Mutation, limit: int, first_seed: int = 1) -> Row:
    """The course of events that was made for the bug; if there is none, seeds until one fails."""
    if mutation.name in COURSES:
        course = COURSES[mutation.name]
        violation = course(mutation.name)
        rule = "" if violation is None else violation.rule
        return Row(mutation.name, None, rule, 0, course.__name__)
    for seed in range(first_seed, first_seed + limit):
        rule = _broken(mutation, seed)
        if rule:
            return Row(mutation.name, seed - first_seed + 1, rule, seed)
    return Row(mutation.name, None, "", 0)


def finds(mutation: Mutation, limit: int) -> bool:
    """Whether some seed shows the bug: the one that did when the table was made is tried first."""
    recorded = _recorded().get(mutation.name)
    if recorded is not None and _broken(mutation, recorded):
        return True
    return hunt(mutation, limit).seeds is not None


def _broken(mutation: Mutation, seed: int) -> str:
    """The rule that a seed breaks, "" if none."""
    if mutation.parts.transport is not TcpTransport:
        violation = run_links(seed, mutation.parts.transport)
        return "" if violation is None else violation.rule
    result = run_seed(
        seed, mutation=mutation.name, snapshots=mutation.snapshots, upgrade=mutation.upgrade, lines=0
    )
    return result.rule if isinstance(result, Failure) else ""


@functools.cache
def _recorded() -> dict[str, int]:
    """By bug: the seed of the table in docs/simulation.md. Searches began at 1, so it is their number too."""
    cells = {name: [cell.strip() for cell in line.split("|")] for name, line in _lines().items()}
    return {name: int(row[4]) for name, row in cells.items() if row[4].isdecimal()}


def _lines() -> dict[str, str]:
    """By bug: its line of the table as it is."""
    _, _, rest = PAGE.read_text().partition(BEGIN)
    table, _, _ = rest.partition(END)
    return {line.split("`")[1]: line for line in table.splitlines() if line.startswith("| `")}


def _hunt_named(task: tuple[str, int]) -> Row:
    name, limit = task
    return hunt(MUTATIONS[name], limit)


def render(rows: list[Row]) -> str:
    """The table; of bugs that were not looked for now it keeps what it has."""
    lines = _lines() | {row.name: _line(row) for row in rows}
    kept = [lines[name] for name in MUTATIONS if name in lines]
    found = sum("| not found |" not in line for line in kept)
    head = (
        f"{found} of {len(kept)} bugs found.",
        "",
        "| bug | hazard | what it does | seeds needed | found as |",
        "|---|---|---|---:|---|",
    )
    return "\n".join((*head, *kept))


def _line(row: Row) -> str:
    mutation = row.mutation
    return f"| `{mutation.name}` | {mutation.hazard} | {mutation.bug} | {row.needed} | {row.rule} |"


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", help="only these bugs")
    parser.add_argument("--limit", type=int, default=2000, help="give up after so many seeds")
    parser.add_argument("--jobs", type=int, default=2, help="how many processes")
    parser.add_argument("--write", action="store_true", help="put the result into docs/simulation.md")
    options = parser.parse_args()
    tasks = [(name, options.limit) for name in options.names or MUTATIONS]
    rows: list[Row] = []
    quiet = (logging.disable, (logging.CRITICAL,))
    with multiprocessing.get_context("spawn").Pool(options.jobs, *quiet) as pool:
        for row in pool.imap_unordered(_hunt_named, tasks):
            rows.append(row)
            if options.write:  # at once: a long search may be ended before its end
                before, _, rest = PAGE.read_text().partition(BEGIN)
                _, _, after = rest.partition(END)
                PAGE.write_text(f"{before}{BEGIN}\n{render(rows)}\n{END}{after}")
            print(f"{row.name:<30} {row.needed:>6}  {row.rule}", flush=True)
    return 1 if not all(row.rule for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
