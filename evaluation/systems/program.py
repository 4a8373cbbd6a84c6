"""The programs that several systems start, each with its output in a log file."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

from evaluation.processes import Child
from evaluation.systems.environment import clean

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

#: Where `python -m evaluation...` finds this package, wherever the caller was started.
_CHECKOUT: Final = Path(__file__).parents[2]
#: The program `chroma` of this Python's own installation.
CHROMA: Final = Path(sys.executable).with_name("chroma")


def start_module(
    module: str, arguments: Sequence[str], log: Path, variables: Mapping[str, str] | None = None
) -> Child:
    """`python -m evaluation.systems.MODULE ARGUMENTS`; paths in them must be absolute."""
    command = [sys.executable, "-m", f"evaluation.systems.{module}", *arguments]
    return Child(command, log, clean(**(variables or {})), cwd=_CHECKOUT)


def start_chroma(arguments: Sequence[str], log: Path, folder: Path) -> Child:
    """`chroma run ARGUMENTS` in that working directory."""
    return Child([str(CHROMA), "run", *arguments], log, clean(), cwd=folder)


def log_tails(children: Iterable[tuple[str, Child]], lines: int = 30) -> str:
    """The end of each one's log, under its name."""
    return "\n".join(f"--- {name}\n{child.log_tail(lines)}" for name, child in children)
