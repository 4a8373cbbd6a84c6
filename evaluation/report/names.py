"""Plain words for systems, properties and metrics, and the order in which they are shown."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

#: system -> one line for people. Their order is the order of columns.
SYSTEMS: dict[str, str] = {
    "cluster": "this project: three Chromas, a Raft log in front of each, one balancer",
    "cluster-5": "the same with five nodes",
    "single": "one `chroma run` that all workers share",
    "shared-dir": "three workers, each opening the same Chroma directory",
    "naive-lww": "three Chromas and a sync agent; the last write wins",
    "naive-vector-clock": "three Chromas and a sync agent; vector clocks, siblings kept",
    "naive-crdt": "three Chromas and a sync agent; observed-remove set with last-writer registers",
    "naive-manual": "three Chromas and a sync agent; conflicts wait in a queue for a person",
    "postgres-async": "Postgres + pgvector, two replicas, asynchronous replication",
    "postgres-async-unfenced": "the same, and the old primary is not fenced at failover",
    "postgres-quorum": "the same, a commit waits for any one replica (ANY 1, remote_apply)",
    "postgres-all": "the same, a commit waits for both replicas (ANY 2, remote_apply)",
    "postgres-patroni": "Postgres + pgvector, Patroni decides about failover",
}


def in_order(systems: Iterable[str]) -> list[str]:
    """Known systems in the order above, others after them by name."""
    order = list(SYSTEMS)
    return sorted(set(systems), key=lambda name: (order.index(name) if name in SYSTEMS else len(order), name))


def fault_words() -> dict[str, str]:
    """Fault -> what it does, in the order in which faults are shown."""
    from evaluation.faulting.catalogue import FAULTS

    return {name: fault.summary for name, fault in FAULTS.items()}


@cache
def applies(system: str, fault: str) -> bool:
    """Can this fault strike this system? Of unknown ones: it can, or there would be no such run."""
    from evaluation.failure import SystemFailure
    from evaluation.faulting.catalogue import FAULTS
    from evaluation.systems.catalogue import SYSTEMS as MAKERS

    if fault not in FAULTS or system not in MAKERS:
        return True
    try:
        return FAULTS[fault].applies_to(MAKERS[system]())
    except (ImportError, OSError, SystemFailure):
        # A report can be made where the systems themselves are not installed.
        return True


#: Definitions shown with the figures: term -> what exactly was counted.
METRICS: dict[str, str] = {
    "operation": (
        "one HTTP request of one client. ok: answered, and the value is what the answer says. "
        "refused: surely without effect. unknown: it may have taken effect, may still do so, or "
        "never."
    ),
    "lost": (
        "acknowledged writes that are missing when everything is read at every entry after healing "
        "and settling. A write that a later one replaced is not missing."
    ),
    "stale": (
        "reads that returned an older version than one whose write had been acknowledged before the "
        "read began. How old: the read's begin minus the earliest acknowledgement of any newer "
        "version."
    ),
    "lost updates": (
        "acknowledged items of a list with one writer that a list read later lacks. On systems without read "
        "levels this counts items that are merely not there yet as well; `lost` counts what is gone for good."
    ),
    "duplicated": ("records of which one acknowledged or unknown write left more than one copy."),
    "availability": (
        "of all 100 ms windows from when the fault bites until its end, the fraction in which at least "
        "one request was acknowledged. By side of the fault: an entry's side is that of the member it "
        "leads to; the balancer stands on the majority's side. Clients ask again and again, so an "
        "empty window means that none of them got through."
    ),
    "first success": (
        "time from when the fault bites (from its end) to the first acknowledgement of a request that "
        "was sent after it. `never` means: not until the end of the fault (of the run)."
    ),
    "longest pause": (
        "the longest time in the run in which no write of a side's clients was acknowledged. The measure of "
        "a failover: where striking and probing takes longer than an election, the first success after it "
        "is already the new leader's."
    ),
    "latency": ("from sending a request to its answer, at the client, acknowledged requests only."),
    "staleness curve": (
        "over all pairs of an acknowledged write and a later read of the same key: the share of reads "
        "that show something older than the write, by the time t between the acknowledgement and the "
        "read's begin. Right: of all reads that began t or more after it (t-visibility, upside down)."
    ),
    "promise": (
        "what the system itself claims (for example: an acknowledged write survives; reads are "
        "linearizable). A violation of a promise is red. An anomaly that was never promised away is "
        "amber: it is what the system trades for something else, and the reader decides whether that "
        "is acceptable."
    ),
}
