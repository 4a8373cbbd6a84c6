"""`chroma-cluster import SOURCE --url URL` and `export TARGET --url URL`: all moved in and out, exactly."""

from __future__ import annotations

import json
import os
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, NoReturn

import typer

from cluster.cli.messages import fail

if TYPE_CHECKING:
    from cluster.moving.run import Order
    from cluster.moving.server import Access

_NOT_DONE: Final = 2
_INTERRUPTED: Final = 1


class Existing(StrEnum):
    """What becomes of collections that the target has already."""

    REFUSE = "refuse"
    SKIP = "skip"
    REPLACE = "replace"


Url = Annotated[str, typer.Option("--url", metavar="URL", help="The cluster: its balancer's address.")]
ExistingOption = Annotated[
    Existing,
    typer.Option(
        "--existing",
        help="Collections that the target has already: do nothing at all, leave them alone, or put the "
        "source's in their place once it is complete and verified.",
    ),
]
Tenants = Annotated[
    list[str] | None,
    typer.Option(
        "--tenant",
        metavar="NAME",
        help="A tenant of the source, may be repeated. A server lists none: default_tenant unless you say. "
        "Of a directory all are moved.",
        show_default=False,
    ),
]
Work = Annotated[
    Path | None,
    typer.Option(
        "--work",
        metavar="DIR",
        help="Where a move keeps its notes and the copy of a source directory until it is done "
        "(~/.local/state/chroma-cluster/moving).",
        show_default=False,
    ),
]
Afresh = Annotated[
    bool, typer.Option("--afresh", help="Drop what an interrupted move left half done, and begin anew.")
]
TokenFile = Annotated[
    Path | None,
    typer.Option(
        "--token-file",
        metavar="FILE",
        help="What lets us in at URL: a token (sent as Bearer), or a header, e.g. `X-Chroma-Token: ...`.",
        show_default=False,
    ),
]
OtherTokenFile = Annotated[
    Path | None,
    typer.Option(
        "--other-token-file", metavar="FILE", help="The same for the other server.", show_default=False
    ),
]
CaFile = Annotated[
    Path | None,
    typer.Option(
        "--ca-file", metavar="FILE", help="The authority that certified https servers.", show_default=False
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]


def import_(
    source: Annotated[
        str, typer.Argument(metavar="SOURCE", help="A Chroma directory, or the URL of a server or cluster.")
    ],
    url: Url,
    existing: ExistingOption = Existing.REFUSE,
    tenant: Tenants = None,
    work: Work = None,
    afresh: Afresh = False,
    token_file: TokenFile = None,
    other_token_file: OtherTokenFile = None,
    ca_file: CaFile = None,
    as_json: AsJson = False,
) -> None:
    """Move everything of a Chroma into this cluster, verified record by record; the source is never touched.

    Interrupted at any point, the same command goes on where it stopped.

    Exit code 0: all moved and verified; 1: something differs or could not be moved, or it was interrupted,
    and it is named; 2: nothing was changed.
    """
    _run(source, url, existing, tenant, work, afresh, other_token_file, token_file, ca_file, as_json)


def export(
    target: Annotated[
        str,
        typer.Argument(metavar="TARGET", help="A new Chroma directory, or the URL of a server or cluster."),
    ],
    url: Url,
    existing: ExistingOption = Existing.REFUSE,
    tenant: Tenants = None,
    work: Work = None,
    afresh: Afresh = False,
    token_file: TokenFile = None,
    other_token_file: OtherTokenFile = None,
    ca_file: CaFile = None,
    as_json: AsJson = False,
) -> None:
    """Move everything of this cluster out, to a plain Chroma directory or server, verified record by record.

    Interrupted at any point, the same command goes on where it stopped. A directory gets its name when it is
    complete.

    Exit code 0: all moved and verified; 1: something differs or could not be moved, or it was interrupted,
    and it is named; 2: nothing was changed.
    """
    _run(url, target, existing, tenant, work, afresh, token_file, other_token_file, ca_file, as_json)


def _run(
    source: str,
    target: str,
    existing: Existing,
    tenants: list[str] | None,
    work: Path | None,
    afresh: bool,
    source_token: Path | None,
    target_token: Path | None,
    ca_file: Path | None,
    as_json: bool,
) -> NoReturn:
    from cluster.moving.run import Order

    order = Order(
        _end(source),
        _end(target),
        (work or _usual_place()).expanduser().absolute(),
        existing.value,
        tuple(dict.fromkeys(tenants or ["default_tenant"])),
        afresh,
        _access(source_token, ca_file),
        _access(target_token, ca_file),
    )
    if order.source == order.target:
        fail("Source and target are the same. Nothing was changed.", code=_NOT_DONE)
    _perform(order, as_json=as_json)


def _perform(order: Order, *, as_json: bool) -> NoReturn:
    from cluster.cli.moving_bar import Bars
    from cluster.errors import ClusterError
    from cluster.moving.plan import NothingDone
    from cluster.moving.report import exit_code, lines

    try:
        with Bars(shown=sys.stderr.isatty() and not as_json) as bars:
            report = _until_interrupted(order, bars)
    except ClusterError as error:
        nothing = isinstance(error, NothingDone)
        if as_json:
            said = {"result": "nothing done" if nothing else "interrupted", "error": error.message}
            typer.echo(json.dumps(said, indent=2))
        fail(error.message, code=_NOT_DONE if nothing else _INTERRUPTED)
    if as_json:
        typer.echo(json.dumps(report, indent=2))
    else:
        for line in lines(report):
            typer.echo(line)
    raise typer.Exit(exit_code(report))


def _until_interrupted(order: Order, bars: Any) -> dict[str, Any]:
    """The move; SIGINT, SIGTERM and SIGHUP end it in order."""
    import asyncio
    import signal

    from cluster.moving.run import move

    async def moving() -> dict[str, Any]:
        task = asyncio.current_task()
        assert task is not None
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, task.cancel)
        return await move(order, bars)

    return asyncio.run(moving())


