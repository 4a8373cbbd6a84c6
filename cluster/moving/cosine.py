"""Vectors of cosine collections, so that what a client reads back is the same to the last bit.

Chroma's index keeps a vector's direction and its length, and gives back their product: each value is rounded
twice, so what was read and is written again would come back with other last bits. What is written is
therefore a vector beside it, with values at most one unit in the last place away, from which the index makes
the one that was read. There always is one for what an index gave: the one that was once written, for example.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Floats = NDArray[np.float32]

#: How many units in the last place away it is looked for, in each value and in the length.
_AWAY: Final = 1
_LENGTHS_AWAY: Final = 3
#: Where a value may be either of two, how many are the longer one, to come to a length; in how many orders.
_SHARES: Final = (0.5, 1.0, 0.0, 0.75, 0.25, 0.9, 0.1, *(at / 40 for at in range(1, 40)))
_ORDERS: Final = 3
_ONE: Final = np.float32(1)
#: What the index adds to a length before it divides by it.
_NOT_ZERO: Final = np.float32(1e-30)


def to_write(vectors: Sequence[bytes]) -> list[bytes | None]:
    """For each vector (32-bit floats) what to write so that it is given back; None if nothing is found.

    All have the same number of values.
    """
    if not vectors:
        return []
    wanted = np.frombuffer(b"".join(vectors), dtype="<f4").reshape(len(vectors), -1)
    written: list[bytes | None] = list(vectors)
    with np.errstate(all="ignore"):
        lengths = _lengths(wanted)
        open_rows = np.flatnonzero((~_same(_through(wanted, lengths[:, None]), wanted)).any(axis=1))
        for at in open_rows:
            written[at] = None
        for assumed in _near(lengths):
            if not len(open_rows):
                break
            for at, values in _assuming(wanted[open_rows], assumed[open_rows]):
                written[open_rows[at]] = values.astype("<f4").tobytes()
            open_rows = np.array([at for at in open_rows if written[at] is None], dtype=np.intp)
    return written


def as_given_back(vector: bytes) -> bytes:
    """What a client reads after this vector was written."""
    values = np.frombuffer(vector, dtype="<f4")[None]
    with np.errstate(all="ignore"):
        return _through(values, _lengths(values)[:, None]).astype("<f4").tobytes()


def _lengths(rows: Floats) -> Floats:
    """The lengths as the index computes them: in single precision, one value after the other."""
    return np.sqrt(np.add.accumulate(rows * rows, axis=-1, dtype=np.float32)[..., -1])


def _through(rows: Floats, length: Any) -> Floats:
    """Values as given back by an index that found this length."""
    return (rows * (_ONE / (length + _NOT_ZERO))) * length


def _same(one: Floats, other: Floats) -> NDArray[np.bool_]:
    """Whether the bits are the same: 0.0 and -0.0 are not."""
    return one.view(np.uint32) == other.view(np.uint32)


def _beside(wanted: Floats) -> Floats:
    """The values themselves and their neighbours, in a new first dimension."""
    found, up, down = [wanted], wanted, wanted
    for _ in range(_AWAY):
        up, down = np.nextafter(up, np.float32(np.inf)), np.nextafter(down, np.float32(-np.inf))
        found += [up, down]
    return np.stack(found)


def _assuming(wanted: Floats, assumed: Floats) -> list[tuple[int, Floats]]:
    """Rows that are given back as `wanted` and have the lengths `assumed`, and their numbers; those found."""
    beside = _beside(wanted)
    right = _same(_through(beside, assumed[:, None]), wanted)
    rows = np.flatnonzero(np.all(np.any(right, axis=0), axis=-1))
    beside, right = beside[:, rows], right[:, rows]
    size = np.abs(beside)
    longer = np.where(right, size, -np.inf).argmax(axis=0)[None]
    shorter = np.where(right, size, np.inf).argmin(axis=0)[None]
    long: Floats = np.take_along_axis(beside, longer, 0)[0]
    short: Floats = np.take_along_axis(beside, shorter, 0)[0]
    found: list[tuple[int, Floats]] = []
    order = np.random.default_rng(0).random((_ORDERS, wanted.shape[1]))  # the same each time
    for part in (order[attempt % _ORDERS] < share for attempt, share in enumerate(_SHARES)):
        if not len(rows):
            break
        values: Floats = np.where(part, long, short)
        done = _lengths(values) == assumed[rows]
        found += zip(rows[done].tolist(), values[done], strict=True)
        rows, long, short = rows[~done], long[~done], short[~done]
    return found


def _near(lengths: Floats) -> list[Floats]:
    found, up, down = [lengths], lengths, lengths
    for _ in range(_LENGTHS_AWAY):
        up, down = np.nextafter(up, np.float32(np.inf)), np.nextafter(down, np.float32(0))
        found += [up, down]
    return found
