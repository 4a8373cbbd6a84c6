"""What roles and the replicated log say: two leaders, and the log as a second opinion."""

from __future__ import annotations

from typing import Any

import pytest

from evaluation.checking.judge import judge
from evaluation.checking.log import LogEntry, LogEvidence
from evaluation.checking.split_brain import reigns
from evaluation.checking.verdict import Finding, Verdict
from tests.unit.checker_histories import history, record

OK, VIOLATION, NOT_CHECKED = Verdict.OK, Verdict.VIOLATION, Verdict.NOT_CHECKED
#: Two leaders, one after the other in time or not: (at ms, member, role, term).
FIRST = (0, "node-1", "leader", 1)
SECOND = (10_000, "node-2", "leader", 2)


def split(text: str, *events: tuple[int, str, str, int | None], **about: Any) -> Finding:
    return judge(record(*events, **about), history(text)).of("split-brain")


@pytest.mark.parametrize(
    ("name", "events", "text", "expected"),
    [
        ("one leader", [FIRST], "A upsert x a 1-2 node=node-1", OK),
        ("no roles known", [], "A upsert x a 1-2 node=node-1", NOT_CHECKED),
        (
            "one after the other",
            [FIRST, (9_000, "node-1", "follower", 1), SECOND],
            "A upsert x a 1-2 node=node-1\nA upsert x b 11000-11001 node=node-2",
            OK,
        ),
        (
            "both acknowledge",
            [FIRST, SECOND, (90_000, "node-1", "follower", 2)],
            "A upsert x a 1-2 node=node-1\nA upsert x b 11000-11001 node=node-2\n"
            "B upsert y c 12000-12001 node=node-1",
            VIOLATION,
        ),
        (
            "both believe to lead, one acknowledges",
            [FIRST, SECOND, (90_000, "node-1", "follower", 2)],
            "A upsert x a 1-2 node=node-1\nA upsert x b 11000-11001 node=node-2",
            OK,
        ),
        (
            "the old one's acknowledgement overlaps",
            [FIRST, SECOND, (90_000, "node-1", "follower", 2)],
            "A upsert x a 1-2 node=node-1\nA upsert x b 11000-11005 node=node-2\n"
            "B upsert y c 10900-11005 node=node-1",
            OK,
        ),
        (
            "the old one passes it on, its new role not yet polled",
            [FIRST, SECOND, (14_500, "node-1", "follower", 2)],
            "A upsert x a 1-2 node=node-1\nA upsert x b 11000-11001 node=node-2\n"
            "B upsert y c 12000-12001 node=node-1",
            OK,
        ),
        (
            "a follower passes it on",
            [FIRST, (0, "node-2", "follower", 1)],
            "A upsert x a 1-2 node=node-2\nA upsert x b 4-5 node=node-1\nA upsert x c 7-8 node=node-2",
            OK,
        ),
        (
            "two leaders in one term",
            [FIRST, (10_000, "node-2", "leader", 1)],
            "A upsert x a 1-2 node=node-1",
            VIOLATION,
        ),
        (
            "one leader, polled again and again",
            [FIRST, (5, "node-1", "leader", 1), (7, "node-1", "leader", 1)],
            "A upsert x a 1-2 node=node-1",
            OK,
        ),
        (
            "two primaries without terms",
            [(0, "node-1", "primary", None), (10_000, "node-2", "primary", None)],
            "A upsert x a 1-2 node=node-1\nA upsert x b 11000-11001 node=node-2\n"
            "B upsert y c 12000-12001 node=node-1",
            VIOLATION,
        ),
    ],
)
def test_split_brain(
    name: str, events: list[tuple[int, str, str, int | None]], text: str, expected: Verdict
) -> None:
    assert split(text, *events).verdict is expected, name


CUT = {"lb": (None, "majority"), "chroma-1": ("chroma-1", "majority"), "chroma-3": ("chroma-3", "minority")}
PEERS = [(0, "chroma-1", "peer", None), (0, "chroma-3", "peer", None)]


def test_peers_that_both_take_writes_while_they_are_cut_off() -> None:
    both = "A upsert x a 10-11 @chroma-1\nB upsert x b 12-13 @chroma-3"
    about: dict[str, Any] = {"entries": CUT, "fault": (5, 20)}
    assert split(both, *PEERS, **about).verdict is VIOLATION
    assert split(both, *PEERS, entries=CUT, fault=(11, 20)).verdict is OK  # only one after the cut
    assert split(both, *PEERS, entries=CUT, fault=(50, 60)).verdict is NOT_CHECKED
    assert split(f"{both} refused", *PEERS, **about).verdict is OK
    # The balancer's last write to a member that is cut off.
    assert (
        split("A upsert x a 10-11 @lb node=chroma-3\nB upsert x b 12-13 @chroma-3", *PEERS, **about).verdict
        is OK
    )


def test_a_member_that_was_killed_and_is_back_is_no_other_side() -> None:
    about = record(*PEERS, entries=CUT, fault=(5, 20))
    about.fault_detail = {"struck": ["chroma-3"], "pids": {"chroma-3": [4711]}}
    both = history("A upsert x a 10-11 @chroma-1\nB upsert x b 12-13 @chroma-3")
    assert judge(about, both).of("split-brain").verdict is NOT_CHECKED


