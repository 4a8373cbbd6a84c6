"""Courses of events that random faults all but never meet, step by step, on the same simulated cluster."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from tests.simulation.courses import applying, links, logs, members, poisoned

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.simulation.invariants import Violation

Course: TypeAlias = "Callable[[str | None], Violation | None]"

COURSES: dict[str, Course] = {
    "acks-carry-no-term": logs.old_acks,
    "wiped-node-votes": logs.lost_disk,
    "unsynced-tail-counts": logs.unsynced_tail,
    "unsynced-marker-counts": logs.unsynced_marker,
    "blame-the-first": poisoned.poison_beside_a_good_write,
    "refusals-not-reset": poisoned.good_between_bad,
    "drop-notes-no-token": applying.gone_database,
    "old-link-stays": links.hung_link,
    "old-link-taken": links.hung_link,
    "no-hold": poisoned.fault_that_passes,
    "no-look-ahead": poisoned.late_member,
    "best-follower-proves": logs.two_of_five,
    "change-at-commit": members.at_commit,
    "two-changes-at-once": members.two_at_once,
    "change-before-own-commit": members.before_own_commit,
    "promote-anybody": members.promoted_too_early,
    "learners-count": members.learners_alone,
    "needed-by-three": logs.lost_disk,
    "removed-node-disturbs": members.removed_while_away,
    "truncation-keeps-configuration": members.cut_off_change,
    "compaction-forgets-configuration": members.compacted_change,
}
"""By the bug that a course must show. Without the bug it runs to its end."""
