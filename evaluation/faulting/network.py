"""Faults of the network, made by toxics on the proxies of a system's links: the table of them."""

from __future__ import annotations

from typing import Final

from evaluation.faulting import cut_plans
from evaluation.faulting.degrade import Degrade
from evaluation.faulting.partition import Kind, Partition

LEVELS_MS: Final = (5, 50, 500)

_PARTITIONS: Final = (
    Partition(
        "leader-isolated",
        "the leader is cut off from all others; bytes are held and delivered after the heal",
        cut_plans.isolate_leader,
        needs_leader=True,
    ),
    Partition(
        "leader-refused",
        "the leader is cut off: connections are closed and refused",
        cut_plans.isolate_leader,
        Kind.REFUSED,
        needs_leader=True,
    ),
    Partition(
        "leader-blackhole",
        "the leader is cut off: connections stay up and bytes are swallowed",
        cut_plans.isolate_leader,
        Kind.BLACKHOLE,
        needs_leader=True,
    ),
    Partition(
        "minority-isolated",
        "a minority without the leader is cut off from the rest",
        cut_plans.isolate_minority,
    ),
    Partition(
        "majority-lost",
        "every member is cut off from every other: nobody has a majority",
        cut_plans.isolate_everybody,
        min_members=3,
    ),
    Partition(
        "one-way-out",
        "what the leader sends arrives nowhere; it hears all",
        cut_plans.leader_cannot_send,
        needs_leader=True,
    ),
    Partition(
        "one-way-in",
        "the leader hears nothing; what it sends arrives",
        cut_plans.leader_cannot_hear,
        needs_leader=True,
    ),
    Partition(
        "one-way-http",
        "followers' HTTP requests do not reach the leader; the log is untouched",
        cut_plans.http_to_leader,
        needs_plane="http",
        needs_leader=True,
    ),
    Partition(
        "bridge",
        "one member sees both halves of the others, which do not see each other",
        cut_plans.bridge,
        min_members=3,
        needs_leader=True,
    ),
    Partition(
        "ring",
        "each member sees only its two neighbours: every one another majority",
        cut_plans.ring,
        min_members=5,
        needs_leader=True,
    ),
    Partition(
        "flapping-link",
        "the link between the leader and another is cut and whole in turns",
        cut_plans.one_link,
        flap_s=(0.3, 1.5),
        min_seconds=8.0,
    ),
)

_DEGRADED: Final = (
    *(
        Degrade(
            f"latency-{ms}",
            f"{ms} ms more in each direction between all processes, give or take a fifth",
            (("latency", {"latency": ms, "jitter": ms // 5}),),
            bites="slow",
        )
        for ms in LEVELS_MS
    ),
    Degrade(
        "slow-close",
        "closing a connection takes 2 s to be noticed",
        (("slow_close", {"delay": 2000}),),
        bites="end",
    ),
    Degrade(
        "bandwidth",
        "64 KB/s between all processes: bulk delays what is urgent",
        (("bandwidth", {"rate": 64}),),
        bites="bulk",
    ),
    Degrade(
        "reset-peer",
        "connections of one member that does not lead are reset at once, again and again",
        (("reset_peer", {"timeout": 0}),),
        streams=("downstream",),
        one_member=True,
        bites="broken",
    ),
    Degrade(
        "cut-mid-frame",
        "every connection of one member that does not lead ends after 1,500 bytes, within a message",
        (("limit_data", {"bytes": 1500}),),
        one_member=True,
        bites="long",
    ),
    Degrade(
        "slicer",
        "everything arrives in pieces of about 64 bytes, 1 ms apart",
        (("slicer", {"average_size": 64, "size_variation": 32, "delay": 1000}),),
        bites="bulk",
    ),
)


def faults() -> list[Partition | Degrade]:
    """All of them."""
    return [*_PARTITIONS, *_DEGRADED]
