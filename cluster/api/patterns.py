"""What a regular expression can cost at most, from its text alone; pure.

Chroma matches in time linear in the text, but proportional to the states that the expression has when its
counted repetitions are written out. A Unicode class such as \\w has hundreds, and beyond the matcher's
cache the time grows a hundredfold. Nothing is judged here but size: what is no expression, Chroma refuses by
itself.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

_LITERAL: Final = 1
_SET: Final = 4
_SMALL_CLASS: Final = 16
_UNICODE_CLASS: Final = 128

#: Beyond this all is too much, and numbers stay small however often they are multiplied.
_ENOUGH: Final = 10**9

_COUNTED: Final = re.compile(r"\{\s*(\d*)\s*(?:,\s*(\d*)\s*)?\}", re.ASCII)
_BRACED: Final = re.compile(r"\{[^}]*\}")
_NAMED_SET: Final = re.compile(r"\[:\^?\w+:\]")
_LARGE: Final = re.compile(r"\\[wWpPbB]")
_SMALL: Final = re.compile(r"\\[dDsS]|\.|\[\^")
#: White space and comments count for nothing.
_VERBOSE: Final = re.compile(r"\(\?[a-zA-Z-]*x")


@dataclass(slots=True)
class _Group:
    """What is open: the cost of all before its last atom, and of that atom, to which a repetition applies."""

    before: int = 0
    last: int = 0

    def add(self, cost: int) -> None:
        self.before += self.last
        self.last = cost

    def repeat(self, times: int) -> None:
        self.last = min(self.last * max(times, 1), _ENOUGH)

    @property
    def cost(self) -> int:
        return min(self.before + self.last, _ENOUGH)


def cost(pattern: str) -> int:
    """Weights of all atoms, each as often as counted repetitions around it say."""
    return _at_most(pattern) if _VERBOSE.search(pattern) else _cost(pattern)


def _at_most(pattern: str) -> int:
    """Whatever stands where: all atoms under all repetitions. Comments could hide what belongs to what."""
    atoms = len(pattern)
    atoms += _UNICODE_CLASS * (len(_LARGE.findall(pattern)) + sum(ord(char) > 0x7F for char in pattern))
    atoms += _SMALL_CLASS * len(_SMALL.findall(pattern)) + _SET * pattern.count("[")
    for counted in _COUNTED.finditer(pattern):
        atoms = min(atoms * max(_times(counted), 1), _ENOUGH)
    return atoms


def _cost(pattern: str) -> int:
    groups = [_Group()]
    at = 0
    while at < len(pattern):
        current, char = groups[-1], pattern[at]
        if char == "\\":
            at, atom = _escape(pattern, at)
            current.add(atom)
        elif char == "[":
            at, atom = _bracket(pattern, at)
            current.add(atom)
        elif char == "(":
            groups.append(_Group())
            at += 1
        elif char == ")":
            if len(groups) > 1:
                closed = groups.pop()
                groups[-1].add(closed.cost)
            at += 1
        elif char == "{" and (counted := _COUNTED.match(pattern, at)) is not None:
            current.repeat(_times(counted))
            at = counted.end()
        else:
            if char not in "*+?":  # as many states as without
                current.add(_SMALL_CLASS if char == "." else _LITERAL)
            at += 1
    while len(groups) > 1:
        closed = groups.pop()
        groups[-1].add(closed.cost)
    return groups[0].cost


def _times(counted: re.Match[str]) -> int:
    digits = [text for text in counted.groups() if text]
    return max((min(int(text[:10]), _ENOUGH) for text in digits), default=1)


def _escape(pattern: str, at: int) -> tuple[int, int]:
    """Where an escape at `at` ends, and what it costs."""
    kind = pattern[at + 1 : at + 2]
    end = at + 2
    if kind in ("p", "P", "x", "u", "U") and (braced := _BRACED.match(pattern, end)) is not None:
        end = braced.end()
    elif kind in ("p", "P"):
        end += 1
    if kind in ("w", "W", "p", "P", "b", "B") and kind:
        return end, _UNICODE_CLASS
    return end, _SMALL_CLASS if kind in ("d", "D", "s", "S") and kind else _LITERAL


def _bracket(pattern: str, at: int) -> tuple[int, int]:
    """Where a class in brackets ends, those within it included, and what it costs."""
    depth, atom, start = 0, _SET, at
    while at < len(pattern):
        char = pattern[at]
        if char == "\\":
            at, inner = _escape(pattern, at)
            atom = max(atom, inner)
            continue
        first = at == start + 1 or (at == start + 2 and pattern[start + 1] == "^")
        if char == "[":
            if (named := _NAMED_SET.match(pattern, at)) is not None and depth:
                at = named.end()
                continue
            depth += 1
            start = at
        elif char == "^" and at == start + 1:
            atom = max(atom, _SMALL_CLASS)
        elif char == "]" and not first:
            depth -= 1
            if depth == 0:
                return at + 1, atom
        elif ord(char) > 0x7F:
            atom = max(atom, _UNICODE_CLASS)
        at += 1
    return at, atom
