"""Real texts with real vectors: sentences of Python's own documentation, embedded by the bundled model.

Recall means nothing on random vectors: in 384 dimensions all of them are about equally far from each other.
The model gives 256 dimensions. They are turned into 384 by a matrix with orthonormal rows, which keeps every
distance, so that neighbours are those of the texts, and bytes and work per vector those of the usual 384.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from cluster.cli.demo import corpus
from cluster.embedding.embedder import Embedder

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from numpy.typing import NDArray

DIMENSION = 384
MIN_CHARACTERS = 80
HELD_OUT = 400
_SENTENCE_END = re.compile(r"(?<=[.:;!?])\s+")


@dataclass(frozen=True, slots=True)
class Texts:
    """Documents to fill in, and others, never filled in, to query with."""

    documents: list[str]
    rows: NDArray[np.float32]
    queries: NDArray[np.float32]


def pieces(words: str) -> Iterator[str]:
    """Sentences of one text, short ones joined with the next."""
    held = ""
    for sentence in _SENTENCE_END.split(" ".join(words.split())):
        held = f"{held} {sentence}".strip()
        if len(held) >= MIN_CHARACTERS:
            yield held
            held = ""


def distinct(texts: Iterable[str]) -> list[str]:
    """Without repetitions, in an order that mixes the subjects but is the same every time."""
    return sorted(set(texts), key=lambda text: hashlib.blake2b(text.encode(), digest_size=8).digest())


def widen(rows: NDArray[np.float32], dimension: int) -> NDArray[np.float32]:
    """The same points in more dimensions, all distances kept."""
    square = np.random.default_rng(384).normal(size=(dimension, dimension))
    orthonormal = np.linalg.qr(square)[0][: rows.shape[1]]
    return (rows @ orthonormal).astype(np.float32)


def exact_neighbours(
    rows: NDArray[np.float32], queries: NDArray[np.float32], count: int
) -> NDArray[np.int64]:
    """For each query the numbers of its `count` nearest rows (l2), nearest first."""
    distances = (rows**2).sum(axis=1)[None, :] - 2 * (queries @ rows.T)
    return np.argsort(distances, axis=1, kind="stable")[:, :count]


def load(documents: int, folder: Path) -> Texts:
    """So many documents, and `HELD_OUT` queries. Embedded once, then kept in `folder`.

    Raises:
        ValueError: there are not so many texts.
    """
    texts = _texts()
    wanted = documents + HELD_OUT
    if wanted > len(texts):
        raise ValueError(f"{documents} documents were asked for; there are {len(texts) - HELD_OUT} texts")
    texts = texts[:wanted]
    rows = widen(_embedded(texts, folder), DIMENSION)
    return Texts(texts[:documents], rows[:documents], rows[documents:])


@cache
def _texts() -> list[str]:
    sources = corpus.unique([*corpus.library(), *corpus.topics()])
    return distinct(piece for source in sources for piece in pieces(source.words))


def _embedded(texts: list[str], folder: Path) -> NDArray[np.float32]:
    digest = hashlib.blake2b("\0".join(texts).encode(), digest_size=8).hexdigest()
    path = folder / f"texts-{digest}.npy"
    if path.exists():
        return np.load(path)
    embedder = Embedder()
    embedded = embedder.embed(embedder.default, texts)
    rows: NDArray[np.float32] = np.stack([np.frombuffer(vector, "<f4") for vector in embedded.vectors])
    folder.mkdir(parents=True, exist_ok=True)
    np.save(path, rows)
    return rows
