"""Runs the corpus by hand: `python -m tests.hostile.run [CASE] [--only TEXT[,TEXT]] [--list] [--part K/N]`.

A table with a line for each case, and at the end what failed and how many were refused before the log.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import signal
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from tests.hostile.corpus import cases, chosen
from tests.hostile.runner import Runner, as_json

if TYPE_CHECKING:
    from tests.hostile.case import Case
    from tests.hostile.runner import Result

HEAD = f"{'case':56} {'chroma':>12} {'cluster':>12} healthy same {'s':>6} {'MiB':>6}"


def main(arguments: list[str] | None = None) -> int:
    """The exit code: 1 if any case failed."""
    options = _parser().parse_args(arguments)
    for number in (signal.SIGINT, signal.SIGTERM):
        # Also where a shell has it ignored: nodes must not be left behind.
        signal.signal(number, signal.default_int_handler)
    every = cases()
    wanted = [case for case in every if case.id == options.case] if options.case else chosen(options.only)
    wanted = _part(wanted, *options.part)
    if options.after:
        wanted = wanted[[case.id for case in wanted].index(options.after) + 1 :]
    if options.list:
        for case in wanted:
            print(f"{case.id}  ({case.door}, {case.difference or case.required})")
        print(f"{len(wanted)} of {len(every)} cases")
        return 0
    if not wanted:
        print("no such case; --list shows them", file=sys.stderr)
        return 2
    results: list[Result] = []
    with (
        tempfile.TemporaryDirectory(prefix="hostile-", ignore_cleanup_errors=True) as directory,
        contextlib.suppress(KeyboardInterrupt),
    ):
        _run(wanted, Path(directory), options.out, options.once, results)
    _summarise(results)
    return 1 if any(result.failures for result in results) else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.hostile.run", description=__doc__)
    parser.add_argument("case", nargs="?", help="the id of one case")
    parser.add_argument("--only", default="", help="cases whose id has this in it; several with commas")
    parser.add_argument("--after", help="begin after the case with this id")
    parser.add_argument(
        "--part",
        type=_fraction,
        default=(1, 1),
        metavar="K/N",
        help="of those the K-th of N parts: several runs, each with servers of its own, beside each other",
    )
    parser.add_argument("--list", action="store_true", help="show the ids and run nothing")
    parser.add_argument(
        "--once",
        type=int,
        nargs="?",
        const=1,
        help="leave out the rest of a table of which so many values (1) broke the cluster",
    )
    parser.add_argument("--out", type=Path, help="append a line of JSON for each case")
    return parser


def _fraction(text: str) -> tuple[int, int]:
    part, _, parts = text.partition("/")
    if not 1 <= int(part) <= int(parts):
        raise ValueError(text)
    return int(part), int(parts)


def _part(wanted: list[Case], part: int, parts: int) -> list[Case]:
    return wanted[len(wanted) * (part - 1) // parts : len(wanted) * part // parts]


def _run(
    wanted: list[Case], directory: Path, out: Path | None, once: int | None, results: list[Result]
) -> None:
    """Adds to `results`, so that an interrupted run has its summary too."""
    broken: Counter[str] = Counter()
    print(HEAD)
    with Runner(directory) as runner:
        for case in wanted:
            table = case.id.rpartition("=")[0]
            if once and table and broken[table] >= once:
                print(f"{case.id:56} left out: others of its table broke the cluster already")
                continue
            result = runner.run(case)
            if result.rebuilt:
                broken[table] += 1
            results.append(result)
            print(_line(result), flush=True)
            if out is not None:
                with out.open("a") as file:
                    file.write(json.dumps(as_json(result)) + "\n")


def _line(result: Result) -> str:
    line = (
        f"{result.id:56} {_statuses(result.chroma):>12} {_statuses(result.ours):>12} "
        f"{'yes' if result.healthy else 'NO':>7} {'yes' if result.same else 'NO':>4} "
        f"{result.seconds:6.1f} {result.grown_mib:6.0f}"
    )
    return "\n".join([line, *(f"    - {failure}" for failure in result.failures)])


def _statuses(statuses: list[int]) -> str:
    names = {0: "hung up", -1: "hangs"}
    texts = [names.get(status, str(status)) for status in statuses]
    return " ".join(texts[:3]) + (f" +{len(texts) - 3}" if len(texts) > 3 else "") if texts else "-"


def _summarise(results: list[Result]) -> None:
    failed = [result for result in results if result.failures]
    print(f"\n{len(results)} cases, {len(failed)} failed.")
    for kind in sorted({result.kind for result in results}):
        of_kind = [result for result in results if result.kind == kind]
        print(f"  {kind}: {len(of_kind)}, failed {sum(bool(result.failures) for result in of_kind)}")
    print(f"refused before the log: {sum(result.refused_before_log for result in results)}")
    print(f"went into the log: {sum(result.entries > 0 for result in results)}")
    print(f"the cluster had to be made anew: {sum(result.rebuilt for result in results)}")
    print(f"not well in time: {sum(not result.healthy for result in results)}")
    print(f"different nodes: {sum(not result.same for result in results)}")
    if failed:
        print("Repeat one: python -m tests.hostile.run CASE")


if __name__ == "__main__":
    sys.exit(main())
