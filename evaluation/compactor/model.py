"""What lies in the bucket: changes in a queue, snapshots, and the pointer to the one that counts."""

from __future__ import annotations

import base64
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

import orjson

if TYPE_CHECKING:
    import numpy as np

POINTER = "pointer"
QUEUE = "queue"
SNAPSHOTS = "snapshots"
COLLECTION = "compacted"


class Variant(StrEnum):
    """How a worker moves the pointer to its new snapshot."""

    UNFENCED = "unfenced"
    """It writes it: it had the lock, after all."""
    CHECKED = "checked"
    """It looks whether it still has the lock, then writes it."""
    FENCED = "fenced"
    """It writes it on the condition that the pointer is the one it began from (If-Match)."""


class Point(StrEnum):
    """Where a cycle can be paused or killed, in the order in which it passes them."""

    DOWNLOADED = "downloaded"
    APPLIED = "applied"
    PACKED = "packed"
    UPLOADED = "uploaded"
    CHECKED = "checked"
    """The last step before the pointer moves, after the look at the lock of variant `checked`."""
    MOVED = "moved"
    """The pointer has moved; the changes are still in the queue."""


@dataclass(frozen=True, slots=True)
class Pointer:
    """Which snapshot counts. No two are equal: an ETag is a digest of the content."""

    generation: int
    snapshot: str
    previous: str
    token: int
    worker: str

    def encode(self) -> bytes:
        return orjson.dumps(asdict(self))

    @staticmethod
    def decode(body: bytes) -> Pointer:
        return Pointer(**orjson.loads(body))

    @staticmethod
    def after(old: Pointer | None, token: int, worker: str) -> Pointer:
        """The pointer that `worker`, holding the lease with `token`, will want to write."""
        generation = 1 if old is None else old.generation + 1
        snapshot = f"{SNAPSHOTS}/{generation:06}-{token}-{worker}.tar.gz"
        return Pointer(generation, snapshot, "" if old is None else old.snapshot, token, worker)


@dataclass(frozen=True, slots=True)
class Change:
    """One document to be upserted, float32 vector as bytes."""

    id: str
    vector: bytes
    document: str

    @staticmethod
    def of(id: str, vector: np.ndarray[tuple[int], np.dtype[np.float32]], document: str) -> Change:
        return Change(id, vector.astype("<f4").tobytes(), document)

    def encode(self) -> bytes:
        return orjson.dumps(
            {"id": self.id, "vector": base64.b64encode(self.vector).decode(), "document": self.document}
        )

    @staticmethod
    def decode(body: bytes) -> Change:
        raw = orjson.loads(body)
        return Change(raw["id"], base64.b64decode(raw["vector"]), raw["document"])


def queue_key(number: int) -> str:
    """Keys of later changes sort behind."""
    return f"{QUEUE}/{number:010}"
