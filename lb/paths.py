"""What a path comes to once everybody on the way has read it in his own way; pure.

Requests go to nodes with the path as it came. What some reader of it might take for `/cluster` or something
below is the nodes' control surface or the balancer's own, and never passed on.
"""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import unquote

#: So often may a path be percent-encoded: names are encoded once, and no reader decodes for ever.
_MOST_ROUNDS: Final = 8

_RESERVED: Final = "cluster"

#: Without any of these, a path is what it looks like.
_TRICKS: Final = re.compile(r"%|\\|//|/\.|;|[^!-~]")


def is_reserved(path: str) -> bool:
    """Whether `path` (of a request line, without the query) is at or below `/cluster` in anybody's eyes.

    A path that is encoded more than eight times over counts as such.
    """
    if not _TRICKS.search(path):
        return path[1:].partition("/")[0].lower() == _RESERVED
    forms = _readings(path)
    return forms is None or any(_first_part(form) == _RESERVED for form in forms)


def _readings(path: str) -> list[str] | None:
    """The path undecoded, decoded once, twice and so on until nothing changes; None if there is no end."""
    forms = [path]
    while len(forms) <= _MOST_ROUNDS:
        decoded = unquote(forms[-1], errors="replace")
        if decoded == forms[-1]:
            return forms
        forms.append(decoded)
    return None


def _first_part(path: str) -> str:
    """The first part of a decoded path without empty parts, dot segments, parameters, blanks and case."""
    parts: list[str] = []
    for part in re.split(r"[/\\]", path.partition("?")[0].partition("#")[0]):
        bare = part.partition(";")[0].strip("\0\t\n\v\f\r ")
        if bare == "..":
            del parts[-1:]
        elif bare not in ("", "."):
            parts.append(bare)
    return parts[0].lower() if parts else ""
