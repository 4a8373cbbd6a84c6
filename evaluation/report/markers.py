"""Generated blocks of a Markdown document: what stands between two markers is replaced. Pure.

A block begins with the line `<!-- generated: NAME -->` and ends with `<!-- end of NAME -->`.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

_BEGIN = re.compile(r"^<!-- generated: (?P<name>[a-z0-9-]+) -->$", re.MULTILINE)


def names(text: str) -> list[str]:
    """Of all blocks, in their order. ValueError for one that has no end, or stands there twice."""
    found: list[str] = []
    for match in _BEGIN.finditer(text):
        name = match["name"]
        if name in found:
            raise ValueError(f"the block {name} stands there twice")
        if text.find(_end(name), match.end()) < 0:
            raise ValueError(f"the block {name} has no end: {_end(name)}")
        found.append(name)
    return found


def replaced(text: str, blocks: Mapping[str, str]) -> str:
    """Every block of the text with new content. ValueError if one is not known."""
    for name in names(text):
        if name not in blocks:
            raise ValueError(f"no such block: {name}. Known: {', '.join(sorted(blocks))}")
        begin = text.index(f"<!-- generated: {name} -->") + len(f"<!-- generated: {name} -->")
        end = text.index(_end(name), begin)
        text = f"{text[:begin]}\n\n{blocks[name].strip()}\n\n{text[end:]}"
    return text


def _end(name: str) -> str:
    return f"<!-- end of {name} -->"


def table(columns: list[str], rows: list[list[str]], numeric: frozenset[int] = frozenset()) -> str:
    """A Markdown table; pipes and line breaks in cells are made harmless."""

    def line(cells: list[str]) -> str:
        return "| " + " | ".join(" ".join(cell.split()).replace("|", "\\|") for cell in cells) + " |"

    rule = "|" + "|".join("--:" if number in numeric else "---" for number in range(len(columns))) + "|"
    return "\n".join([line(columns), rule, *(line(row) for row in rows)])
