"""Read guarantees: what a read asked for, and which log index the serving node must have applied.

Pure. Three levels:

- `linearizable`: the read sees every write that was answered before the read arrived, by anyone.
  The node applies up to a read index, proven by a quorum round begun after the arrival.
- `session`: the read sees every write and every read that its token stands for. The balancer
  keeps one token per collection and one for the catalogue, the highest index seen in any answer,
  so all its clients together never see a collection go back.
- `eventual`: what the node has.

With a staleness bound, at any level, the answer shows every write that was answered, by anyone, more than
that long before the node had the answer ready. How long ago is proven, not assumed: see `cluster.staleness`
and `cluster.raft.freshness`. A node that cannot prove it refuses.

The token of an answer. A write's is its log index. A read's is not the applied index but the
highest index whose engine work has *begun* on that collection, taken when the engine read is over:
the engine shows a call's records before the call is durable and counted as applied, and one call
may cover several entries, so a read may have seen all of an entry that is not applied yet. With
the applied index as token, the next read could go to a node that lacks what this one showed.
Per collection, because a token for all of the log would make readers of a quiet collection wait
for the writes of a busy one. A deleted or renamed collection is a matter of the catalogue,
therefore a read of a collection waits for the higher of both tokens.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from cluster.errors import Refusal, Unavailable

CONSISTENCY_HEADER: Final = "X-Chroma-Consistency"
MIN_INDEX_HEADER: Final = "X-Chroma-Min-Index"
MAX_STALENESS_HEADER: Final = "X-Max-Staleness-Ms"

#: A node out of touch with a majority for longer serves only eventual reads: its side of a
#: partition may be the minority, where no write can be answered and session reads would stand still.
OUT_OF_TOUCH_MS: Final = 5_000.0

_MAX_INDEX: Final = 2**63 - 1


class Level(StrEnum):
    LINEARIZABLE = "linearizable"
    SESSION = "session"
    EVENTUAL = "eventual"


@dataclass(frozen=True, slots=True)
class Guarantee:
    """What one read asked for: level, session token, and staleness bound (None: no bound)."""

    level: Level
    min_index: int = 0
    max_staleness_ms: float | None = None


def parse_guarantee(
    level: str | None, min_index: str | None, max_staleness_ms: str | None, default: Level = Level.SESSION
) -> Guarantee:
    """The guarantee that the three headers' values ask for.

    Raises:
        Refusal: 400, a value is not one of those allowed.
    """
    return Guarantee(
        _parse_level(level, default), _parse_index(min_index), _parse_staleness(max_staleness_ms)
    )


def needs_read_index(guarantee: Guarantee) -> bool:
    """Whether the node must ask the leader for a read index before it can serve."""
    return guarantee.level is Level.LINEARIZABLE


def wanted_index(guarantee: Guarantee, read_index: int | None, known_index: int) -> int:
    """The index that the node must have applied before it reads.

    `read_index` is the leader's, for linearizable reads; up to `known_index` the log was complete as of the
    time from which a staleness bound counts. A token above the commit index is waited for: the node is
    behind.
    """
    match guarantee.level:
        case Level.LINEARIZABLE:
            if read_index is None:
                raise ValueError("a linearizable read needs a read index")
            return max(read_index, guarantee.min_index)
        case Level.SESSION:
            wanted = guarantee.min_index
        case Level.EVENTUAL:
            wanted = 0
    return wanted if guarantee.max_staleness_ms is None else max(wanted, known_index)


def check_freshness(
    guarantee: Guarantee, quorum_contact_ms: float, node_id: str, out_of_touch_ms: float = OUT_OF_TOUCH_MS
) -> None:
    """Whether this node is in touch, as far as it knows, with a cluster that may have gone on without it.

    `quorum_contact_ms` is the time since it last knew itself in touch with a majority. Linearizable reads
    need no such check: their read index is a proof of contact.

    Raises:
        Unavailable: it is not; another node may serve the read.
    """
    if guarantee.level is Level.SESSION and quorum_contact_ms > out_of_touch_ms:
        raise Unavailable(
            f"Node {node_id} was last in touch with a majority {quorum_contact_ms:.0f} ms ago, and a read at"
            f" level {Level.SESSION} allows {out_of_touch_ms:.0f} ms. Nothing was read; ask another node, or"
            f" read with {CONSISTENCY_HEADER}: {Level.EVENTUAL} and no staleness bound."
        )


def check_age(guarantee: Guarantee, age_ms: float, node_id: str) -> None:
    """Whether what this node reads, or has just read, is surely within the read's staleness bound.

    `age_ms` is how old it may be, as the node can prove; inf if it can prove nothing.

    Raises:
        Unavailable: it is not; another node may serve the read.
    """
    bound_ms = guarantee.max_staleness_ms
    if bound_ms is not None and age_ms > bound_ms:
        raise Unavailable(
            f"What node {node_id} holds may be {age_ms:.0f} ms old, and this read allows {bound_ms:.0f} ms."
            f" No answer was given; ask another node, or read with {CONSISTENCY_HEADER}: {Level.LINEARIZABLE}"
            f" and no {MAX_STALENESS_HEADER}, which asks the leader."
        )


def longest_wait_s(guarantee: Guarantee, age_ms: float, timeout_s: float) -> float:
    """How long it makes sense to wait for what is not applied: `timeout_s`, or until the bound is over."""
    bound_ms = guarantee.max_staleness_ms
    return timeout_s if bound_ms is None else max(0.0, min(timeout_s, (bound_ms - age_ms) / 1000))


def behind(wanted: int, applied_index: int, node_id: str) -> Unavailable:
    """The answer when the wait for an index took too long: never a stale read in its place."""
    return Unavailable(
        f"Node {node_id} has applied the log up to {applied_index}, and this read needs {wanted}. Nothing was"
        " read; ask another node or try again."
    )


def _parse_level(text: str | None, default: Level) -> Level:
    if text is None:
        return default
    try:
        return Level(text.strip().lower())
    except ValueError:
        names = ", ".join(f"`{level}`" for level in Level)
        raise _invalid(CONSISTENCY_HEADER, text, f"one of {names}") from None


def _parse_index(text: str | None) -> int:
    if text is None:
        return 0
    stripped = text.strip()
    if not (stripped.isascii() and stripped.isdigit()) or len(stripped) > 19 or int(stripped) > _MAX_INDEX:
        raise _invalid(MIN_INDEX_HEADER, text, "a log index, a whole number from 0")
    return int(stripped)


def _parse_staleness(text: str | None) -> float | None:
    if text is None:
        return None
    stripped = text.strip()
    if not (stripped.isascii() and stripped.isdigit()) or len(stripped) > 15:
        raise _invalid(MAX_STALENESS_HEADER, text, "a whole number of milliseconds from 0")
    return float(stripped)


def _invalid(header: str, text: str, expected: str) -> Refusal:
    shown = text if len(text) <= 64 else f"{text[:64]}..."
    return Refusal(400, "InvalidArgumentError", f"Header {header} is {shown!r}, expected {expected}")