def _end(name: str) -> str:
    """A URL without a slash at its end, or an absolute path."""
    from urllib.parse import urlsplit

    if "://" not in name:
        return str(Path(name).expanduser().absolute())
    try:
        parts = urlsplit(name)
        right = parts.scheme in ("http", "https") and parts.hostname is not None and parts.port != 0
    except ValueError:
        right = False
    else:
        right = right and parts.path in ("", "/") and not (parts.query or parts.fragment or parts.username)
    if not right:
        fail(
            f"{name} is neither a directory nor a server like http://host:8000 (no path, no password in "
            "it). Nothing was changed.",
            code=_NOT_DONE,
        )
    return name.rstrip("/")


def _access(token_file: Path | None, ca_file: Path | None) -> Access:
    import re
    import ssl

    from cluster.moving.server import Access

    headers: dict[str, str] = {}
    if token_file is not None:
        try:
            told = token_file.read_text(encoding="ascii").strip()
        except (OSError, UnicodeDecodeError) as error:
            fail(f"The token file {token_file} cannot be read: {error}. Nothing was changed.", code=_NOT_DONE)
        if not told or not told.isprintable():
            fail(f"The token file {token_file} must hold one line. Nothing was changed.", code=_NOT_DONE)
        header = re.fullmatch(r"([A-Za-z-]+): *(.+)", told)
        headers = {header[1]: header[2]} if header else {"Authorization": f"Bearer {told}"}
    try:
        tls = None if ca_file is None else ssl.create_default_context(cafile=str(ca_file))
    except (OSError, ssl.SSLError) as error:
        fail(f"The authority {ca_file} cannot be read: {error}. Nothing was changed.", code=_NOT_DONE)
    return Access(headers, tls)


def _usual_place() -> Path:
    state = os.environ.get("XDG_STATE_HOME")
    return (Path(state) if state else Path.home() / ".local" / "state") / "chroma-cluster" / "moving"
