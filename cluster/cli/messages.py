"""Messages of the command line, printed as they are, and the one with which a command fails."""

from __future__ import annotations

from typing import NoReturn

from rich.console import Console


def plain_console(*, stderr: bool = False) -> Console:
    """A console without markup and wrapping: messages hold paths and other people's text."""
    return Console(stderr=stderr, markup=False, highlight=False, soft_wrap=True)


def fail(message: str, code: int = 1) -> NoReturn:
    """Say why on stderr and end.

    Raises:
        SystemExit: always, with `code`.
    """
    plain_console(stderr=True).print(message, style="red")
    raise SystemExit(code)
