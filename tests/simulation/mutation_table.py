"""Which deliberate bug is found after how many seeds: `python -m tests.simulation.mutation_table [--write]`.

With `--write` the table in docs/simulation.md is replaced by the one just measured.
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
from dataclasses import dataclass
from pathlib import Path

from tests.simulation.courses import COURSES
from tests.simulation.mutations import MUTATIONS, Mutation
from tests.simulation.run import Failure, run_seed

PAGE = Path(__file__).parents[2] / "docs" / "simulation.md"
BEGIN, END = "<!-- mutation table: begin -->", "<!-- mutation table: end -->"


@dataclass(frozen=True, slots=True)
class Row:
    mutation: Mutation
    seeds: int | None
    """How many seeds it took; None if none of them found it."""
    rule: str
    first_seed: int
    course: str | None = None
    """Which course of events showed it, if no seed did."""

    @property
    def needed(self) -> str:
        if self.seeds is not None:
            return str(self.seeds)
        return "not found" if self.course is None else f"course `{self.course}`"


def hunt(mutation: Mutation, limit: int, first_seed: int = 1) -> Row:
    """Run seeds with the bug until one fails; if none does, the course of events made for it."""
    for seed in range(first_seed, first_seed + limit):
        result = run_seed(seed, mutation=mutation.name, snapshots=mutation.snapshots, lines=0)
        if isinstance(result, Failure):
            return Row(mutation, seed - first_seed + 1, result.rule, seed)
    if mutation.name in COURSES:
        course = COURSES[mutation.name]
        violation = course(mutation.name)
        if violation is not None:
            return Row(mutation, None, violation.rule, 0, course.__name__)
    return Row(mutation, None, "", 0)


def _hunt_named(task: tuple[str, int]) -> Row:
    name, limit = task
    return hunt(MUTATIONS[name], limit)


def render(rows: list[Row], limit: int) -> str:
    found = sum(bool(row.rule) for row in rows)
    lines = [
        f"{found} of {len(rows)} bugs found; the search for each ended after {limit:,} seeds at the latest.",
        "",
        "| bug | hazard | what it does | seeds needed | found as |",
        "|---|---|---|---:|---|",
    ]
    for row in rows:
        mutation = row.mutation
        lines.append(
            f"| `{mutation.name}` | {mutation.hazard} | {mutation.bug} | {row.needed} | {row.rule} |"
        )
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", help="only these bugs")
    parser.add_argument("--limit", type=int, default=2000, help="give up after so many seeds")
    parser.add_argument("--jobs", type=int, default=2, help="how many processes")
    parser.add_argument("--write", action="store_true", help="replace the table in docs/simulation.md")
    options = parser.parse_args()
    tasks = [(name, options.limit) for name in options.names or MUTATIONS]
    rows: list[Row] = []
    with multiprocessing.get_context("spawn").Pool(options.jobs) as pool:
        for row in pool.imap(_hunt_named, tasks):
            rows.append(row)
            print(f"{row.mutation.name:<30} {row.needed:>6}  {row.rule}", flush=True)
    if options.write:
        before, _, rest = PAGE.read_text().partition(BEGIN)
        _, _, after = rest.partition(END)
        PAGE.write_text(f"{before}{BEGIN}\n{render(rows, options.limit)}\n{END}{after}")
    return 1 if not all(row.rule for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
