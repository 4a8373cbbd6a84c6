"""The benchmark's figures as tables for people."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING

from rich.table import Table

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rich.console import Console

    from evaluation.raft.figures import Failover, Failure, Latency, System


def show_latencies(latencies: Mapping[str, Mapping[System, Latency]], console: Console) -> None:
    """`latencies`: load -> system -> its figures."""
    table = Table(title="from propose to commit: three processes, loopback")
    for heading in ("in flight", "log", "commits", "per second", "p50 ms", "p99 ms", "elections"):
        table.add_column(heading, justify="left" if heading == "log" else "right")
    notes: list[str] = []
    for name, by_system in latencies.items():
        for system, latency in by_system.items():
            rate = statistics.median(latency.per_second)
            table.add_row(
                name,
                system,
                f"{latency.commits:,}",
                f"{rate:,.0f}" if rate >= 10 else f"{rate:.1f}",
                "-" if latency.p50_ms is None else f"{latency.p50_ms:,.1f}",
                "-" if latency.p99_ms is None else f"{latency.p99_ms:,.1f}",
                str(latency.elections),
            )
            wrong = {**latency.errors, "unanswered": latency.unanswered}
            notes += [f"{name}, {system}: {count} {kind}" for kind, count in wrong.items() if count]
    console.print(table)
    for note in notes:
        console.print(note)


def show_failovers(failovers: Mapping[Failure, Failover], console: Console) -> None:
    """`failovers`: how the leader failed -> its figures."""
    table = Table(title="from the leader's failure to the next committed write")
    for heading in ("failure", "trials", "median ms", "max ms", "acknowledged", "lost"):
        table.add_column(heading, justify="left" if heading == "failure" else "right")
    for failure, failover in failovers.items():
        table.add_row(
            failure,
            str(len(failover.pauses_ms)),
            f"{statistics.median(failover.pauses_ms):.0f}",
            f"{max(failover.pauses_ms):.0f}",
            str(failover.acknowledged),
            str(failover.lost),
        )
    console.print(table)