def test_reigns_and_the_time_with_two_leaders() -> None:
    about = record(FIRST, SECOND, (12_000, "node-1", "follower", 2), (20_000, "node-2", "leader", 4))
    found = [(one.member, one.term, one.begin_ns / 1e6, one.end_ns / 1e6) for one in reigns(about.events)]
    assert found == [
        ("node-1", 1, 0, 12_000),
        ("node-2", 2, 10_000, 20_000),
        ("node-2", 4, 20_000, float("inf")),
    ]
    leadership = judge(about, history("A upsert x a 1-30000 node=node-1")).measures["leadership"]
    assert leadership["two_leaders_ms"] == 2_000
    assert leadership["reigns"][2] == {
        "member": "node-2", "term": 4, "from_ms": 20_000, "to_ms": None, "acknowledged": 0
    }  # fmt: skip


def log_of(*entries: tuple[int, int, str], **others: list[tuple[int, int, str]]) -> LogEvidence:
    """(index, term, request ids joined by commas), the same on two members; `others`: by member."""
    members = {"node-1": list(entries), "node-2": list(entries)} | others
    return LogEvidence(
        {
            member: [LogEntry(index, term, tuple(filter(None, ids.split(",")))) for index, term, ids in log]
            for member, log in members.items()
        }
    )


TWO = "A upsert x a 0-1 id=r1 index=1\nA upsert x b 2-3 id=r2 index=2"


@pytest.mark.parametrize(
    ("name", "text", "log", "expected"),
    [
        ("in order", TWO, log_of((1, 1, "r1"), (2, 1, "r2")), OK),
        ("in one entry", TWO, log_of((1, 1, "r1,r2")), OK),
        ("other order", TWO, log_of((1, 1, "r2"), (2, 1, "r1")), VIOLATION),
        ("missing", TWO, log_of((1, 1, "r1")), VIOLATION),
        ("twice", TWO, log_of((1, 1, "r1"), (2, 1, "r2"), (3, 1, "r2")), VIOLATION),
        ("compacted", TWO, log_of((2, 1, "r2")), OK),
        (
            "members differ",
            TWO,
            log_of((1, 1, "r1"), (2, 1, "r2"), node_3=[(1, 1, "r1"), (2, 2, "r9")]),
            VIOLATION,
        ),
        ("a member is behind", TWO, log_of((1, 1, "r1"), (2, 1, "r2"), node_3=[(1, 1, "r1")]), OK),
        (
            "refused, but there",
            "A upsert x a 0-1 id=r1 refused\nA upsert x b 2-3 id=r2",
            log_of((1, 1, "r1"), (2, 1, "r2")),
            VIOLATION,
        ),
        ("unknown and not there", TWO.replace("0-1", "0-?", 1), log_of((2, 1, "r2")), OK),
        (
            "concurrent, other order",
            "A upsert x a 0-5 id=r1\nB upsert x b 5-9 id=r2",
            log_of((1, 1, "r2"), (2, 1, "r1")),
            OK,
        ),
        (
            "acknowledged before it was there",
            "A upsert x a 0-1 id=r1 index=1",
            log_of((2, 1, "r1"), (1, 1, "")),
            VIOLATION,
        ),
        ("nothing to compare", "A get x null 0-1", log_of((1, 1, "r1")), NOT_CHECKED),
    ],
)
def test_the_log_and_the_acknowledgements(name: str, text: str, log: LogEvidence, expected: Verdict) -> None:
    assert judge(record(), history(text), log).of("log").verdict is expected, name


def test_without_a_log_it_is_not_checked() -> None:
    judgement = judge(record(), history(TWO))
    assert judgement.of("log").verdict is NOT_CHECKED
    assert "log" not in judgement.measures


#: Fits only if the write of unknown outcome took effect after b.
LATE = "A upsert x a 0-? id=r1\nB upsert x b 2-3 id=r2\nC get x b 4-5\nC get x a 6-7\nD upsert y c 8-9 id=r3"


@pytest.mark.parametrize(
    ("name", "log", "expected", "counts"),
    [
        ("the log has it last", log_of((1, 1, "r2"), (2, 1, "r1"), (3, 1, "r3")), OK, (0, 1, 0)),
        # Then it was overwritten, and no read may show it again.
        ("the log has it first", log_of((1, 1, "r1"), (2, 1, "r2"), (3, 1, "r3")), VIOLATION, (0, 1, 0)),
        ("the log does not have it", log_of((1, 1, "r2"), (2, 1, "r3")), VIOLATION, (1, 0, 0)),
        ("nothing behind it", log_of((1, 1, "r2"), (2, 1, "r3"), (3, 1, "r1")), OK, (0, 0, 1)),
        ("compacted", log_of((3, 1, "r3")), OK, (0, 0, 1)),
        ("an acknowledged write is missing", log_of((1, 1, "r2"), (2, 1, "")), OK, (0, 0, 1)),
    ],
)
def test_unknown_writes_are_resolved_from_the_log(
    name: str, log: LogEvidence, expected: Verdict, counts: tuple[int, int, int]
) -> None:
    judgement = judge(record(), history(LATE), log)
    assert judgement.of("linearizable").verdict is expected, name
    resolved = judgement.measures["log"]
    assert (resolved["dropped"], resolved["closed"], resolved["open"]) == counts
    assert resolved["unpruned"]["verdict"] == OK
