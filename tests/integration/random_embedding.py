"""An embedding function with deliberate randomness: two calls never agree, so replicas must copy."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence


class RandomEmbedding:
    """Eight random numbers for every text, another eight at the next call."""

    def __call__(self, input: Sequence[str]) -> list[np.ndarray[tuple[int], np.dtype[np.float32]]]:
        random = np.random.default_rng(int.from_bytes(os.urandom(8), "little"))
        return [random.normal(size=8).astype(np.float32) for _ in input]
