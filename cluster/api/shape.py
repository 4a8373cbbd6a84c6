"""What a JSON body is made of, found without reading it; pure.

To read millions of small values keeps all other threads of a node from running for seconds: those of the log
too. What is counted here is right up to the first byte that is no JSON, where every reader stops.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

_PIECE: Final = 1024 * 1024
_QUOTE: Final = ord('"')
_COLON: Final = ord(":")
_BLANKS: Final = b" \t\n\r"
#: With this bit set, `[` is `{` and `]` is `}`.
_CURLY: Final = 0x20


def parts(body: bytes, enough: int) -> int:
    """How many lists, objects and named values are in `body`; a number up to `enough` may be too high."""
    found = sum(body.count(mark) for mark in (b"[", b"{", b":"))
    if found <= enough:
        return found
    total = 0
    for _, piece, outside in _pieces(_plain(body), _PIECE):
        opens = (piece | _CURLY) == ord("{")
        total += int(np.count_nonzero((opens | (piece == _COLON)) & outside))
    return total


def names_twice(body: bytes, names: tuple[str, ...], piece: int = _PIECE) -> bool:
    """Whether the outermost object has one of these names twice, each written without escapes."""
    keys = [key for name in names if body.count(key := f'"{name}"'.encode()) > 1]
    if not keys:
        return False
    plain = _plain(body)
    seen: set[bytes] = set()
    for at in _outermost_strings(plain, piece):
        for key in keys:
            if plain.startswith(key, at) and _is_name(plain, at + len(key)):
                if key in seen:
                    return True
                seen.add(key)
    return False


def _outermost_strings(plain: bytes, size: int) -> Iterator[int]:
    """Where the strings begin that are neither in a list nor in an object within the outermost."""
    depth = 0
    for start, piece, outside in _pieces(plain, size):
        curly = piece | _CURLY
        steps = ((curly == ord("{")) & outside).astype(np.int32) - ((curly == ord("}")) & outside)
        depths = depth + np.cumsum(steps, dtype=np.int32)
        begins = (piece == _QUOTE) & ~outside & (depths == 1)
        yield from (start + int(at) for at in np.flatnonzero(begins))
        depth = int(depths[-1])


def _is_name(plain: bytes, end: int) -> bool:
    while end < len(plain) and plain[end] in _BLANKS:
        end += 1
    return plain[end : end + 1] == b":"


def _plain(body: bytes) -> bytes:
    """`body` with blanks for escaped quotes and backslashes: each quote in it begins or ends a string."""
    if b"\\" not in body:
        return body
    return body.replace(b"\\\\", b"  ").replace(b'\\"', b"  ")


def _pieces(plain: bytes, size: int) -> Iterator[tuple[int, NDArray[np.uint8], NDArray[np.bool_]]]:
    """Where each piece begins, its bytes, and which of them are in no string (its last quote is in none)."""
    within = 0
    every = np.frombuffer(plain, np.uint8)
    for start in range(0, len(plain), size):
        piece = every[start : start + size]
        # Modulo 256: only whether it is even counts.
        inside = (np.cumsum(piece == _QUOTE, dtype=np.uint8) + np.uint8(within)) & 1
        within = int(inside[-1])
        yield start, piece, inside == 0
